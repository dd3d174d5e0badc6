"""Writes schedules as MSCCL's XML: one thread block for each peer and direction."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import lcm

from commbench.errors import UserError
from commbench.schedule import AllReduce, Recv, Schedule, Send


def write(schedules: Sequence[Schedule], name: str) -> str:
    """Export a proved set of schedules as an in-place all-reduce.

    A block's steps are one rank's messages to one peer, or from one, in order; where they use what
    another block's steps use, they wait for those. So sums are added in the same order, and come
    out the same to the last bit. Runtimes have limits that a file can exceed: MSCCL's take at most
    256 steps a block and 72 chunks a step.

    Args:
        schedules: one for each rank, in rank order.
        name: the algorithm's name.

    Raises:
        UserError: the library's own all-reduce, a rank without a gradient, or no sum at all.
    """
    ops = [op for schedule in schedules for turn in schedule.rounds for op in turn.ops]
    if any(isinstance(op, AllReduce) for op in ops):
        raise UserError(f"{name}: MSCCL's XML cannot call the library's own all-reduce")
    if not all(schedule.reduces for schedule in schedules):
        raise UserError(f"{name}: no sum, so not an all-reduce that MSCCL's XML could hold")
    servers = [rank for rank, schedule in enumerate(schedules) if not schedule.contributes]
    if servers:
        raise UserError(
            f"{name}: in MSCCL's XML every GPU brings data, but rank {servers[0]} is a dedicated "
            "server"
        )
    chunks = lcm(*(op.piece.of for op in ops))
    algo = ET.Element(
        "algo",
        {
            "name": name,
            "proto": "Simple",
            "nchannels": "1",
            "nchunksperloop": str(chunks),
            "ngpus": str(len(schedules)),
            "coll": "allreduce",
            "inplace": "1",
            "outofplace": "0",
            "minBytes": "0",
            "maxBytes": "0",
        },
    )
    for rank, schedule in enumerate(schedules):
        held = {"i_chunks": str(chunks), "o_chunks": str(chunks), "s_chunks": "0"}
        gpu = ET.SubElement(algo, "gpu", {"id": str(rank)} | held)
        for block in _blocks(schedule, chunks):
            block.append_to(gpu)
    ET.indent(algo)
    return ET.tostring(algo, encoding="unicode") + "\n"


# A step: thread block and place in it.
_Place = tuple[int, int]


@dataclass
class _Step:
    kind: str
    start: int
    count: int
    waits: _Place = (-1, -1)
    wakes: bool = False


@dataclass
class _Block:
    number: int
    send: int
    recv: int
    steps: list[_Step] = field(default_factory=list)
    # The last step of every other block that an earlier step here has waited for.
    waited: dict[int, int] = field(default_factory=dict)

    def append_to(self, gpu: ET.Element) -> None:
        own = {"id": self.number, "send": self.send, "recv": self.recv, "chan": 0}
        block = ET.SubElement(gpu, "tb", {key: str(value) for key, value in own.items()})
        for place, step in enumerate(self.steps):
            values = {
                "s": place,
                "type": step.kind,
                "srcbuf": "i",
                "srcoff": step.start,
                "dstbuf": "i",
                "dstoff": step.start,
                "cnt": step.count,
                "depid": step.waits[0],
                "deps": step.waits[1],
                "hasdep": int(step.wakes),
            }
            ET.SubElement(block, "step", {key: str(value) for key, value in values.items()})


def _blocks(schedule: Schedule, chunks: int) -> list[_Block]:
    """The thread blocks of one rank."""
    blocks: dict[tuple[int, int], _Block] = {}
    by_number: list[_Block] = []
    written: list[_Place | None] = [None] * chunks
    read: list[list[_Place]] = [[] for _ in range(chunks)]
    # What is sent is what was there as the round began, so the sends of a round come first.
    for turn in schedule.rounds:
        ops: list[Send | Recv] = [*turn.sends, *turn.recvs]
        for op in ops:
            peers = (op.to, -1) if isinstance(op, Send) else (-1, op.source)
            if peers not in blocks:
                blocks[peers] = _Block(len(by_number), *peers)
                by_number.append(blocks[peers])
            block = blocks[peers]
            width = chunks // op.piece.of
            used = range(op.piece.index * width, (op.piece.index + 1) * width)
            needs = {place for chunk in used if (place := written[chunk])}
            if isinstance(op, Recv):
                needs |= {place for chunk in used for place in read[chunk]}
            kind = "s" if isinstance(op, Send) else "rrc" if op.reduce else "r"
            place = _append(block, by_number, _Step(kind, used.start, width), needs)
            for chunk in used:
                if isinstance(op, Send):
                    read[chunk].append(place)
                else:
                    written[chunk], read[chunk] = place, []
    return by_number


def _append(block: _Block, blocks: list[_Block], step: _Step, needs: set[_Place]) -> _Place:
    """Add a step; a step can wait for one other, so those before it are waits and nothing else."""
    latest: dict[int, int] = {}
    for number, place in needs:
        if number != block.number and place > block.waited.get(number, -1):
            latest[number] = max(place, latest.get(number, -1))
    block.waited |= latest
    waits = sorted(latest.items())
    for awaited in waits[:-1]:
        block.steps.append(_Step("nop", -1, 0, awaited))
    step.waits = waits[-1] if waits else (-1, -1)
    block.steps.append(step)
    for number, place in waits:
        blocks[number].steps[place].wakes = True
    return block.number, len(block.steps) - 1
