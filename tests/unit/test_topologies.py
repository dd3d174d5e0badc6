"""Every installed exchange, at every size: an all-reduce, and as expensive as its formula says."""

from fractions import Fraction

import pytest

from commbench.errors import UserError
from commbench.proof import prove
from commbench.registry import parse_exchange, topology_names, topology_options
from commbench.schedule import traffic

SIZES = [*range(1, 34), 44, 48, 64, 100, 128]
# A choice by size runs others and has no schedule of its own.
PLAIN = [name for name in topology_names() if parse_exchange(name).plain]
EXCHANGES = [*PLAIN, "parameter-server@server=dedicated"]
# The others take any number of ranks, with what their options ask for.
POWERS_OF_TWO_ONLY = ["halving-doubling"]


def refused(spec: str, size: int) -> str | None:
    """What is said to sizes that do not work; None where it has to work."""
    if size == 1 and "dedicated" in spec:
        return "at least 2 ranks"
    if size.bit_count() > 1 and spec in POWERS_OF_TWO_ONLY:
        return "works on powers of two"
    return None


@pytest.mark.parametrize("spec", EXCHANGES)
def test_proved_and_counted_at_every_size(spec: str) -> None:
    choice = parse_exchange(spec)
    for size in SIZES:
        if reason := refused(spec, size):
            with pytest.raises(UserError, match=reason):
                choice.schedules(size)
            continue
        counts = prove(choice.schedules(size))
        formula = choice.closed_form(size)
        if counts.native:
            assert formula is None
        else:
            assert formula == counts.closed_form(), f"{spec} on {size} ranks"


# Independent of the formulas in the topology files: the factors in the literature, for p = 8.
@pytest.mark.parametrize(
    ("spec", "rounds", "messages", "busiest"),
    [
        ("none", 0, 0, Fraction(0)),
        ("parameter-server", 2, 14, Fraction(7)),
        ("parameter-server@server=dedicated", 2, 14, Fraction(7)),
        ("tree", 6, 14, Fraction(3)),
        ("ring", 14, 112, Fraction(7, 4)),
        ("torus", 8, 64, Fraction(7, 4)),
        ("hierarchical", 10, 48, Fraction(3)),
        ("double-tree", 9, 112, Fraction(2)),
        ("tree@segments=4", 9, 56, Fraction(3)),
        ("sharded-server", 2, 112, Fraction(7, 4)),
        ("sharded-server@servers=2", 2, 24, Fraction(3)),
        ("halving-doubling", 6, 48, Fraction(7, 4)),
        ("binary-blocks", 6, 48, Fraction(7, 4)),
        ("recursive-doubling", 3, 24, Fraction(3)),
    ],
)
def test_costs_on_eight_ranks(spec: str, rounds: int, messages: int, busiest: Fraction) -> None:
    counts = prove(parse_exchange(spec).schedules(8))
    assert (counts.rounds, counts.messages) == (rounds, messages)
    assert max(counts.sent) == max(counts.received) == busiest


@pytest.mark.parametrize(
    ("spec", "size"),
    [(spec, size) for spec in EXCHANGES for size in (2, 3, 7, 8) if not refused(spec, size)],
)
@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_what_is_sent_is_received(spec: str, size: int, count: int) -> None:
    moved = [traffic(schedule, count) for schedule in parse_exchange(spec).schedules(size)]
    assert sum(m.messages_sent for m in moved) == sum(m.messages_received for m in moved)
    assert sum(m.elements_sent for m in moved) == sum(m.elements_received for m in moved)


def test_only_a_dedicated_server_brings_no_gradient() -> None:
    for spec in EXCHANGES:
        expected = [1, 2, 3] if "dedicated" in spec else [0, 1, 2, 3]
        assert parse_exchange(spec).workers(4) == expected


def test_every_option_has_a_default_and_a_type() -> None:
    for name in topology_names():
        for parameter in topology_options(name).values():
            assert parameter.default is not parameter.empty
            assert parameter.annotation is not parameter.empty
