"""What an exchange moves through each rank, and the bound it is held against."""

import math
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from commbench.compose import then, within
from commbench.course import _bucket
from commbench.load import by_library, hottest, least, loads
from commbench.plans import Plans
from commbench.proof import prove
from commbench.registry import Choice, admitted, parse_exchange, parse_exchanges
from commbench.schedule import AllReduce, Piece, Round, Schedule
from commbench.topologies import tree
from commbench.wire import FLOAT32

SERVED = ["parameter-server@server=dedicated", "sharded-server@servers=2"]


def mixed(rank: int, size: int) -> Schedule:
    """Not called native, and yet the library sums half of it."""
    half = Schedule((Round((AllReduce(Piece(0, 2)),)),))
    return then(half, within(tree.schedule(rank, size), Piece(1, 2)))


def bucket(choice: Choice, size: int, count: int) -> Any:
    plans = Plans({}, {}, {choice.spec: choice.schedules(size)})
    course: Any = SimpleNamespace(algorithm=lambda nbytes: choice, plans=plans, wire=FLOAT32)
    return _bucket(choice, course, count, 4)


@pytest.mark.parametrize("size", [2, 3, 4, 7, 8, 12])
def test_nothing_beats_the_bound(size: int) -> None:
    served = [spec for spec in SERVED if size > 2 or "server=" in spec]
    for choice in [*admitted(parse_exchanges("all"), size)[0], *map(parse_exchange, served)]:
        for part in choice.parts(size):
            plans = part.schedules(size)
            if part.name != "none" and not by_library(plans):
                counts = prove(plans)
                assert max(*counts.sent, *counts.received) >= least(plans), part.spec


def test_the_bound_is_met_by_the_ring_and_by_as_many_servers_as_workers() -> None:
    assert least(parse_exchange("ring").schedules(8)) == Fraction(14, 8)
    assert least(parse_exchange("ring").schedules(1)) == 0
    dedicated = parse_exchange("parameter-server@server=dedicated")
    assert least(dedicated.schedules(2)) == 0
    assert least(dedicated.schedules(10)) == Fraction(16, 10)
    # The buffer crosses each link once each way, and less is impossible.
    even = parse_exchange("sharded-server@servers=4").schedules(8)
    assert least(even) == max(prove(even).sent) == 1


def test_the_schedule_decides_what_is_known_and_not_the_name() -> None:
    named = Choice("half-and-half", {}, SimpleNamespace(schedule=mixed))
    plans = named.schedules(4)
    assert prove(plans).native
    assert by_library(plans)
    assert loads(plans, 100) is None
    assert math.isnan(hottest(plans, 100))
    unknown = bucket(named, 4, 100)
    assert unknown.algorithm == "half-and-half"
    assert unknown.bytes_sent is unknown.messages_sent is None
    assert math.isnan(unknown.hottest_rank_bytes)
    assert unknown.bound_bytes == 600


def test_a_bucket_of_a_training_run() -> None:
    told = bucket(parse_exchange("tree"), 4, 100)
    assert told.bytes_sent == [800, 400, 800, 400]
    assert told.messages_received == [2, 1, 2, 1]
    assert told.hottest_rank_bytes == 800
    assert told.bound_bytes == 600
