"""Runs MSCCL's XML as MSCCL does: thread blocks in any order that their waits allow.

Knows nothing of schedules, so what `commbench.msccl` makes of a file can be compared with it. Every
connection has room for a few messages; a send waits until there is.
"""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET
from collections import defaultdict, deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

RECEIVES = {"r", "rcs", "rrc", "rrs", "rrcs"}
SENDS = {"s", "rcs", "rrs", "rrcs"}
GARBAGE = -(10**9)


class Block:
    def __init__(self, gpu: int, element: ET.Element) -> None:
        self.gpu = gpu
        self.number, self.send, self.recv, self.channel = (
            int(element.attrib[key]) for key in ("id", "send", "recv", "chan")
        )
        self.steps = list(element)
        self.done = 0


def run_xml(text: str, inputs: NDArray[np.int64], *, room: int, seed: int) -> NDArray[np.int64]:
    """All-reduce `inputs`, ``(gpus, chunks)``; return what the output buffers end with.

    Args:
        text: the XML.
        inputs: each GPU's own.
        room: messages that a connection holds before a send waits.
        seed: of the order in which blocks that could go on do.
    """
    algo = ET.fromstring(text)
    assert algo.get("coll") == "allreduce"
    assert inputs.shape == (int(algo.attrib["ngpus"]), int(algo.attrib["nchunksperloop"]))
    source = inputs.copy()
    target = source if int(algo.attrib["inplace"]) else np.full_like(source, GARBAGE)
    blocks = [Block(int(gpu.attrib["id"]), tb) for gpu in algo for tb in gpu]
    own = {(block.gpu, block.number): block for block in blocks}
    wires: dict[Any, deque[NDArray[np.int64]]] = defaultdict(deque)
    dice = random.Random(seed)
    while unfinished := [block for block in blocks if block.done < len(block.steps)]:
        dice.shuffle(unfinished)
        buffers = {"i": source, "o": target}
        # The first that can go on does, one step; then the dice are thrown again.
        if not any(_advance(block, own, wires, buffers, room) for block in unfinished):
            told = [f"gpu {b.gpu} tb {b.number} step {b.done}" for b in unfinished]
            raise AssertionError(f"nobody can go on: {', '.join(told)}")
    assert not any(wires.values()), "messages that nobody took"
    return target


def _advance(
    block: Block,
    own: dict[tuple[int, int], Block],
    wires: dict[Any, deque[NDArray[np.int64]]],
    buffers: dict[str, NDArray[np.int64]],
    room: int,
) -> bool:
    step = block.steps[block.done].attrib
    awaited = int(step["depid"])
    if awaited >= 0:
        other = own[block.gpu, awaited]
        assert other.steps[int(step["deps"])].attrib["hasdep"] == "1"
        if other.done <= int(step["deps"]):
            return False
    incoming = wires[block.recv, block.gpu, block.channel]
    outgoing = wires[block.gpu, block.send, block.channel]
    kind = step["type"]
    if (kind in RECEIVES and not incoming) or (kind in SENDS and len(outgoing) >= room):
        return False

    def at(side: str) -> NDArray[np.int64]:
        start = int(step[f"{side}off"])
        return buffers[step[f"{side}buf"]][block.gpu, start : start + int(step["cnt"])]

    if kind in RECEIVES:
        value = incoming.popleft()
        if kind.startswith("rr"):
            value = value + at("src")
        if kind != "rrs":
            at("dst")[:] = value
    elif kind == "s":
        value = at("src").copy()
    elif kind == "cpy":
        at("dst")[:] = at("src")
    else:
        assert kind == "nop"
    if kind in SENDS:
        outgoing.append(value.copy())
    block.done += 1
    return True
