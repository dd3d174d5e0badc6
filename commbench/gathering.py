"""Turns the schedules of an all-reduce into those of an all-gather that takes the same ways.

Some contributions cannot be added up on the way: a rank's largest entries lie elsewhere than its
neighbour's. They are gathered instead. The buffer of such an exchange has a *slot* for each worker,
in rank order; a worker begins with its own filled and ends with all of them. Slots are as many as
the next power of two, so that any run of neighbours is a few pieces; those left over stay empty.

The all-reduce is played symbolically, and wherever it sends the sum of some ranks' contributions
over a piece of the buffer, the all-gather sends that piece of their slots, except what the receiver
has already. So it keeps the rounds, peers and waits of the all-reduce, nothing is ever written
twice, and every worker receives every other one's slot exactly once: with w workers w-1 slots, the
least there can be. What a rank sends is the topology's own: a server (w-1)^2 slots, where a ring
has w-1 everywhere.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

from commbench.load import by_library, workers_of
from commbench.matching import Message, ProofError, Value
from commbench.proof import Counts, Play, prove
from commbench.schedule import Op, Piece, Recv, Round, Schedule, Send

Interval = tuple[Fraction, Fraction]


def slot_count(workers: int) -> int:
    """Slots in the buffer of an all-gather: a power of two, at least the workers."""
    return 1 << max(0, workers - 1).bit_length()


def gathered(schedules: Sequence[Schedule]) -> list[Schedule]:
    """The all-gather of an all-reduce, for all ranks.

    Args:
        schedules: an all-reduce, one schedule for each rank, in rank order.

    Returns:
        Schedules over a buffer of `slot_count` equal slots; the k-th worker's is slot k.

    Raises:
        ProofError: they are no all-reduce.
        ValueError: the library adds up some of it, so nobody can take its sums apart.
    """
    if by_library(schedules):
        raise ValueError("the library's own all-reduce adds up where nobody can take sums apart")
    prove(schedules)
    play = _Replay(schedules)
    play.run()
    return [
        Schedule(
            tuple(
                Round(
                    tuple(op for index in range(len(step.ops)) for op in play.ops(r, turn, index))
                )
                for turn, step in enumerate(schedule.rounds)
            ),
            contributes=schedule.contributes,
            reduces=schedule.reduces,
        )
        for r, schedule in enumerate(schedules)
    ]


def least_gathered(schedules: Sequence[Schedule]) -> Fraction:
    """The least that an all-gather moves through its busiest rank, each way, in buffers.

    Every worker has to receive all slots but its own.
    """
    workers = sum(schedule.contributes for schedule in schedules)
    return Fraction(max(0, workers - 1), slot_count(workers))


def prove_gathered(schedules: Sequence[Schedule]) -> Counts:
    """Check that every worker ends with every worker's slot, filled by that worker alone.

    Returns:
        The counts; volumes are in buffers of `slot_count` slots.

    Raises:
        ProofError: as `commbench.proof.prove`, or a slot is missing or mixed up.
    """
    workers = workers_of(schedules)
    slots = slot_count(len(workers))
    play = Play(schedules, [Fraction(slot, slots) for slot in range(slots)])
    owners = [workers[slot] if slot < len(workers) else None for slot in range(slots)]
    # The slot that each part lies in.
    places = [math.floor(start * slots) for start in play.cuts[:-1]]
    for rank in range(play.size):
        play.held[rank] = [
            Value(1 << rank if owners[slot] == rank else play.garbage) for slot in places
        ]
    play.run()
    for rank in workers:
        for value, slot, start in zip(play.held[rank], places, play.cuts, strict=False):
            owner = owners[slot]
            if owner is not None and value != Value(1 << owner):
                raise ProofError(
                    f"rank {rank} ends, from {start} of the buffer, without slot {slot} "
                    f"as rank {owner} filled it"
                )
    return play.counts()


class _Replay(Play):
    """A play of the all-reduce that notes which slots each of its messages has to bring."""

    def __init__(self, schedules: Sequence[Schedule]) -> None:
        super().__init__(schedules)
        workers = workers_of(schedules)
        self.slots = slot_count(len(workers))
        self.slot_of = {rank: slot for slot, rank in enumerate(workers)}
        # For each rank and part, whose slots are there by now.
        self.known = [
            [value.seen & ~self.garbage for value in self.held[rank]] for rank in range(self.size)
        ]
        self.brought: dict[int, tuple[Piece, ...]] = {}

    def receive(self, rank: int, message: Message) -> list[int]:
        """Note what the receiver lacks; its receives take effect in one order, always."""
        parts = self.parts(message.recv.piece)
        known = self.known[rank]
        lacking = [
            value.seen & ~self.garbage & ~own
            for value, own in zip(message.value, known[parts], strict=True)
        ]
        known[parts] = [own | new for own, new in zip(known[parts], lacking, strict=True)]
        self.brought[id(message)] = self.pieces(message.recv.piece, lacking)
        return super().receive(rank, message)

    def ops(self, rank: int, turn: int, index: int) -> Iterator[Op]:
        """What becomes of an operation of the all-reduce."""
        op = self.schedules[rank].rounds[turn].ops[index]
        message = self.messages[rank, turn, index]
        for piece in self.brought[id(message)]:
            if isinstance(op, Send):
                yield Send(piece, op.to)
            elif isinstance(op, Recv):
                yield Recv(piece, op.source, reduce=False)

    def pieces(self, piece: Piece, lacking: Sequence[int]) -> tuple[Piece, ...]:
        """The pieces of the buffer of slots that hold `piece` of the slots that are lacking."""
        edges = self.cuts[self.parts(piece).start :]
        intervals: list[Interval] = []
        ranks = functools.reduce(int.__or__, lacking, 0)
        for rank, slot in self.slot_of.items():
            if not ranks >> rank & 1:
                continue
            for index, bits in enumerate(lacking):
                if bits >> rank & 1:
                    start = (slot + edges[index]) / self.slots
                    stop = (slot + edges[index + 1]) / self.slots
                    if intervals and intervals[-1][1] == start:
                        start = intervals.pop()[0]
                    intervals.append((start, stop))
        return tuple(one for interval in intervals for one in pieces_of(*interval))


@functools.lru_cache(maxsize=1 << 16)
def pieces_of(start: Fraction, stop: Fraction) -> tuple[Piece, ...]:
    """Pieces that make up ``[start, stop)``, each the longest that fits and keeps to its grid."""
    grid = math.lcm(start.denominator, stop.denominator)
    pieces = []
    while start < stop:
        # A piece 1/of long begins at a multiple of its length.
        own = start.denominator
        times = math.ceil(1 / (own * (stop - start)))
        while grid // own % times:
            times += 1
        of = own * times
        pieces.append(Piece(int(start * of), of))
        start += Fraction(1, of)
    return tuple(pieces)
