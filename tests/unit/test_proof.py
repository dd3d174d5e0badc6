"""The proof rejects every kind of wrong schedule, with its reason."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from commbench.proof import ProofError, prove
from commbench.schedule import WHOLE, AllReduce, Piece, Recv, Round, Schedule, Send
from commbench.topologies import parameter_server, ring, tree


def rejected(schedules: list[Schedule], reason: str) -> None:
    with pytest.raises(ProofError, match=reason):
        prove(schedules)


def edited(schedule: Schedule, turn: int, edit: Callable[[Round], Round]) -> Schedule:
    rounds = list(schedule.rounds)
    rounds[turn] = edit(rounds[turn])
    return replace(schedule, rounds=tuple(rounds))


def swap(first: Send | Recv, second: Send | Recv) -> Schedule:
    return Schedule((Round((first, second)),))


def test_a_pair_that_swaps_buffers_is_an_all_reduce() -> None:
    counts = prove([swap(Send(WHOLE, 1), Recv(WHOLE, 1)), swap(Send(WHOLE, 0), Recv(WHOLE, 0))])
    assert (counts.rounds, counts.messages, counts.sent, counts.received) == (1, 2, (1, 1), (1, 1))


def test_missing_contribution() -> None:
    # The gather forgets to add: rank 2's gradient takes the place of the sum so far.
    schedules = [parameter_server.schedule(rank, 3) for rank in range(3)]
    gather = Round((Recv(WHOLE, 1), Recv(WHOLE, 2, reduce=False)))
    schedules[0] = edited(schedules[0], 0, lambda _: gather)
    rejected(schedules, "rank 0 ends, .* with a missing contribution of ranks 0, 1")


def test_missing_contribution_in_part_of_the_buffer() -> None:
    schedules = [ring.schedule(rank, 4) for rank in range(4)]

    def forget(step: Round) -> Round:
        return Round(
            tuple(replace(o, reduce=False) if isinstance(o, Recv) else o for o in step.ops)
        )

    schedules[2] = edited(schedules[2], 1, forget)
    rejected(schedules, r"from 0 to 1/4 of it, with a missing contribution of rank 2")


def test_double_contribution() -> None:
    # The broadcast adds instead of replacing: a worker counts itself twice.
    schedules = [tree.schedule(rank, 4) for rank in range(4)]
    schedules[3] = edited(schedules[3], -1, lambda _: Round((Recv(WHOLE, 2, reduce=True),)))
    rejected(schedules, "rank 3 ends, .* with a double contribution of rank 3")


def test_double_contribution_when_one_message_is_added_twice() -> None:
    one = Schedule((Round((Send(WHOLE, 1), Send(WHOLE, 1), Recv(WHOLE, 1))),))
    other = Schedule((Round((Recv(WHOLE, 0), Recv(WHOLE, 0), Send(WHOLE, 0))),))
    rejected([one, other], "rank 1 .* double contribution of rank 0")


def test_circular_wait_of_receives() -> None:
    receive_first = [
        Schedule((Round((Recv(WHOLE, 1 - rank),)), Round((Send(WHOLE, 1 - rank),))))
        for rank in range(2)
    ]
    rejected(
        receive_first,
        "circular wait: rank 0 in round 0 waits for piece 0/1 from rank 1; "
        "rank 1 in round 0 waits for piece 0/1 from rank 0",
    )


def test_circular_wait_round_three_ranks() -> None:
    schedules = [
        Schedule((Round((Recv(WHOLE, (rank + 1) % 3),)), Round((Send(WHOLE, (rank - 1) % 3),))))
        for rank in range(3)
    ]
    rejected(schedules, "circular wait: .*rank 0.*rank 1.*rank 2")


def test_circular_wait_for_a_buffer_still_being_read() -> None:
    # Each must overwrite what the other has yet to take, and takes it only afterwards.
    def one(rank: int) -> Schedule:
        peer = 1 - rank
        return Schedule(
            (
                Round((Send(Piece(0, 2), peer), Send(Piece(1, 2), peer))),
                Round((Recv(Piece(0, 2), peer, reduce=True), Recv(Piece(1, 2), peer, reduce=True))),
            )
        )

    def hasty(rank: int) -> Schedule:
        peer = 1 - rank
        send_all = Round((Send(WHOLE, peer),))
        return Schedule((send_all, Round((Recv(WHOLE, peer, reduce=True),))))

    rejected([one(0), one(1)], "circular wait: rank 0 in round 1 waits for rank 1 to take piece")
    rejected([hasty(0), hasty(1)], "circular wait: .* to take piece 0/1")


def test_two_rounds_of_all_to_all_do_not_wait_in_a_circle() -> None:
    # Waiting for all earlier sends, not only the overlapping ones, would stop here.
    size = 5

    def one(rank: int) -> Schedule:
        others = [peer for peer in range(size) if peer != rank]
        own = Piece(rank, size)
        scatter = [*(Send(Piece(p, size), p) for p in others), *(Recv(own, p) for p in others)]
        gather = [
            *(Send(own, p) for p in others),
            *(Recv(Piece(p, size), p, reduce=False) for p in others),
        ]
        return Schedule((Round(tuple(scatter)), Round(tuple(gather))))

    counts = prove([one(rank) for rank in range(size)])
    assert counts.rounds == 2


@pytest.mark.parametrize("peer", [-1, 2, 5])
def test_wrong_peer_that_does_not_exist(peer: int) -> None:
    schedules = [swap(Send(WHOLE, peer), Recv(WHOLE, 1)), swap(Send(WHOLE, 0), Recv(WHOLE, 0))]
    rejected(schedules, rf"rank 0, round 0: wrong peer {peer} ")


def test_wrong_peer_oneself() -> None:
    rejected([Schedule((Round((Send(WHOLE, 0), Recv(WHOLE, 0))),))], "wrong peer 0")


def test_wrong_peer_that_expects_nothing() -> None:
    schedules = [tree.schedule(rank, 4) for rank in range(4)]
    schedules[3] = edited(schedules[3], 0, lambda _: Round((Send(WHOLE, 1),)))
    rejected(
        schedules,
        "wrong peer: rank 3 sends 1 messages to rank 1, which receives 0|"
        "wrong peer: rank 3 sends 0 messages to rank 2, which receives 1",
    )


def test_wrong_piece() -> None:
    schedules = [ring.schedule(rank, 3) for rank in range(3)]
    schedules[1] = edited(schedules[1], 2, lambda step: Round((Send(Piece(0, 2), 2), *step.recvs)))
    rejected(schedules, "rank 2, round 2: expects piece 2/3 from rank 1, which sends piece 0/2")


def test_piece_that_does_not_exist() -> None:
    schedules = [swap(Send(Piece(2, 2), 1), Recv(WHOLE, 1)), swap(Send(WHOLE, 0), Recv(WHOLE, 0))]
    rejected(schedules, "rank 0, round 0: there is no piece 2/2")


def test_a_dedicated_servers_buffer_must_not_enter_the_sum() -> None:
    schedules = [parameter_server.schedule(rank, 3, server="dedicated") for rank in range(3)]
    schedules[0] = edited(schedules[0], 0, lambda _: Round((Recv(WHOLE, 1), Recv(WHOLE, 2))))
    rejected(schedules, "rank 1 ends, .* with the contents of a rank that has no gradient")


def test_native_needs_every_rank() -> None:
    native = Schedule((Round((AllReduce(WHOLE),)),))
    assert prove([native] * 3).native
    rejected([native, native, Schedule(())], "waits in a native all-reduce for rank 2")


def test_native_alone_in_its_round_and_for_one_piece() -> None:
    crowded = Schedule((Round((AllReduce(WHOLE), Send(WHOLE, 1))),))
    rejected(
        [crowded, Schedule((Round((AllReduce(WHOLE), Recv(WHOLE, 0))),))], "alone in its round"
    )
    halves = [Schedule((Round((AllReduce(Piece(rank, 2)),)),)) for rank in range(2)]
    rejected(halves, re.escape("native all-reduce for different pieces"))


def test_all_ranks_reduce_or_none() -> None:
    rejected([Schedule(()), Schedule((), reduces=False)], "some ranks take part")
    assert prove([Schedule((), reduces=False)] * 2).messages == 0


def test_a_send_carries_the_value_from_the_beginning_of_its_round() -> None:
    # Both add what the other had, so a third value sent on later holds both contributions once.
    def one(rank: int) -> Schedule:
        peer = 1 - rank
        return Schedule((Round((Recv(WHOLE, peer), Send(WHOLE, peer))),))

    assert prove([one(0), one(1)]).messages == 2
