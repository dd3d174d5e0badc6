"""A rank's schedule made ready for one buffer and transport: everything that is alike in all runs.

Where many ranks share few cores, each waits for all the Python of the others; so what can be known
before the first run is worked out then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from commbench.arrays import Array
from commbench.cutting import Cut, Receiving, Sending, Sum, Turn
from commbench.transport import Incoming, Question, Transport

WINDOW = 4
"""Receives posted at once: one to add, the others on their way."""


@dataclass(slots=True, eq=False)
class Outgoing:
    """A message to a peer.

    Attributes:
        one: what it is.
        start: sends it; of `Transport.sender`.
        work, wire: its elements, as they are added and as they travel.
        copy: where a copy of these lies, which travels instead; else None.
        encodes: whether they have been added to, in another type than they travel in.
        readers: the earlier messages that still read the elements.
        copied: the earlier messages whose copies lie where this one's goes.
        answered: in a run, whether they have been written into the receiver's memory already.
        taken: while it is under way, the question whether the peer has taken it.
    """

    one: Sending
    start: Callable[[bool], Question]
    work: Array
    wire: Array
    copy: Array | None
    encodes: bool
    readers: tuple[Outgoing, ...] = ()
    copied: tuple[Outgoing, ...] = ()
    answered: bool = False
    taken: Question | None = None

    def is_taken(self) -> bool:
        """Whether its elements may be overwritten."""
        return self.taken is None or self.taken()


@dataclass(slots=True, eq=False)
class Arrival:
    """A message from a peer.

    Attributes:
        recv: what it is.
        start: begins to receive it; of `Transport.receiver`.
        work: where its elements are added, or put.
        readers: the earlier messages that still read the elements to be overwritten.
        incoming: while it is under way, the message.
    """

    recv: Receiving
    start: Callable[[], Incoming]
    work: Array
    readers: tuple[Outgoing, ...]
    incoming: Incoming | None = None


@dataclass(slots=True, eq=False)
class Total:
    """A sum that may be written back in place (`commbench.loans`).

    Attributes:
        terms: what arrives.
        work, wire: one's own elements.
        lenders: places of the terms that the sum is to be written to.
        answers: for each of these, the message that tells so.
    """

    terms: list[Arrival]
    work: Array
    wire: Array
    lenders: list[int]
    answers: list[Outgoing]


@dataclass(slots=True, eq=False)
class Step:
    """A round.

    Attributes:
        early: the first of its receives, those that may be posted before its sends.
        sends: its messages.
        parts: the other receives, in order: lists of such as are taken one by one, the first of
            them perhaps empty, and between them sums.
        native: instead of all these, the elements that the library is to sum, as they travel and
            as they are added.
    """

    early: list[Arrival]
    sends: list[Outgoing]
    parts: list[list[Arrival] | Total]
    native: tuple[Array, Array] | None = None


def prepare(
    plan: Cut, wire: Array, work: Array, transport: Transport
) -> tuple[list[Step], list[Outgoing]]:
    """Make the rounds of a plan ready to be run, as often as wanted.

    Args:
        plan: of this rank.
        wire: ``(n,)``, the buffer.
        work: ``(n,)``, in which it is summed; the buffer itself where the two types are one.
        transport: open over all ranks in it.

    Returns:
        The rounds, and all messages of them, in the order in which they are sent.
    """
    copies = transport.beside(wire) if any(one.copy for one in plan.sendings) else None

    def to_send(one: Sending) -> Outgoing:
        part = slice(one.start, one.stop)
        copy = copies[part] if copies is not None and one.copy else None
        start = transport.sender(wire[part] if copy is None else copy, one.to, lend=one.lent)
        encodes = work is not wire and one.changed
        return Outgoing(one, start, work[part], wire[part], copy, encodes)

    messages = [to_send(one) for one in plan.sendings]

    def numbered(indexes: Sequence[int]) -> tuple[Outgoing, ...]:
        return tuple(messages[index] for index in indexes)

    for message in messages:
        message.readers = numbered(message.one.readers)
        message.copied = numbered(message.one.copied)

    def to_receive(recv: Receiving) -> Arrival:
        part = slice(recv.start, recv.stop)
        into = None if recv.reduce else wire[part]
        start = transport.receiver(recv.stop - recv.start, recv.source, into)
        return Arrival(recv, start, work[part], numbered(recv.readers))

    def to_sum(total: Sum) -> Total:
        part = slice(total.terms[0].start, total.terms[0].stop)
        sources = [term.source for term in total.terms]
        return Total(
            [to_receive(term) for term in total.terms],
            work[part],
            wire[part],
            [sources.index(to) for to in total.answers],
            [messages[index] for index in total.answers.values()],
        )

    def step(turn: Turn) -> Step:
        if turn.native:
            part = slice(*turn.native)
            return Step([], [], [], (wire[part], work[part]))
        early = _before_sends(turn, plan.sendings)
        first = [to_receive(recv) for recv in turn.recvs[:early] if isinstance(recv, Receiving)]
        parts: list[list[Arrival] | Total] = []
        batch: list[Arrival] = []
        for recv in turn.recvs[early:]:
            if isinstance(recv, Sum):
                parts += [batch, to_sum(recv)]
                batch = []
            else:
                batch.append(to_receive(recv))
        return Step(first, [messages[index] for index in turn.sends], [*parts, batch])

    return [step(turn) for turn in plan.turns], messages


def _before_sends(turn: Turn, sendings: list[Sending]) -> int:
    """How many receives of a round may be posted before its sends."""
    copies = any(sendings[index].copy for index in turn.sends)

    def may(recv: Receiving | Sum) -> bool:
        # What is sent from a copy is still to be copied.
        return isinstance(recv, Receiving) and not recv.follows and (recv.reduce or not copies)

    return len(list(takewhile(may, turn.recvs[:WINDOW])))
