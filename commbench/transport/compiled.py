"""Exchanges without Python on their way: plans made into programs for `play.c`.

An exchange of a few hundred kilobytes takes less time than the Python for its messages, above all
where many ranks share few cores and each waits for all the Python of the others. MPI's own
Allreduce is compiled; so what is compared with it is compiled as well.

A program does message by message what `commbench.exchange` does in Python, adds in the same order,
and speaks with ranks that do it in Python.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec

import numpy as np

from commbench.arrays import Array
from commbench.cutting import Cut, Receiving, Sending
from commbench.errors import UserError
from commbench.transport.translation import Ground, Translation, terms_of
from commbench.transport.waiting import yields_before_sleep

SWITCH = "COMMBENCH_COMPILED"
"""The environment variable by which Python does everything, if it is 0."""

# Alike in the C: words in a step, a message, a term, a receive, a peer and a program.
_LAYOUT = (6, 12, 2, 5, 7, 27)
_ENDED, _NOT_HERE, _MPI_FAILED = -1, -2, -3
_ELEMENTS = {
    name: number for number, name in enumerate(["float32", "float64", "float16", "bfloat16"])
}
# A rank with a core to itself looks about so often before it offers the core to others.
_PAUSES = 200
_STATUS_BYTES = 256  # an MPI_Status has 20 in MPICH, 24 in Open MPI


@cache
def library() -> ctypes.CDLL | None:
    """The compiled part; None where it has not been built, or ``COMMBENCH_COMPILED`` is 0.

    Raises:
        UserError: it was built from other sources.
    """
    spec = find_spec("commbench.transport._play")
    if spec is None or spec.origin is None or os.environ.get(SWITCH) == "0":
        return None
    found = ctypes.CDLL(spec.origin)
    if tuple((ctypes.c_int64 * len(_LAYOUT)).in_dll(found, "commbench_layout")) != _LAYOUT:
        raise UserError(f"{spec.origin} is of another version: install commbench again")
    found.commbench_play.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    found.commbench_play.restype = ctypes.c_int64
    found.commbench_rewind.argtypes = [ctypes.c_void_p]
    found.commbench_rewind.restype = None
    return found


def can_play(plan: Cut, wire: Array, ranks: Iterable[int]) -> bool:
    """Whether a plan can be made into a program.

    Args:
        plan: of this rank.
        wire: the array.
        ranks: those that a program could reach.
    """
    peers = {one.to for one in plan.sendings}
    for turn in plan.turns:
        if turn.native:
            return False
        for recv in turn.recvs:
            sources = [term.source for term in terms_of(recv)]
            if len(set(sources)) < len(sources):
                return False
            peers.update(sources)
    return library() is not None and wire.dtype.name in _ELEMENTS and peers <= set(ranks)


class Program:
    """A rank's part of an exchange over one array, to be run as often as wanted."""

    def __init__(self, plan: Cut, ground: Ground) -> None:
        """Translate a plan; `can_play` has said that this can be done."""
        found = library()
        assert found is not None
        self._play, self._rewind = found.commbench_play, found.commbench_rewind
        self._buffers = ground.buffers
        self._made = made = Translation(plan, ground)
        # The program keeps its place in some of these.
        self._tables = {name: np.array(rows, np.int64) for name, rows in made.tables().items()}
        self._status = ctypes.create_string_buffer(_STATUS_BYTES)
        start, test = ground.far.calls() if made.requests and ground.far else (0, 0)
        words = {
            "steps": self._place("steps"),
            "step_count": len(made.steps),
            "messages": self._place("messages"),
            "message_count": len(plan.sendings),
            "terms": self._place("terms"),
            "receives": self._place("receives"),
            "readers": self._place("readers"),
            "peers": self._place("peers"),
            "peer_count": len(made.ranks),
            "near_count": len(ground.lanes),
            "buffers": 0,
            "own": made.start,
            "element": _ELEMENTS[ground.wire.dtype.name],
            "sums": ground.work.ctypes.data - 2 * made.offset if made.is_narrow else 0,
            "offset": made.offset,
            "nbytes": ground.wire.nbytes,
            "pauses": 0 if ground.crowded else _PAUSES,
            "start": start,
            "test": test,
            "status": ctypes.addressof(self._status),
            **dict.fromkeys(["at", "term", "posted", "fetched", "peers_held_back"], 0),
            "missed": 0,
            "error": 0,
        }
        self._words = {name: number for number, name in enumerate(words)}
        self._header = np.array(list(words.values()), np.int64)
        assert len(self._header) == _LAYOUT[-1]
        self._address = self._header.ctypes.data
        if made.requests and ground.far:
            ground.far.free_after(self, made.requests)

    def begin(self) -> None:
        """Begin a run."""
        self._header[self._words["buffers"]] = self._buffers()
        self._rewind(self._address)

    def go_on(self, yields: int | None = None) -> int | None:
        """Go on until the end, or until a message does not come.

        Args:
            yields: how often to wait for one by giving way; None: `yields_before_sleep`.

        Returns:
            None at the end, or the number of the step that could not be done.

        Raises:
            RuntimeError: a peer sends from memory that it does not share.
            mpi4py.MPI.Exception: MPI has failed.
        """
        at: int = self._play(self._address, yields_before_sleep() if yields is None else yields)
        if at == _NOT_HERE:
            raise RuntimeError("a peer sends what lies in memory of its own; it must be allocated")
        if at == _MPI_FAILED:
            from mpi4py import MPI

            raise MPI.Exception(int(self._header[self._words["error"]]))
        return None if at == _ENDED else at

    def waits_for(self, step: int) -> tuple[Sending | Receiving, int]:
        """What a step that could not be done waits for, and which rank."""
        return self._made.said[step], self._made.ranks[self._header[self._words["missed"]]]

    def _place(self, table: str) -> int:
        return int(self._tables[table].ctypes.data)
