"""A rank's schedule cut to a buffer's length: what exactly is sent, received and awaited, and when.

All of it follows from the schedule, the number of elements and the longest message, so it is worked
out once, before the first run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from commbench.schedule import AllReduce, Recv, Round, Schedule, Send

# The first element of a range, and the first one behind it.
Span = tuple[int, int]


@dataclass(slots=True)
class Sending:
    """One message: elements ``[start, stop)`` to rank `to`, in round `turn`.

    Attributes:
        copy: whether a copy travels, because the round overwrites the elements as well.
        changed: whether something was added to them since they were last sent or received.
        lent: whether `to` may write its answer into them in place (`commbench.loans`).
        readers: the earlier messages that still read these elements.
        copied: the earlier messages whose copies lie where this one's goes.
    """

    start: int
    stop: int
    to: int
    turn: int
    copy: bool
    changed: bool = False
    lent: bool = False
    readers: tuple[int, ...] = ()
    copied: tuple[int, ...] = ()


@dataclass(slots=True)
class Receiving:
    """One message: elements ``[start, stop)`` from rank `source`, in round `turn`.

    Attributes:
        reduce: whether they are added to one's own, or take their place.
        follows: whether an earlier receive of the round writes here too and so comes first.
        readers: the earlier messages that still read the elements to be overwritten.
    """

    start: int
    stop: int
    source: int
    turn: int
    reduce: bool
    follows: bool
    readers: tuple[int, ...] = ()


@dataclass(slots=True)
class Sum:
    """All that a round adds to some elements that can be answered in place (`commbench.loans`).

    Attributes:
        terms: the receives, in order.
        answers: for some of their sources, the number of the message that will bring them the sum.
    """

    terms: tuple[Receiving, ...]
    answers: dict[int, int]


@dataclass(slots=True)
class Turn:
    """A round.

    Attributes:
        sends: the numbers of its messages.
        recvs: its receives, in order; a sum stands in the place of its first term.
        native: the elements that the library is to sum.
    """

    sends: tuple[int, ...]
    recvs: tuple[Receiving | Sum, ...]
    native: tuple[int, int] | None = None


@dataclass(slots=True)
class Cut:
    """A schedule cut to a length. The messages it sends are numbered, in order over all rounds."""

    sendings: list[Sending]
    turns: list[Turn]

    @property
    def receivings(self) -> list[Receiving]:
        """All receives in order, before sums are made of some of them."""
        return [recv for turn in self.turns for recv in turn.recvs if isinstance(recv, Receiving)]


def cut(schedule: Schedule, count: int, longest: Callable[[int], int]) -> Cut:
    """Cut a rank's schedule for a buffer of `count` elements.

    Args:
        schedule: of this rank.
        count: length of the buffer.
        longest: the most elements in one message to or from a peer.
    """
    rounds = list(enumerate(schedule.rounds))
    received = [tuple(_receivings(step, number, count, longest)) for number, step in rounds]
    sent = [tuple(_sendings(step, number, count, longest)) for number, step in rounds]
    spans = {(recv.start, recv.stop) for recvs in received for recv in recvs}
    spans |= {(one.start, one.stop) for own in sent for one in own}
    sendings: list[Sending] = []
    turns = []
    kept = _Spans(spans)
    reading, copies, added = _Ranges(kept), _Ranges(kept), _Ranges(kept)
    for (number, step), recvs, own in zip(rounds, received, sent, strict=True):
        sends = range(len(sendings), len(sendings) + len(own))
        sendings += own
        for index in sends:
            one = sendings[index]
            one.changed = bool(added.over(one.start, one.stop))
            one.readers = reading.over(one.start, one.stop) if one.changed else ()
            one.copied = copies.over(one.start, one.stop) if one.copy else ()
        for recv in recvs:
            recv.readers = reading.over(recv.start, recv.stop)
        # The round's own messages come in only now: what overwrites an element waits for those who
        # read it in earlier rounds. They need not be waited for twice.
        for recv in recvs:
            reading.drop(recv.readers)
        for index in sends:
            one = sendings[index]
            copies.drop(one.copied)
            (copies if one.copy else reading).add(one.start, one.stop, index)
            added.drop(added.within(one.start, one.stop))
        for place, recv in enumerate(recvs):
            added.drop(added.within(recv.start, recv.stop))
            if recv.reduce:
                added.add(recv.start, recv.stop, number << 32 | place)
        calls = [op.piece.bounds(count) for op in step.ops if isinstance(op, AllReduce)]
        natives = [(start, stop) for start, stop in calls if stop > start]
        turns.append(Turn(tuple(sends), recvs, natives[0] if natives else None))
    return Cut(sendings, turns)


def _sendings(
    step: Round, turn: int, count: int, longest: Callable[[int], int]
) -> Iterator[Sending]:
    for op in step.sends:
        # What the round also overwrites is sent from a copy: waiting for the peer to take the
        # original could make two ranks that swap pieces wait for each other.
        copy = any(op.piece.overlaps(recv.piece) for recv in step.recvs)
        for start, stop in _segments(op, count, longest(op.to)):
            yield Sending(start, stop, op.to, turn, copy)


def _receivings(
    step: Round, turn: int, count: int, longest: Callable[[int], int]
) -> Iterator[Receiving]:
    written: list[Recv] = []
    for op in step.recvs:
        follows = any(op.piece.overlaps(other.piece) for other in written)
        for start, stop in _segments(op, count, longest(op.source)):
            yield Receiving(start, stop, op.source, turn, op.reduce, follows)
        written.append(op)


def _segments(op: Send | Recv, count: int, segment: int) -> Iterator[tuple[int, int]]:
    start, stop = op.piece.bounds(count)
    for first in range(start, stop, segment):
        yield first, min(first + segment, stop)


class _Spans:
    """All ranges of elements in a schedule: mostly few, and the same ones again and again."""

    def __init__(self, spans: set[Span]) -> None:
        self._all = sorted(spans)
        self._starts, self._stops = np.array(self._all, np.int64).reshape(-1, 2).T
        self._over: dict[Span, list[Span]] = {}

    def over(self, span: Span) -> list[Span]:
        """Those that share an element with one of them."""
        found = self._over.get(span)
        if found is None:
            start, stop = span
            places = np.flatnonzero((self._starts < stop) & (start < self._stops))
            found = self._over[span] = [self._all[place] for place in places.tolist()]
        return found


class _Ranges:
    """Numbered ranges of elements that come and go."""

    def __init__(self, spans: _Spans) -> None:
        self._spans = spans
        self._held: dict[Span, list[int]] = {}
        self._of: dict[int, Span] = {}

    def add(self, start: int, stop: int, number: int) -> None:
        """Take in a range under a number of its own."""
        self._held.setdefault((start, stop), []).append(number)
        self._of[number] = start, stop

    def over(self, start: int, stop: int) -> tuple[int, ...]:
        """The numbers of those that share an element with ``[start, stop)``, ascending."""
        return self._numbers(self._spans.over((start, stop)))

    def within(self, start: int, stop: int) -> tuple[int, ...]:
        """The numbers of those that lie in ``[start, stop)``."""
        spans = self._spans.over((start, stop))
        return self._numbers(one for one in spans if start <= one[0] and one[1] <= stop)

    def drop(self, numbers: tuple[int, ...]) -> None:
        """Forget some of them, or what is left of them."""
        for number in numbers:
            span = self._of.pop(number, None)
            if span is not None:
                self._held[span].remove(number)

    def _numbers(self, spans: Iterable[Span]) -> tuple[int, ...]:
        held = self._held
        return tuple(sorted(number for span in spans for number in held.get(span, ())))
