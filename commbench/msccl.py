"""Reads MSCCL's XML, the format of msccl-tools and of MSCCL's runtimes, as schedules.

A file gives every GPU thread blocks (``tb``), each with at most one peer to send to and one to
receive from. A block takes its steps in order; a step may wait for a step of another block
(``depid``, ``deps``). The messages from one GPU to another keep their order within a channel.

* ``s`` is a Send, ``r`` a Recv that takes the chunk's place, ``rrc`` a Recv that adds.
* ``rcs`` and ``rrcs`` are ``r`` and ``rrc``, then a Send in a later round.
* ``rrs`` is ``rrcs`` that does not keep the sum; only where that makes no difference.
* ``cpy`` is nothing, where it copies a chunk of the input to its place in the output; ``nop`` is
  nothing but a wait.

Chunk c of ``nchunksperloop`` is ``Piece(c, nchunksperloop)``. Everything else is refused: scratch
buffers, ``re``, chunks that change place, chunks used by steps that the file leaves unordered. What
only tells MSCCL's runtime how and when to move bytes is not used: ``proto``, ``nchannels``,
``minBytes``, ``maxBytes``.

Source: github.com/microsoft/msccl-tools, the XML that it emits; MSCCL's parser and interpreter.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from commbench.errors import UserError
from commbench.msccl_order import Event, check_values, put_in_rounds
from commbench.msccl_write import write
from commbench.schedule import Op, Piece, Recv, Round, Schedule, Send

__all__ = ["read", "write"]


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a step of one type does, and which of its two addresses its own GPU uses."""

    receives: bool = False
    sends: bool = False
    reads_source: bool = False
    writes_target: bool = False


_MOST_CHUNKS = 1 << 15

_KINDS = {
    "s": _Kind(sends=True, reads_source=True),
    "r": _Kind(receives=True, writes_target=True),
    "rcs": _Kind(receives=True, sends=True, writes_target=True),
    "rrc": _Kind(receives=True, reads_source=True, writes_target=True),
    "rrs": _Kind(receives=True, sends=True, reads_source=True),
    "rrcs": _Kind(receives=True, sends=True, reads_source=True, writes_target=True),
    "cpy": _Kind(reads_source=True, writes_target=True),
    "nop": _Kind(),
}


@dataclass(frozen=True, slots=True)
class _Block:
    """A thread block's two ends; a peer is -1 where it has none."""

    gpu: int
    send: int
    recv: int
    channel: int


def read(text: str, name: str) -> list[Schedule]:
    """Translate an all-reduce into schedules, one for each rank; `proof.prove` then judges them.

    Args:
        text: the XML.
        name: what errors call it, such as its path.

    Raises:
        UserError: malformed, or with something that schedules cannot say; names gpu, tb and step.
    """
    try:
        return _translate(ET.fromstring(text))
    except ET.ParseError as error:
        raise UserError(f"{name}: not XML: {error}") from error
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error


def _translate(algo: ET.Element) -> list[Schedule]:
    if algo.tag != "algo":
        raise ValueError(f"the root element is <{algo.tag}>, not MSCCL's <algo>")
    if (collective := _text(algo, "coll", "algo")) != "allreduce":
        raise ValueError(f"coll={collective!r} is not supported: only allreduce is")
    size = _number(algo, "ngpus", "algo", least=1)
    chunks = _number(algo, "nchunksperloop", "algo", least=1)
    if chunks > _MOST_CHUNKS:
        raise ValueError(f"nchunksperloop={chunks}: MSCCL's 16-bit offsets reach {_MOST_CHUNKS}")
    in_place = _number(algo, "inplace", "algo") > 0
    gpus = {_number(gpu, "id", "gpu"): gpu for gpu in _children(algo, "gpu", "algo")}
    if len(algo) != size or sorted(gpus) != list(range(size)):
        raise ValueError(f"ngpus={size}, so there must be one gpu for each id from 0 to {size - 1}")
    events = [event for number in gpus for event in _gpu(number, gpus[number], size, chunks)]
    order = put_in_rounds(events)
    check_values(order, size, chunks, in_place)
    rounds: list[list[list[Op]]] = [
        [[] for _ in range(1 + max((event.level for event in order), default=-1))]
        for _ in range(size)
    ]
    for event in order:
        for piece in _pieces(event.start, event.count, chunks):
            if event.kind == "s":
                rounds[event.gpu][event.level].append(Send(piece, event.peer))
            elif event.kind == "r":
                reduce = event.step.startswith("rr")
                rounds[event.gpu][event.level].append(Recv(piece, event.peer, reduce))
    return [Schedule(tuple(Round(tuple(ops)) for ops in turns)) for turns in rounds]


def _pieces(start: int, count: int, chunks: int) -> Iterator[Piece]:
    """Consecutive chunks as pieces: one where a cut of the buffer into equal parts has them."""
    while count:
        width = next(w for w in range(count, 0, -1) if chunks % w == 0 == start % w)
        yield Piece(start // width, chunks // width)
        start, count = start + width, count - width


def _gpu(gpu: int, element: ET.Element, size: int, chunks: int) -> Iterator[Event]:
    """All events of one GPU, with what they come after."""
    first: dict[tuple[int, int], Event] = {}
    last: dict[tuple[int, int], Event] = {}
    steps: dict[tuple[int, int], ET.Element] = {}
    owners: dict[tuple[str, int, int], int] = {}
    blocks: set[int] = set()
    for block in _children(element, "tb", f"gpu {gpu}"):
        tb = _number(block, "id", f"gpu {gpu}, tb", least=0)
        where = f"gpu {gpu}, tb {tb}"
        if tb in blocks:
            raise ValueError(f"{where}: there are two thread blocks of this id")
        blocks.add(tb)
        channel = _number(block, "chan", where)
        send, recv = (_peer(block, way, gpu, size, where) for way in ("send", "recv"))
        own = _Block(gpu, send, recv, channel)
        for way, peer in (("send", own.send), ("recv", own.recv)):
            if peer >= 0 and owners.setdefault((way, peer, channel), tb) != tb:
                raise ValueError(
                    f"{where} and tb {owners[way, peer, channel]} both {way} with gpu {peer} on "
                    f"channel {channel}: the order of their messages is not defined"
                )
        previous: Event | None = None
        for place, step in enumerate(_children(block, "step", where)):
            here = f"{where}, step {place}"
            if _number(step, "s", here) != place:
                raise ValueError(f"{here}: has s={step.get('s')}: steps count from 0, in order")
            _number(step, "hasdep", here)
            for event in _step(own, step, here, chunks):
                event.block, previous = previous, event
                first.setdefault((tb, place), event)
                last[tb, place] = event
                yield event
            steps[tb, place] = step
    for at, step in steps.items():
        first[at].waits = _dependency(step, first[at].where, steps, last)


def _dependency(
    step: ET.Element,
    where: str,
    steps: dict[tuple[int, int], ET.Element],
    last: dict[tuple[int, int], Event],
) -> Event | None:
    tb, place = _number(step, "depid", where), _number(step, "deps", where)
    if tb < 0:
        return None
    told = f"{where} waits for step {place} of tb {tb}"
    if (tb, place) not in steps:
        raise ValueError(f"{told}, which does not exist")
    if not _number(steps[tb, place], "hasdep", told):
        raise ValueError(f"{told}, whose hasdep is 0: it would wake nobody")
    return last[tb, place]


def _step(block: _Block, step: ET.Element, where: str, chunks: int) -> Iterator[Event]:
    name = _text(step, "type", where)
    if name not in _KINDS:
        raise ValueError(
            f"{where}: step type {name!r} is not supported: only {', '.join(_KINDS)} are"
        )
    kind = _KINDS[name]
    source, target = ("", -1), ("", -1)
    if kind.reads_source:
        source = _address(step, "src", name, where)
    if kind.writes_target:
        target = _address(step, "dst", name, where)
    if source[0] and target[0] and source[1] != target[1]:
        raise ValueError(
            f"{where}: {name} from chunk {source[1]} to chunk {target[1]}: a chunk that changes "
            "place is not supported"
        )
    if name == "cpy" and (source[0], target[0]) == ("o", "i"):
        raise ValueError(f"{where}: cpy from the output to the input is not supported")
    start = max(source[1], target[1])
    count = _number(step, "cnt", where, least=1) if start >= 0 else 0
    if start >= 0 and start + count > chunks:
        raise ValueError(
            f"{where}: chunks {start} to {start + count - 1}, but nchunksperloop={chunks}"
        )
    start = max(start, 0)
    reads, writes = source[0], target[0]
    if kind.receives:
        peer = _end(block.recv, "recv", name, where)
        yield Event(block.gpu, where, name, "r", peer, block.channel, start, count, reads, writes)
        reads = writes or reads
    if kind.sends:
        peer = _end(block.send, "send", name, where)
        fused = kind.receives
        yield Event(
            block.gpu, where, name, "s", peer, block.channel, start, count, reads, fused=fused
        )
    if not kind.receives and not kind.sends:
        yield Event(
            block.gpu, where, name, "-", start=start, count=count, reads=reads, writes=writes
        )


def _end(peer: int, way: str, name: str, where: str) -> int:
    if peer < 0:
        raise ValueError(f"{where}: {name}, but the thread block has {way}=-1")
    return peer


def _address(step: ET.Element, side: str, name: str, where: str) -> tuple[str, int]:
    buffer = _text(step, f"{side}buf", where)
    if buffer not in ("i", "o"):
        raise ValueError(
            f"{where}: {name} with {side}buf={buffer!r} is not supported: there is one buffer, no "
            "scratch; only i and o"
        )
    return buffer, _number(step, f"{side}off", where, least=0)


def _peer(block: ET.Element, way: str, gpu: int, size: int, where: str) -> int:
    peer = _number(block, way, where)
    if not -1 <= peer < size or peer == gpu:
        raise ValueError(f"{where}: {way}={peer}: must be another of gpus 0 to {size - 1}, or -1")
    return peer


def _children(element: ET.Element, tag: str, where: str) -> Iterator[ET.Element]:
    for child in element:
        if child.tag != tag:
            raise ValueError(f"{where}: <{child.tag}>, where there can only be <{tag}>")
        yield child


def _text(element: ET.Element, key: str, where: str) -> str:
    value = element.get(key)
    if value is None:
        raise ValueError(f"{where}: <{element.tag}> has no {key}")
    return value


def _number(element: ET.Element, key: str, where: str, least: int = -1) -> int:
    text = _text(element, key, where)
    try:
        value = int(text)
    except ValueError:
        raise ValueError(f"{where}: {key}={text!r} is not a whole number") from None
    if value < least:
        raise ValueError(f"{where}: {key}={value}: the least is {least}")
    return value
