"""Which send belongs to which receive: the first thing that a proof settles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from commbench.schedule import AllReduce, Op, Recv, Round, Schedule, Send

# Where an operation stands: rank, round, place in the round.
Place = tuple[int, int, int]


class ProofError(Exception):
    """The schedules are not an all-reduce; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Value:
    """Contributions in one part of one rank's buffer, as sets of ranks in the bits of an int."""

    seen: int
    twice: int = 0

    def plus(self, other: Value) -> Value:
        """The sum of two parts; what is in both is then in it twice."""
        twice = self.twice | other.twice | (self.seen & other.seen)
        return Value(self.seen | other.seen, twice)


@dataclass(eq=False)
class Message:
    """A send and its receive, and how far the play has got with them."""

    send: Send
    recv: Recv
    sender: int
    send_round: int
    receiver: int
    value: list[Value] = field(default_factory=list)
    posted_at: int | None = None
    received: bool = False


def match(schedules: Sequence[Schedule]) -> dict[Place, Message]:
    """Pair the k-th send from one rank to another with the k-th receive there.

    Returns:
        The messages by the places of both operations.

    Raises:
        ProofError: a wrong peer or piece, or a send without its receive.
    """
    ends: dict[tuple[int, int], tuple[list[Place], list[Place]]] = defaultdict(lambda: ([], []))
    for rank, schedule in enumerate(schedules):
        for turn, step in enumerate(schedule.rounds):
            _check(rank, turn, step, len(schedules))
            for index, op in enumerate(step.ops):
                if isinstance(op, Send):
                    ends[rank, op.to][0].append((rank, turn, index))
                elif isinstance(op, Recv):
                    ends[op.source, rank][1].append((rank, turn, index))
    messages = {}
    for (sender, receiver), (out, into) in ends.items():
        if len(out) != len(into):
            raise ProofError(
                f"wrong peer: rank {sender} sends {len(out)} messages to rank {receiver}, "
                f"which receives {len(into)} from it"
            )
        for sent_at, received_at in zip(out, into, strict=True):
            send, recv = _op(schedules, sent_at), _op(schedules, received_at)
            assert isinstance(send, Send)
            assert isinstance(recv, Recv)
            if send.piece != recv.piece:
                raise ProofError(
                    f"rank {receiver}, round {received_at[1]}: expects piece {recv.piece} from "
                    f"rank {sender}, which sends piece {send.piece} (its round {sent_at[1]})"
                )
            message = Message(send, recv, sender, sent_at[1], receiver)
            messages[sent_at] = messages[received_at] = message
    return messages


def _op(schedules: Sequence[Schedule], place: Place) -> Op:
    rank, turn, index = place
    return schedules[rank].rounds[turn].ops[index]


def _check(rank: int, turn: int, step: Round, size: int) -> None:
    """What can be said of a round by itself."""
    where = f"rank {rank}, round {turn}"
    for op in step.ops:
        if not 0 <= op.piece.index < op.piece.of:
            raise ProofError(f"{where}: there is no piece {op.piece}")
        if isinstance(op, AllReduce):
            if len(step.ops) > 1:
                raise ProofError(f"{where}: a native all-reduce must be alone in its round")
            continue
        peer = op.to if isinstance(op, Send) else op.source
        if not 0 <= peer < size or peer == rank:
            raise ProofError(f"{where}: wrong peer {peer} (the others of ranks 0..{size - 1})")
