"""Proves that a schedule is an all-reduce, and counts what it costs, without running it.

All ranks are played symbolically. The buffer is cut at every boundary any piece has, and for each
part each rank holds the set of ranks whose contributions are in it. The proof holds for every
buffer length, because piece boundaries keep their order in all of them.

A rank waits as the executor does: a receive takes effect once its message was posted, and not
before the sends of *earlier* rounds that read the same elements have been received. (Waiting for
all earlier sends instead would make two rounds of all-to-all wait in a circle.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from commbench.matching import Message, ProofError, Value, match
from commbench.schedule import AllReduce, ClosedForm, Piece, Recv, Round, Schedule, Send

__all__ = ["Counts", "Play", "ProofError", "prove"]


@dataclass(frozen=True)
class Counts:
    """What a proved set of schedules costs.

    Attributes:
        rounds: the longest chain of rounds, each waiting for the one before.
        messages: messages sent by all ranks together.
        sent: for each rank, what it sends, as a fraction of the buffer.
        received: for each rank, what it receives, as a fraction of the buffer.
        native: whether the library's own all-reduce does work that is not counted here.
    """

    rounds: int
    messages: int
    sent: tuple[Fraction, ...]
    received: tuple[Fraction, ...]
    native: bool

    def closed_form(self) -> ClosedForm:
        """The same in the form a topology's formula has, to compare the two."""
        return ClosedForm(
            self.rounds,
            self.messages,
            max(self.sent),
            max(self.received),
            sum(self.sent, Fraction(0)),
        )


def prove(schedules: Sequence[Schedule]) -> Counts:
    """Check that every worker ends with every worker's contribution exactly once.

    Args:
        schedules: one for each rank, in rank order.

    Returns:
        The counts, exact.

    Raises:
        ProofError: a wrong peer or piece, a send without its receive, ranks waiting in a circle, a
            contribution that is missing or counted twice.
    """
    play = Play(schedules)
    play.run()
    if all(schedule.reduces for schedule in schedules):
        play.check_result()
    elif any(schedule.reduces for schedule in schedules):
        raise ProofError("some ranks take part in a sum and others do not")
    return play.counts()


class Play:
    """All ranks going through their rounds, each as far as it can.

    Attributes:
        cuts: the fractions at which the buffer is cut into parts.
        held: for each rank, what is in each part of its buffer.
    """

    def __init__(self, schedules: Sequence[Schedule], edges: Iterable[Fraction] = ()) -> None:
        """Begin; `edges` are cuts that no piece makes."""
        self.schedules = schedules
        self.size = len(schedules)
        self.messages = match(schedules)
        self.cuts = sorted(
            {Fraction(0), Fraction(1), *edges}
            | {
                Fraction(edge, op.piece.of)
                for schedule in schedules
                for step in schedule.rounds
                for op in step.ops
                for edge in (op.piece.index, op.piece.index + 1)
            }
        )
        self.cut_index = {cut: index for index, cut in enumerate(self.cuts)}
        # What a rank without a contribution holds is garbage: one bit beyond the ranks' own.
        self.garbage = 1 << self.size
        self.held = [
            [Value(1 << rank if schedule.contributes else self.garbage)] * (len(self.cuts) - 1)
            for rank, schedule in enumerate(schedules)
        ]
        self.turn = [0] * self.size
        self.next_op = [0] * self.size
        self.entered = [False] * self.size
        self.start = [0] * self.size
        self.end = [0] * self.size
        self.sent: list[list[Message]] = [[] for _ in schedules]
        self.waits_for: list[Message | None] = [None] * self.size
        self.sleepers: dict[int, list[int]] = defaultdict(list)
        self.at_native: list[int] = []

    def parts(self, piece: Piece) -> slice:
        """Which parts a piece consists of."""
        return slice(
            self.cut_index[Fraction(piece.index, piece.of)],
            self.cut_index[Fraction(piece.index + 1, piece.of)],
        )

    def run(self) -> None:
        """Play until all ranks are through.

        Raises:
            ProofError: some wait in a circle, or for a rank that never comes.
        """
        ready = list(range(self.size))
        while ready:
            rank = ready.pop()
            self.waits_for[rank] = None
            ready.extend(self.advance(rank))
        stuck = [r for r in range(self.size) if self.turn[r] < len(self.schedules[r].rounds)]
        if stuck:
            raise ProofError(self.circle(stuck))

    def advance(self, rank: int) -> list[int]:
        """Play `rank` until it has to wait; return the ranks that this woke."""
        woken: list[int] = []
        rounds = self.schedules[rank].rounds
        while self.turn[rank] < len(rounds):
            step = rounds[self.turn[rank]]
            if not self.entered[rank]:
                woken += self.enter(rank, step)
            if step.ops and isinstance(step.ops[0], AllReduce):
                return woken + self.meet(rank)
            while self.next_op[rank] < len(step.ops):
                if not isinstance(step.ops[self.next_op[rank]], Recv):
                    self.next_op[rank] += 1
                    continue
                message = self.messages[rank, self.turn[rank], self.next_op[rank]]
                blocker = self.blocker(rank, message)
                if blocker is not None:
                    self.waits_for[rank] = blocker
                    self.sleepers[id(blocker)].append(rank)
                    return woken
                woken += self.receive(rank, message)
            self.leave(rank)
        return woken

    def enter(self, rank: int, step: Round) -> list[int]:
        """Begin a round: what it sends is what is held now; return the ranks that this woke."""
        woken: list[int] = []
        self.entered[rank] = True
        self.end[rank] = self.start[rank] + bool(step.ops)
        for index, op in enumerate(step.ops):
            if not isinstance(op, Send):
                continue
            message = self.messages[rank, self.turn[rank], index]
            message.value = self.held[rank][self.parts(op.piece)]
            message.posted_at = self.start[rank]
            self.sent[rank].append(message)
            woken += self.sleepers.pop(id(message), [])
        return woken

    def blocker(self, rank: int, message: Message) -> Message | None:
        """What the receive of `message` has to wait for."""
        if message.posted_at is None:
            return message
        self.sent[rank] = [out for out in self.sent[rank] if not out.received]
        for out in self.sent[rank]:
            if out.send_round < self.turn[rank] and out.send.piece.overlaps(message.recv.piece):
                return out
        return None

    def receive(self, rank: int, message: Message) -> list[int]:
        """Let a message take effect; return the ranks that this woke."""
        parts = self.parts(message.recv.piece)
        if message.recv.reduce:
            pairs = zip(self.held[rank][parts], message.value, strict=True)
            self.held[rank][parts] = [own.plus(other) for own, other in pairs]
        else:
            self.held[rank][parts] = message.value
        message.received = True
        message.value = []
        self.next_op[rank] += 1
        assert message.posted_at is not None
        self.end[rank] = max(self.end[rank], message.posted_at + 1)
        return self.sleepers.pop(id(message), [])

    def meet(self, rank: int) -> list[int]:
        """A native all-reduce: nobody passes before all are there."""
        self.at_native.append(rank)
        if len(self.at_native) < self.size:
            return []
        steps = [self.schedules[r].rounds[self.turn[r]].ops[0].piece for r in range(self.size)]
        if len(set(steps)) > 1:
            told = ", ".join(str(piece) for piece in sorted(set(steps)))
            raise ProofError(f"ranks call the native all-reduce for different pieces: {told}")
        parts = self.parts(steps[0])
        total = self.held[0][parts]
        for other in self.held[1:]:
            total = [own.plus(part) for own, part in zip(total, other[parts], strict=True)]
        finish = max(self.end)
        for other_rank in range(self.size):
            self.held[other_rank][parts] = total
            self.end[other_rank] = finish
            self.leave(other_rank)
        self.at_native = []
        return list(range(self.size))

    def leave(self, rank: int) -> None:
        """End a round."""
        self.turn[rank] += 1
        self.next_op[rank] = 0
        self.entered[rank] = False
        self.start[rank] = self.end[rank]

    def circle(self, stuck: list[int]) -> str:
        """Follow who waits for whom from a stuck rank until somebody comes up twice."""
        told: dict[int, str] = {}
        rank = stuck[0]
        while rank not in told:
            message = self.waits_for[rank]
            here = f"rank {rank} in round {self.turn[rank]}"
            if message is None:
                finished = min(set(range(self.size)) - set(self.at_native))
                return f"{here} waits in a native all-reduce for rank {finished}, which never comes"
            if message.receiver == rank:
                told[rank] = (
                    f"{here} waits for piece {message.recv.piece} from rank {message.sender}"
                )
                rank = message.sender
            else:
                told[rank] = (
                    f"{here} waits for rank {message.receiver} to take piece {message.send.piece}"
                )
                rank = message.receiver
            if rank not in stuck:
                return f"{'; '.join(told.values())}, which has finished"
        ranks = list(told)
        return "a circular wait: " + "; ".join(told[r] for r in ranks[ranks.index(rank) :])

    def check_result(self) -> None:
        """Check that every worker ends with every contribution once.

        Raises:
            ProofError: one of them does not.
        """
        workers = sum(1 << r for r, schedule in enumerate(self.schedules) if schedule.contributes)
        for rank, schedule in enumerate(self.schedules):
            if not schedule.contributes:
                continue
            for index, value in enumerate(self.held[rank]):
                where = (
                    f"rank {rank} ends, from {self.cuts[index]} to {self.cuts[index + 1]} of it,"
                )
                if (value.seen | value.twice) & self.garbage:
                    raise ProofError(f"{where} with the contents of a rank that has no gradient")
                if value.twice:
                    names = _ranks(value.twice)
                    raise ProofError(f"{where} with a double contribution of {names}")
                if value.seen != workers:
                    names = _ranks(workers & ~value.seen)
                    raise ProofError(f"{where} with a missing contribution of {names}")

    def counts(self) -> Counts:
        """What was played."""
        ops = [[op for step in s.rounds for op in step.ops] for s in self.schedules]
        return Counts(
            rounds=max(self.end, default=0),
            messages=sum(isinstance(op, Send) for own in ops for op in own),
            sent=tuple(_volume([op.piece for op in own if isinstance(op, Send)]) for own in ops),
            received=tuple(
                _volume([op.piece for op in own if isinstance(op, Recv)]) for own in ops
            ),
            native=any(isinstance(op, AllReduce) for own in ops for op in own),
        )


def _volume(pieces: Sequence[Piece]) -> Fraction:
    cuts: dict[int, int] = defaultdict(int)
    for piece in pieces:
        cuts[piece.of] += 1
    return sum((Fraction(number, of) for of, number in cuts.items()), Fraction(0))


def _ranks(bits: int) -> str:
    names = [str(rank) for rank in range(bits.bit_length()) if bits >> rank & 1]
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"rank {shown}" if len(names) == 1 else f"ranks {shown}"
