"""What is made of right schedules is right, and why it must be made of schedules in lock-step."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commbench.compose import (
    IDLE,
    backwards,
    lasting,
    on_ranks,
    pipelined,
    segmented,
    segmented_rounds,
    then,
    together,
    within,
)
from commbench.matching import ProofError, match
from commbench.proof import prove
from commbench.schedule import WHOLE, AllReduce, Piece, Recv, Round, Schedule, Send
from commbench.topologies import parameter_server, ring, tree

Ranks = list[Schedule]
ALL_REDUCES: list[Callable[[int, int], Schedule]] = [
    ring.schedule,
    tree.schedule,
    parameter_server.schedule,
]


def exchange(rank: int) -> Schedule:
    """Two ranks swap halves, then sums."""
    mine, other = Piece(rank, 2), Piece(1 - rank, 2)
    return Schedule(
        (
            Round((Send(other, 1 - rank), Recv(mine, 1 - rank))),
            Round((Send(mine, 1 - rank), Recv(other, 1 - rank, reduce=False))),
        )
    )


@st.composite
def in_lock_step(draw: st.DrawFn, size: int) -> Ranks:
    """Any messages at all, each sent and received in the same round."""
    rounds = draw(st.integers(0, 4))
    ops: list[list[list[Send | Recv]]] = [[[] for _ in range(rounds)] for _ in range(size)]
    for turn in range(rounds):
        for _ in range(draw(st.integers(0, 6))):
            sender, receiver = draw(st.permutations(range(size)))[:2]
            of = draw(st.integers(1, 3))
            piece = Piece(draw(st.integers(0, of - 1)), of)
            ops[sender][turn].append(Send(piece, receiver))
            ops[receiver][turn].append(Recv(piece, sender, draw(st.booleans())))
    return [Schedule(tuple(Round(tuple(o)) for o in own), reduces=False) for own in ops]


def is_in_lock_step(schedules: Ranks) -> bool:
    """Every message is sent and received in the same round; nothing waits in a circle."""
    assert len({len(schedule.rounds) for schedule in schedules}) == 1
    prove(schedules)
    return all(
        message.send_round == turn
        for (rank, turn, _), message in match(schedules).items()
        if message.receiver == rank
    )


@given(st.data(), st.integers(2, 5), st.integers(1, 4))
def test_the_combinators_keep_lock_step(data: st.DataObject, size: int, number: int) -> None:
    sets = [data.draw(in_lock_step(size)) for _ in range(number)]
    order = data.draw(st.permutations(range(size)))
    by_rank = list(zip(*sets, strict=True))
    nested = [[within(s, Piece(k, number)) for k, s in enumerate(own)] for own in by_rank]
    longest = max(len(one[0].rounds) for one in sets)
    for made in (
        [then(*own) for own in by_rank],
        [backwards(then(*own)) for own in by_rank],
        [together(*own) for own in nested],
        [pipelined(*own) for own in nested],
        [segmented(own[0], number) for own in by_rank],
        [lasting(own[0], longest) for own in by_rank],
        [on_ranks(by_rank[order.index(rank)][0], order) for rank in range(size)],
    ):
        assert is_in_lock_step(made)


@given(st.lists(st.sampled_from(ALL_REDUCES), min_size=1, max_size=4), st.integers(1, 6))
def test_any_exchanges_of_disjoint_pieces_are_an_exchange(
    parts: list[Callable[[int, int], Schedule]], size: int
) -> None:
    for merge in (together, pipelined):
        schedules = [
            merge(*(within(part(r, size), Piece(k, len(parts))) for k, part in enumerate(parts)))
            for r in range(size)
        ]
        prove(schedules)


@given(st.integers(1, 9), st.integers(1, 6))
def test_a_pipeline_takes_one_round_more_for_each_segment(size: int, segments: int) -> None:
    for topology in (ring.schedule, tree.schedule):
        plain = prove([topology(rank, size) for rank in range(size)])
        cut = prove([segmented(topology(rank, size), segments) for rank in range(size)])
        assert cut.rounds == segmented_rounds(plain.rounds, segments)
        assert cut.messages == plain.messages * segments
        assert (cut.sent, cut.received) == (plain.sent, plain.received)


def test_a_pipeline_round_by_round() -> None:
    late = pipelined(*(within(exchange(0), Piece(k, 2)) for k in range(2)))
    pieces = [[str(op.piece) for op in turn.sends] for turn in late.rounds]
    assert pieces == [["1/4"], ["0/4", "3/4"], ["2/4"]]


def test_an_empty_pipeline_stays_empty() -> None:
    assert segmented(IDLE, 3) == IDLE
    assert segmented_rounds(0, 3) == 0


def test_without_lock_step_a_pipeline_confuses_the_messages() -> None:
    # Right as it stands; but the receiver is a round late with the second message only.
    halves = [Piece(0, 2), Piece(1, 2)]
    sender = Schedule(tuple(Round((Send(p, 1),)) for p in halves), reduces=False)
    first, second = (Round((Recv(p, 0),)) for p in halves)
    receiver = Schedule((first, Round(()), second), reduces=False)
    prove([sender, receiver])
    with pytest.raises(ProofError, match="rank 1, round 1: expects piece 2/4 from rank 0"):
        prove([segmented(schedule, 2) for schedule in (sender, receiver)])


def test_a_group_elsewhere() -> None:
    places = {4: 0, 1: 1}
    schedules = [
        on_ranks(exchange(places[rank]), [4, 1]) if rank in places else lasting(IDLE, 2)
        for rank in range(5)
    ]
    ends = {(m.sender, m.receiver) for m in match(schedules).values()}
    assert ends == {(4, 1), (1, 4)}


def test_pieces_nest() -> None:
    inside = within(exchange(1), Piece(2, 3))
    assert inside.rounds[0].sends[0].piece == Piece(4, 6)
    for count in range(20):
        start, stop = Piece(2, 3).bounds(count)
        assert Piece(4, 6).bounds(count)[0] == start
        assert Piece(5, 6).bounds(count)[1] == stop


def test_backwards_a_reduction_is_a_broadcast() -> None:
    up = Schedule((Round((Recv(WHOLE, 1),)), Round((Recv(WHOLE, 2),)), Round(())))
    assert backwards(up).rounds == (
        Round(()),
        Round((Send(WHOLE, 2),)),
        Round((Send(WHOLE, 1),)),
    )
    assert backwards(backwards(up)) == Schedule(
        (Round((Recv(WHOLE, 1, reduce=False),)), Round((Recv(WHOLE, 2, reduce=False),)), Round(()))
    )


def test_the_librarys_all_reduce_cannot_run_in_a_group() -> None:
    native = Schedule((Round((AllReduce(),)),))
    assert within(native, Piece(1, 3)).rounds[0].ops == (AllReduce(Piece(1, 3)),)
    with pytest.raises(ValueError, match="over all ranks, not over some"):
        on_ranks(native, [0, 1])


def test_what_does_not_fit_is_told() -> None:
    server = Schedule((), contributes=False)
    with pytest.raises(ValueError, match="cannot be a worker in one schedule and not in another"):
        then(exchange(0), server)
    with pytest.raises(ValueError, match="a schedule of 2 rounds does not fit in 1"):
        lasting(exchange(0), 1)
    with pytest.raises(ValueError, match="segments=0: there must be at least 1"):
        segmented(exchange(0), 0)
