"""What a rank lends and what is answered in place, and that it changes nothing but the speed."""

import numpy as np
import pytest

from commbench.arrays import NumpyArrays, element_type
from commbench.cutting import Cut, Sum, cut
from commbench.loans import find_loans
from commbench.registry import admitted, parse_exchange, topology_names
from commbench.schedule import WHOLE, Piece, Recv, Round, Schedule, Send, traffic
from loopback import run_all

PLAIN = [
    choice
    for choice in map(parse_exchange, topology_names())
    if choice.plain and choice.name not in ("none", "native")
]


def plan(schedule: Schedule, count: int = 1000, copiers: int = 8) -> Cut:
    made = cut(schedule, count, lambda peer: 1 << 30)
    find_loans(made, lambda peer: True, copiers)
    return made


def sums(made: Cut) -> list[Sum]:
    return [recv for turn in made.turns for recv in turn.recvs if isinstance(recv, Sum)]


def arrays() -> NumpyArrays:
    return NumpyArrays(element_type("float32"))


@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_sharded_servers_answer_everybody_in_place(size: int) -> None:
    for schedule in parse_exchange("sharded-server").schedules(size):
        made = plan(schedule)
        assert sum(one.lent for one in made.sendings) == size - 1
        (total,) = sums(made)
        assert len(total.terms) == len(total.answers) == size - 1


def test_halving_doubling_answers_in_the_middle() -> None:
    for schedule in parse_exchange("halving-doubling").schedules(8):
        assert [len(total.answers) for total in sums(plan(schedule))] == [1]


@pytest.mark.parametrize("spec", ["ring", "parameter-server", "sharded-server@servers=2"])
def test_who_would_write_for_several_alone_answers_nobody(spec: str) -> None:
    for schedule in parse_exchange(spec).schedules(5):
        assert not sums(plan(schedule))


def test_a_server_answers_all_where_workers_could_not_copy_side_by_side() -> None:
    server, *workers = parse_exchange("parameter-server").schedules(5)
    (total,) = sums(plan(server, copiers=2))
    assert len(total.answers) == 4
    assert all(one.lent for worker in workers for one in plan(worker).sendings)


def test_a_root_answers_one_child() -> None:
    found = [sums(plan(schedule)) for schedule in parse_exchange("tree").schedules(5)]
    assert [len(one) for one in found] == [1, 0, 0, 0, 0]
    assert len(found[0][0].answers) == 1


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("segment", [16, 1 << 20])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_exchange_changes_a_bit_or_a_message(size: int, segment: int, dtype: str) -> None:
    kind = element_type(dtype)
    choices, _ = admitted(PLAIN, size)
    for choice in choices:
        results = []
        for loans in (True, False):
            noise = np.random.default_rng(3)
            buffers = [noise.normal(size=203).astype(kind.wire) for _ in range(size)]
            transports = run_all(
                choice.schedules(size),
                buffers,
                lambda: NumpyArrays(kind),
                times=2,
                loans=loans,
                segment_bytes=segment,
            )
            results.append([buffer.tobytes() for buffer in buffers])
            if segment > 1000:
                expected = [2 * traffic(one, 203).messages_sent for one in choice.schedules(size)]
                assert [transport.messages for transport in transports] == expected
        assert results[0] == results[1], choice.spec


def test_sums_are_really_answered_in_place() -> None:
    schedules = parse_exchange("sharded-server").schedules(4)
    buffers = [np.ones(100, np.float32) for _ in schedules]
    transports = run_all(schedules, buffers, arrays)
    assert [transport.answered for transport in transports] == [3] * 4
    assert all((buffer == 4).all() for buffer in buffers)


def test_where_one_does_not_lend_nobody_is_answered_in_place() -> None:
    # Rank 2 sends its part on as well: others read it, so nobody may write into it.
    half = [Piece(0, 2), Piece(1, 2)]
    zero = Schedule(
        (
            Round((Recv(WHOLE, 1), Recv(WHOLE, 2))),
            Round((Send(WHOLE, 1), Send(WHOLE, 2))),
            Round((Recv(half[0], 1, reduce=False),)),
        )
    )
    one = Schedule(
        (
            Round((Send(WHOLE, 0), Recv(WHOLE, 2, reduce=False))),
            Round((Recv(WHOLE, 0, reduce=False),)),
            Round((Send(half[0], 0),)),
        )
    )
    two = Schedule(
        (Round((Send(WHOLE, 0), Send(WHOLE, 1))), Round((Recv(WHOLE, 0, reduce=False),)))
    )
    assert not any(sending.lent for sending in plan(two).sendings)
    buffers = [np.full(50, rank + 1, np.float32) for rank in range(3)]
    transports = run_all([zero, one, two], buffers, arrays)
    assert [transport.answered for transport in transports] == [0] * 3
    assert all((buffer == 6).all() for buffer in buffers)


def test_what_was_sent_before_is_not_taken_for_the_answer() -> None:
    # Rank 1 first gets what rank 0 had, and only then the sum: the sum must not come before.
    zero = Schedule(
        (
            Round((Send(WHOLE, 1),)),
            Round((Recv(WHOLE, 1),)),
            Round((Send(WHOLE, 1),)),
            Round((Recv(WHOLE, 1, reduce=False),)),
        )
    )
    assert not sums(plan(zero))


def test_messages_of_one_source_keep_their_order() -> None:
    # The second half comes first; a sum made of the first half's terms must not overtake it.
    first, second = Piece(0, 2), Piece(1, 2)
    schedule = Schedule(
        (
            Round((Recv(first, 1), Recv(second, 2, reduce=False), Recv(first, 2))),
            Round((Send(first, 1), Send(first, 2))),
        )
    )
    assert not sums(plan(schedule, copiers=2))
    alone = Schedule((Round((Recv(first, 1), Recv(first, 2))), schedule.rounds[1]))
    assert len(sums(plan(alone, copiers=2))) == 1


def test_what_is_overwritten_waits_for_earlier_readers_only_once() -> None:
    made = cut(
        Schedule(
            (
                Round((Send(WHOLE, 1),)),
                Round((Recv(Piece(0, 2), 1), Recv(Piece(1, 2), 1), Send(Piece(0, 2), 2))),
                Round((Recv(WHOLE, 1),)),
            )
        ),
        100,
        lambda peer: 1000,
    )
    both, last = made.turns[1].recvs, made.turns[2].recvs
    assert [recv.readers for recv in both] == [(0,), (0,)]
    # Number 1 went out as a copy: its round overwrites what it sends.
    assert made.sendings[1].copy
    assert last[0].readers == ()


def test_only_what_was_added_to_is_rounded_again() -> None:
    made = cut(
        Schedule(
            (
                Round((Send(WHOLE, 1),)),
                Round((Recv(Piece(0, 2), 1),)),
                Round((Send(Piece(0, 2), 1), Send(Piece(1, 2), 1))),
                Round((Send(WHOLE, 2),)),
            )
        ),
        100,
        lambda peer: 1000,
    )
    assert [one.changed for one in made.sendings] == [False, True, False, False]
    assert [one.readers for one in made.sendings] == [(), (), (), ()]
