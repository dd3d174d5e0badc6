"""Orders the steps of an MSCCL file into rounds, and checks that the order settles every value.

A step comes after the one before it in its thread block, after the step that it waits for, and, if
it receives, after the step that sends. This decides in which round (level) it can be: what is sent
after a receive needs a later round; what is received after a send may share its round, because a
send carries what was there as the round began; receives of a round take effect in order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter


@dataclass(eq=False)
class Event:
    """A receive, a send, or a step without either; a step that does both is two events.

    Attributes:
        kind: ``r``, ``s`` or ``-``.
        step: the type of the step that it is part of.
        peer, channel: the other end; -1 without one.
        start, count: the chunks.
        reads, writes: the buffers, ``i`` or ``o``; empty if it does not.
        fused: whether it sends on what the same step received.
        block: the event before it in its thread block.
        waits: the event of another block that it waits for.
    """

    gpu: int
    where: str
    step: str
    kind: str
    peer: int = -1
    channel: int = -1
    start: int = 0
    count: int = 0
    reads: str = ""
    writes: str = ""
    fused: bool = False
    block: Event | None = None
    waits: Event | None = None
    partner: Event | None = None
    place: int = -1
    level: int = 0

    @property
    def chunks(self) -> str:
        """The chunks in words."""
        last = self.start + self.count - 1
        return f"chunk {self.start}" if self.count == 1 else f"chunks {self.start} to {last}"

    def before(self) -> list[Event]:
        """All that it directly comes after."""
        sender = self.partner if self.kind == "r" else None
        return [event for event in (self.block, self.waits, sender) if event]


def put_in_rounds(events: Sequence[Event]) -> list[Event]:
    """Set the level of every event.

    Returns:
        The events in an order in which they can be listed in their rounds.

    Raises:
        ValueError: messages without their other end, steps that wait in a circle, or messages of
            two GPUs whose order differs at both ends.
    """
    _pair(events)
    order = _sorted(events)
    # As MSCCL runs it: one step of a block after the other, both ends of a message in one round.
    # Where the file does not allow that, blocks take several steps in a round; then ends differ.
    if not _set_levels(order, in_turn=True, together=True) and not _set_levels(
        order, in_turn=False, together=True
    ):
        _set_levels(order, in_turn=True, together=False)
    listed = sorted(order, key=_rank_in_round)
    sent, received = defaultdict(list), defaultdict(list)
    for event in listed:
        if event.kind == "s":
            sent[event.gpu, event.peer].append(event)
        elif event.kind == "r":
            received[event.peer, event.gpu].append(event.partner)
    for (sender, receiver), messages in sent.items():
        for here, there in zip(messages, received[sender, receiver], strict=True):
            if here is not there:
                raise ValueError(
                    f"{here.where}: gpu {sender} sends to gpu {receiver} on several channels, and "
                    "the file lets the messages arrive in another order than they are sent in: "
                    "not supported"
                )
    return listed


def check_values(order: Sequence[Event], gpus: int, chunks: int, in_place: bool) -> None:
    """Check that one buffer a rank, which `commbench` has, holds what MSCCL's buffers would.

    Args:
        order: all events, as `put_in_rounds` gives them.
        gpus: number of GPUs.
        chunks: chunks of the buffer.
        in_place: whether input and output are the same memory.

    Raises:
        ValueError: two steps touch a chunk and neither comes after the other; a step reads the
            input after its place was overwritten, or output that was never written, or what
            ``rrs`` did not keep; output is not written at all.
    """
    touching: dict[tuple[int, int], list[Event]] = defaultdict(list)
    for event in order:
        for chunk in range(event.start, event.start + event.count):
            touching[event.gpu, chunk].append(event)
    _check_ordered(order, touching.values())
    for gpu in range(gpus):
        for chunk in range(chunks):
            _check_chunk(gpu, chunk, touching[gpu, chunk], in_place)


def _pair(events: Sequence[Event]) -> None:
    """Make partners of the k-th send and the k-th receive of every connection."""
    ends: dict[tuple[int, int, int], tuple[list[Event], list[Event]]] = defaultdict(
        lambda: ([], [])
    )
    for event in events:
        if event.kind == "s":
            ends[event.gpu, event.peer, event.channel][0].append(event)
        elif event.kind == "r":
            ends[event.peer, event.gpu, event.channel][1].append(event)
    for (sender, receiver, channel), (sends, recvs) in ends.items():
        if len(sends) != len(recvs):
            raise ValueError(
                f"{(sends or recvs)[0].where}: gpu {sender} sends {len(sends)} messages to gpu "
                f"{receiver} on channel {channel}, which receives {len(recvs)} there"
            )
        for send, recv in zip(sends, recvs, strict=True):
            if (send.start, send.count) != (recv.start, recv.count):
                raise ValueError(
                    f"{send.where}: {send.chunks}, which {recv.where} receives as {recv.chunks}: "
                    "a message that changes place or is divided is not supported"
                )
            send.partner, recv.partner = recv, send


def _sorted(events: Sequence[Event]) -> list[Event]:
    try:
        order = list(TopologicalSorter({event: event.before() for event in events}).static_order())
    except CycleError as error:
        told = "; ".join(dict.fromkeys(event.where for event in error.args[1]))
        raise ValueError(f"steps wait in a circle: {told}") from None
    for place, event in enumerate(order):
        event.place = place
    return order


def _gap(before: Event, event: Event, in_turn: bool) -> int:
    """How many rounds later than `before` an event must be."""
    if before.kind != "s" and event.kind == "s":
        return 1  # what was received is sent on
    return int(in_turn and before is event.block and before.kind == event.kind != "-")


def _set_levels(order: Sequence[Event], in_turn: bool, together: bool) -> bool:
    """Longest paths; false if there is none because they would go round in a circle.

    Args:
        order: the events, every one after those that it comes after.
        in_turn: whether a block sends, and receives, one message a round.
        together: whether a message is sent and received in the same round.
    """
    for event in order:
        event.level = 0
    moved = True
    while moved:
        moved = False
        for event in order:
            at = [before.level + _gap(before, event, in_turn) for before in event.before()]
            if together and event.partner:
                at.append(event.partner.level)
            level = max(at, default=0)
            if level > event.level:
                if level > len(order):
                    return False
                event.level, moved = level, True
    return True


def _rank_in_round(event: Event) -> tuple[int, bool, int]:
    """Sends first, in the order of their receives."""
    sends = event.kind == "s"
    return event.level, not sends, event.partner.place if sends and event.partner else event.place


def _check_ordered(order: Sequence[Event], touching: Iterable[Sequence[Event]]) -> None:
    by_place = sorted(order, key=lambda event: event.place)
    earlier: list[int] = []  # for each event, all that it comes after, in the bits of an int
    for event in by_place:
        seen = 0
        for before in event.before():
            seen |= earlier[before.place] | 1 << before.place
        earlier.append(seen)
    for events in touching:
        for index, one in enumerate(events):
            for other in events[:index]:
                first, second = sorted((one, other), key=lambda event: event.place)
                ordered = earlier[second.place] >> first.place & 1
                if not ordered and _conflict(first, second):
                    raise ValueError(
                        f"{first.where} and {second.where} both use chunk "
                        f"{max(first.start, second.start)}, and neither waits for the other: the "
                        "result is not defined"
                    )


def _conflict(one: Event, other: Event) -> bool:
    """Whether their order matters: one changes the chunk, or starts its output as a copy."""
    if "r" in (one.kind, other.kind):
        return True
    copies = [event for event in (one, other) if event.step == "cpy"]
    return bool(copies) and "o" in (one.reads, other.reads)


def _check_chunk(gpu: int, chunk: int, events: Sequence[Event], in_place: bool) -> None:
    """Follow one chunk through the events that touch it, in order."""
    # The output: not written, a copy of the input, or something else. In place it is the input.
    output = "own" if in_place else "none"
    passed_on: Event | None = None
    for event in sorted(events, key=lambda event: event.place):
        reads, writes = ("o" if in_place and name else name for name in (event.reads, event.writes))
        if reads and not event.fused:
            if passed_on:
                raise ValueError(
                    f"{event.where} reads chunk {chunk} after {passed_on.where}, an rrs, which "
                    "sends a sum on without keeping it: not supported before it is overwritten"
                )
            if reads == "i" and output == "own":
                raise ValueError(
                    f"{event.where} reads chunk {chunk} of the input after the output was written: "
                    "input and output must be the same buffer"
                )
            if reads == "o" and output == "none":
                raise ValueError(
                    f"{event.where} reads chunk {chunk} of the output, which is not yet written"
                )
        if writes == "i" and output != "none":
            raise ValueError(f"{event.where} writes chunk {chunk} of the input after the output")
        if event.step == "rrs" and event.kind == "r":
            passed_on = event
            if output == "copy":
                raise ValueError(
                    f"{event.where}: rrs on chunk {chunk}, of which the output has a copy: not "
                    "supported"
                )
        elif event.kind == "r":
            passed_on = None
        if writes == "o" and not in_place:
            output = "copy" if event.step == "cpy" else "own"
    if passed_on:
        raise ValueError(
            f"{passed_on.where}: rrs sends chunk {chunk} on without keeping the sum, and nothing "
            "overwrites it later"
        )
    if output == "none":
        raise ValueError(f"gpu {gpu} never writes chunk {chunk} of the output")
