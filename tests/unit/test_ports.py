"""The link model of the emulated transport, on a clock that the tests move."""

import math
from collections.abc import Sequence

import pytest
from click.testing import CliRunner

from commbench.cli import commands
from commbench.errors import UserError
from commbench.registry import parse_exchange
from commbench.schedule import Schedule
from commbench.transport import link_of, transport_name
from commbench.transport.link import Link, Rate
from commbench.transport.ports import Ports

# 100 bytes a second, half a second late.
LINK = Link(Rate(800), 0.5)


def test_a_port_sends_one_message_after_another() -> None:
    ports = Ports(LINK)
    assert ports.send(10.0, 100) == (10.0, 11.0)
    assert ports.send(10.2, 50) == (11.0, 11.5)
    assert ports.send(20.0, 100) == (20.0, 21.0)  # idle time is lost


def test_a_port_receives_in_the_order_of_arrival() -> None:
    ports = Ports(LINK)
    late, early = ports.expect(3.0, 100), ports.expect(1.0, 200)
    assert ports.next_event(0.0) == 1.5
    assert not ports.passed(late, 2.0)  # the early one is under way
    assert early.due == 3.5
    assert ports.next_event(2.0) == 3.5
    assert ports.passed(early, 3.5)
    assert not ports.passed(late, 4.4)
    assert late.due == 4.5  # it began to arrive at 3.5, when the port became free
    assert ports.passed(late, 4.5)
    assert ports.next_event(4.5) == math.inf


def test_what_is_told_late_is_not_booked_in_the_past_twice() -> None:
    ports = Ports(LINK)
    first, second = ports.expect(0.0, 100), ports.expect(0.0, 100)
    assert ports.passed(first, 10.0)
    assert ports.passed(second, 10.0)
    assert (first.due, second.due) == (1.5, 2.5)
    assert ports.next_event(10.0) == math.inf


def played(schedules: Sequence[Schedule], count: int, link: Link) -> float:
    """When the last rank is through, if nothing but the ports takes time."""
    ports = [Ports(link) for _ in schedules]
    clock = [0.0] * len(schedules)
    turn = [0] * len(schedules)
    posted: dict[tuple[int, int], list[tuple[float, int]]] = {}
    entered = [-1] * len(schedules)
    while any(turn[rank] < len(one.rounds) for rank, one in enumerate(schedules)):
        for rank, schedule in enumerate(schedules):
            if turn[rank] == len(schedule.rounds):
                continue
            step = schedule.rounds[turn[rank]]
            if entered[rank] < turn[rank]:
                entered[rank] = turn[rank]
                for send in step.sends:
                    start, stop = send.piece.bounds(count)
                    begin, _ = ports[rank].send(clock[rank], stop - start)
                    posted.setdefault((rank, send.to), []).append((begin, stop - start))
            if any(not posted.get((recv.source, rank)) for recv in step.recvs):
                continue
            tickets = [ports[rank].expect(*posted[recv.source, rank].pop(0)) for recv in step.recvs]
            for ticket in tickets:
                ports[rank].passed(ticket, math.inf)
                clock[rank] = max(clock[rank], ticket.due)
            turn[rank] += 1
    return max(clock)


@pytest.mark.parametrize(
    ("spec", "transfers", "rounds"),
    [
        ("parameter-server", lambda p: 2 * (p - 1), lambda p: 2),
        ("tree", lambda p: 2 * math.log2(p), lambda p: 2 * math.log2(p)),
        ("ring", lambda p: 2 * (p - 1) / p, lambda p: 2 * (p - 1)),
        ("halving-doubling", lambda p: 2 * (p - 1) / p, lambda p: 2 * math.log2(p)),
    ],
)
@pytest.mark.parametrize("ranks", [2, 4, 8, 16])
def test_exchanges_take_their_closed_forms(spec, transfers, rounds, ranks) -> None:  # type: ignore[no-untyped-def]
    schedules = parse_exchange(spec).schedules(ranks)
    count = 1 << 10
    buffer_s = count / LINK.rate.bytes_per_s
    expected = transfers(ranks) * buffer_s + rounds(ranks) * LINK.latency_s
    assert played(schedules, count, LINK) == pytest.approx(expected)


def test_names_tell_the_link() -> None:
    assert link_of("emulated@1gbit,1ms") == Link(Rate("1gbit"), 0.001)
    assert transport_name("emulated@1gbit", "cpu") == "emulated@1gbit"
    with pytest.raises(UserError, match="for --device cpu"):
        transport_name("emulated@1gbit", "cuda:0")
    with pytest.raises(UserError, match="give --link"):
        transport_name("emulated", "cpu")


@pytest.mark.parametrize("verb", ["sweep", "train", "tune"])
@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--transport", "emulated"], "give --link"),
        (["--link", "100mbit"], "--link 100mbit is for --transport emulated"),
        (["--transport", "emulated", "--link", "fast"], "is not a speed"),
    ],
)
def test_links_and_transports_belong_together(verb: str, options: list[str], why: str) -> None:
    result = CliRunner().invoke(commands, [verb, *options])
    assert isinstance(result.exception, UserError)
    assert why in str(result.exception)
