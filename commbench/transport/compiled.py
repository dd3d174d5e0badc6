"""Exchanges within a node without Python on their way: plans made into programs for `play.c`.

An exchange of a few hundred kilobytes takes less time than the Python for its messages, above all
where many ranks share few cores and each waits for all the Python of the others. MPI's own
Allreduce is compiled; so what is compared with it is compiled as well.

A program does token by token what `commbench.exchange` does in Python, adds in the same order, and
speaks with ranks that do it in Python.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import numpy as np

from commbench.arrays import Array
from commbench.cutting import Cut, Receiving, Sending, Sum
from commbench.transport.waiting import yields_before_sleep

# Alike in play.c.
_SEND, _AWAIT, _COPY, _ADD, _TOTAL = range(5)
_PLAIN, _LENT = 0, 1
_ENDED, _NOT_HERE = -1, -2
_ELEMENTS = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}
_NONE = -1
# Places in a program's header.
_BUFFERS, _MISSED = 7, 14
# A rank with a core to itself looks about so often before it offers the core to others.
_PAUSES = 200


@cache
def library() -> ctypes.CDLL | None:
    """The compiled part; None where it has not been built, or ``COMMBENCH_COMPILED`` is 0."""
    spec = find_spec("commbench.transport._play")
    if spec is None or spec.origin is None or os.environ.get("COMMBENCH_COMPILED") == "0":
        return None
    found = ctypes.CDLL(spec.origin)
    found.commbench_play.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    found.commbench_play.restype = ctypes.c_int64
    found.commbench_rewind.argtypes = [ctypes.c_void_p]
    found.commbench_rewind.restype = None
    return found


def can_play(plan: Cut, wire: Array, ranks: Iterable[int]) -> bool:
    """Whether a plan over an array in shared memory can be made into a program.

    Args:
        plan: of this rank.
        wire: the array, in the type in which its elements are added.
        ranks: those of the node.
    """
    peers = {one.to for one in plan.sendings}
    for turn in plan.turns:
        if turn.native:
            return False
        for recv in turn.recvs:
            sources = [term.source for term in _terms(recv)]
            if len(set(sources)) < len(sources):
                return False
            peers.update(sources)
    return library() is not None and wire.dtype in _ELEMENTS and peers <= set(ranks)


@dataclass(frozen=True)
class Shared:
    """What the ranks of a node have in common, as addresses.

    Attributes:
        lanes: of `Mailbox.lanes`, by rank.
        buffers: where the addresses of all shared buffers are listed, by buffer and rank; a new
            buffer may move the list.
        number: of the shared buffer that holds the array.
        start: where this rank's part of that buffer begins.
        offset: of the array in it, in bytes.
        copies: of the place for copies of the array's elements, in bytes.
        crowded: whether there are more ranks than cores.
    """

    lanes: dict[int, tuple[int, int, int, int]]
    buffers: Callable[[], int]
    number: int
    start: int
    offset: int
    copies: int
    crowded: bool


class Program:
    """A rank's part of an exchange over one array, to be run as often as wanted."""

    def __init__(self, plan: Cut, wire: Array, shared: Shared) -> None:
        """Translate a plan; `can_play` has said that this can be done.

        Args:
            plan: of this rank.
            wire: ``(n,)``, float32 or float64, in shared memory.
            shared: where that is.
        """
        found = library()
        assert found is not None
        self._play, self._rewind = found.commbench_play, found.commbench_rewind
        self._ranks = list(shared.lanes)
        self._places = {rank: place for place, rank in enumerate(self._ranks)}
        self._itemsize = wire.itemsize
        self._offset = shared.offset
        self._buffers = shared.buffers
        self._said: list[Sending | Receiving] = []
        self._steps: list[tuple[int, int, int, int, int, int]] = []
        self._terms: list[tuple[int, int]] = [(_NONE, _NONE)]
        self._translate(plan)
        messages = self._messages(plan, shared)
        peers = [(*lanes, _NONE) for lanes in shared.lanes.values()]
        # The program keeps its place and its messages' in here; so they stay referenced.
        tables: list[Sequence[tuple[int, ...]]] = [self._steps, messages, self._terms, peers]
        self._tables = [np.array(table, np.int64) for table in tables]
        steps, texts, terms, lanes = (table.ctypes.data for table in self._tables)
        self._header = np.array(
            [
                *(steps, len(self._steps), texts, len(messages), terms, lanes, len(peers)),
                *(0, shared.start, _ELEMENTS[wire.dtype]),
                *(0 if shared.crowded else _PAUSES, 0, 0, 0, _NONE),
            ],
            np.int64,
        )
        self._address = self._header.ctypes.data

    def begin(self) -> None:
        """Begin a run."""
        self._header[_BUFFERS] = self._buffers()
        self._rewind(self._address)

    def go_on(self, yields: int | None = None) -> int | None:
        """Go on until the end, or until a token does not come.

        Args:
            yields: how often to wait for one by giving way; None: `yields_before_sleep`.

        Returns:
            None at the end, or the number of the step that could not be done.

        Raises:
            RuntimeError: a peer sends from memory that it does not share.
        """
        at: int = self._play(self._address, yields_before_sleep() if yields is None else yields)
        if at == _NOT_HERE:
            raise RuntimeError("a peer sends what lies in memory of its own; it must be allocated")
        return None if at == _ENDED else at

    def waits_for(self, step: int) -> tuple[Sending | Receiving, int]:
        """What a step that could not be done waits for, and which rank."""
        return self._said[step], self._ranks[self._header[_MISSED]]

    def _translate(self, plan: Cut) -> None:
        awaited: set[int] = set()

        def await_taken(indexes: Iterable[int]) -> None:
            for index in indexes:
                if index not in awaited:
                    awaited.add(index)
                    self._say(plan.sendings[index], _AWAIT, first=index)

        for turn in plan.turns:
            for index in turn.sends:
                one = plan.sendings[index]
                await_taken(one.copied)
                self._say(one, _SEND, first=index)
            for recv in turn.recvs:
                for term in _terms(recv):
                    await_taken(term.readers)
                if isinstance(recv, Sum):
                    self._say_total(recv)
                else:
                    self._say(recv, _ADD if recv.reduce else _COPY)
        await_taken(range(len(plan.sendings)))

    def _say(self, what: Sending | Receiving, kind: int, first: int = 0, terms: int = 0) -> None:
        peer = what.to if isinstance(what, Sending) else what.source
        size = self._itemsize
        start, nbytes = self._offset + what.start * size, (what.stop - what.start) * size
        self._steps.append((kind, self._places[peer], start, nbytes, first, terms))
        self._said.append(what)

    def _say_total(self, total: Sum) -> None:
        self._say(total.terms[0], _TOTAL, len(self._terms), len(total.terms))
        self._terms += [
            (self._places[term.source], total.answers.get(term.source, _NONE))
            for term in total.terms
        ]

    def _messages(self, plan: Cut, shared: Shared) -> list[tuple[int, ...]]:
        messages: list[tuple[int, ...]] = []
        following: dict[int, int] = {}
        for index, one in reversed(list(enumerate(plan.sendings))):
            original = shared.offset + one.start * self._itemsize
            copy = shared.copies + one.start * self._itemsize
            offset, copied = (copy, original) if one.copy else (original, _NONE)
            nbytes = (one.stop - one.start) * self._itemsize
            purpose = _LENT if one.lent else _PLAIN
            token = (shared.number, offset, nbytes, purpose)
            after = following.get(one.to, _NONE)
            messages.append((self._places[one.to], *token, purpose, copied, after, 0, 0))
            following[one.to] = index
        return messages[::-1] or [(0,) * 10]


def _terms(recv: Receiving | Sum) -> tuple[Receiving, ...]:
    return recv.terms if isinstance(recv, Sum) else (recv,)
