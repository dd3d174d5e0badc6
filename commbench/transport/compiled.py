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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

import numpy as np

from commbench.arrays import Array
from commbench.cutting import Cut, Receiving, Sending, Sum, Turn
from commbench.errors import UserError
from commbench.prepared import WINDOW
from commbench.transport.waiting import yields_before_sleep

if TYPE_CHECKING:
    from mpi4py import MPI

SWITCH = "COMMBENCH_COMPILED"
"""The environment variable by which Python does everything, if it is 0."""

# Alike in play.c.
_SEND, _AWAIT, _COPY, _ADD, _TOTAL, _POST, _FETCH = range(7)
# Words in a step, a message, a term, a receive, a peer and a program.
_LAYOUT = (6, 12, 2, 5, 7, 26)
_PLAIN, _LENT = 0, 1
_ENDED, _NOT_HERE, _MPI_FAILED = -1, -2, -3
_ELEMENTS = {
    name: number for number, name in enumerate(["float32", "float64", "float16", "bfloat16"])
}
_NONE = -1
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
            sources = [term.source for term in _terms(recv)]
            if len(set(sources)) < len(sources):
                return False
            peers.update(sources)
    return library() is not None and wire.dtype.name in _ELEMENTS and peers <= set(ranks)


class Requests(Protocol):
    """Where a program's persistent requests come from, for ranks that are far."""

    def send_request(self, data: Array, to: int) -> MPI.Prequest:
        """Sends elements, whenever it is started."""

    def receive_request(self, into: Array, source: int) -> MPI.Prequest:
        """Receives elements, whenever it is started."""

    def landing(self, count: int) -> Array:
        """``(WINDOW * count,)``, where elements may come that are to be added; every call's."""

    def free_after(self, owner: object, requests: list[MPI.Prequest]) -> None:
        """Give requests back to MPI once their owner is gone."""

    def handle(self, request: MPI.Prequest) -> int:
        """The address of MPI's handle, as long as the request is kept."""

    def calls(self) -> tuple[int, int]:
        """Addresses of MPI_Start and MPI_Test."""


@dataclass(frozen=True)
class Ground:
    """Where an array is, and how this rank reaches the others; places are addresses.

    Attributes:
        wire, work: ``(n,)``, the array as it travels, and as it is added: itself or float32.
        copies: ``(n,)``, for copies of its elements; None if there are none.
        crowded: whether there are more ranks than cores.
        far: for ranks without lanes.
        lanes: of `Mailbox.lanes`, by rank, for those of this node.
        number, start: the shared buffer that holds the array, and this rank's part of it.
        buffers: where the places of all shared buffers are listed, by buffer and rank; a new
            buffer may move the list.
    """

    wire: Array
    work: Array
    copies: Array | None
    crowded: bool
    far: Requests | None = None
    lanes: Mapping[int, tuple[int, int, int, int]] = field(default_factory=dict)
    number: int = _NONE
    start: int = 0
    buffers: Callable[[], int] = lambda: 0


class Program:
    """A rank's part of an exchange over one array, to be run as often as wanted."""

    def __init__(self, plan: Cut, ground: Ground) -> None:
        """Translate a plan; `can_play` has said that this can be done."""
        found = library()
        assert found is not None
        self._play, self._rewind = found.commbench_play, found.commbench_rewind
        self._buffers = ground.buffers
        self._made = made = _Translation(plan, ground)
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


class _Translation:
    """A plan as rows of numbers; `play.c` tells what is in them."""

    def __init__(self, plan: Cut, ground: Ground) -> None:
        self._plan = plan
        self._ground = ground
        self._itemsize = ground.wire.itemsize
        self.is_narrow = ground.work is not ground.wire
        # Offsets are from here; this is the array's.
        self.start = ground.start or ground.wire.ctypes.data
        self.offset = ground.wire.ctypes.data - self.start
        peers = {one.to for one in plan.sendings} | {recv.source for recv in _receives(plan)}
        # Those of the node first, as they stand in the list of buffers.
        self.ranks = [*ground.lanes, *sorted(peers - set(ground.lanes))]
        self._places = {rank: place for place, rank in enumerate(self.ranks)}
        self.steps: list[tuple[int, ...]] = []
        self.said: list[Sending | Receiving] = []
        """What each step is about."""
        self.requests: list[MPI.Prequest] = []
        self._terms: list[tuple[int, ...]] = []
        self._receives: list[tuple[int, ...]] = []
        self._readers: list[tuple[int, ...]] = []
        self._awaited: set[int] = set()
        self._landing = self._make_landing()
        for turn in plan.turns:
            self._translate(turn)
        self._await_taken(range(len(plan.sendings)))

    def tables(self) -> dict[str, Sequence[tuple[int, ...]]]:
        """The rows; none is without, so that each has a place."""
        far = (0, 0, 0, 0)
        return {
            "steps": self.steps or [(0,)],
            "messages": self._messages() or [(0,)],
            "terms": self._terms or [(0,)],
            "receives": self._receives or [(0,)],
            "readers": self._readers or [(0,)],
            "peers": [(*self._ground.lanes.get(rank, far), _NONE, _NONE, 0) for rank in self.ranks]
            or [(0,)],
        }

    def _translate(self, turn: Turn) -> None:
        first = len(self._receives)
        far = [recv for recv in turn.recvs if isinstance(recv, Receiving) and self._is_far(recv)]
        for one in far:
            self._expect(one)
        last = len(self._receives) - 1
        early = self._before_sends(turn, far)
        if early:
            self._say(far[0], _POST, first=first + early - 1)
        for index in turn.sends:
            message = self._plan.sendings[index]
            self._await_taken(message.copied)
            if self.is_narrow and message.changed:
                self._await_taken(message.readers)
            self._say(message, _SEND, first=index)
        following = first
        for recv in turn.recvs:
            terms = _terms(recv)
            if self._is_far(recv):
                self._say(terms[0], _POST, first=min(following + WINDOW - 1, last))
            for term in terms:
                self._await_taken(term.readers)
            if isinstance(recv, Sum):
                self._say_total(recv)
            elif self._is_far(recv):
                self._say(recv, _FETCH, first=following)
                following += 1
            else:
                self._say(recv, _ADD if recv.reduce else _COPY)

    def _before_sends(self, turn: Turn, far: list[Receiving]) -> int:
        """How many receives of a round may be posted before its sends."""
        copies = any(self._plan.sendings[index].copy for index in turn.sends)
        early = 0
        for recv in far[:WINDOW]:
            # What is sent from a copy is still to be copied. And to ask whether something has left
            # may hold up what is to be sent.
            if not recv.reduce and (copies or recv.follows or recv.readers):
                break
            early += 1
        return early

    def _await_taken(self, indexes: Iterable[int]) -> None:
        for index in indexes:
            if index not in self._awaited:
                self._awaited.add(index)
                self._say(self._plan.sendings[index], _AWAIT, first=index)

    def _say(self, what: Sending | Receiving, kind: int, first: int = 0, terms: int = 0) -> None:
        peer = what.to if isinstance(what, Sending) else what.source
        size = self._itemsize
        start, nbytes = self.offset + what.start * size, (what.stop - what.start) * size
        self.steps.append((kind, self._places[peer], start, nbytes, first, terms))
        self.said.append(what)

    def _say_total(self, total: Sum) -> None:
        self._say(total.terms[0], _TOTAL, len(self._terms), len(total.terms))
        self._terms += [
            (self._places[term.source], total.answers.get(term.source, _NONE))
            for term in total.terms
        ]

    def _is_far(self, what: Receiving | Sum) -> bool:
        # A sum is of terms that were lent, so all are of this node.
        return isinstance(what, Receiving) and what.source not in self._ground.lanes

    def _make_landing(self) -> Array:
        longest = max(
            (
                recv.stop - recv.start
                for recv in _receives(self._plan)
                if recv.reduce and self._is_far(recv)
            ),
            default=0,
        )
        if not longest:
            return None
        assert self._ground.far is not None
        return self._ground.far.landing(longest).reshape(WINDOW, -1)

    def _expect(self, recv: Receiving) -> None:
        """A request for a message from a rank that is far."""
        assert self._ground.far is not None
        count = recv.stop - recv.start
        into, term = self._ground.wire[recv.start : recv.stop], 0
        if recv.reduce:
            # Received in order, at most so many at once.
            into = self._landing[len(self._receives) % WINDOW, :count]
            term = into.ctypes.data
        handle = self._keep(self._ground.far.receive_request(into, recv.source))
        readers = len(self._readers), len(recv.readers)
        self._receives.append((handle, term, int(recv.follows), *readers))
        self._readers += [(index,) for index in recv.readers]

    def _keep(self, request: MPI.Prequest) -> int:
        assert self._ground.far is not None
        self.requests.append(request)
        return self._ground.far.handle(request)

    def _messages(self) -> list[tuple[int, ...]]:
        messages: list[tuple[int, ...]] = []
        following: dict[int, int] = {}
        for index, one in reversed(list(enumerate(self._plan.sendings))):
            part = slice(one.start, one.stop)
            data, copied = self._ground.wire[part], _NONE
            if one.copy:
                assert self._ground.copies is not None
                copied = data.ctypes.data - self.start
                data = self._ground.copies[part]
            request = 0
            if one.to not in self._ground.lanes:
                assert self._ground.far is not None
                request = self._keep(self._ground.far.send_request(data, one.to))
            purpose = _LENT if one.lent else _PLAIN
            token = self._ground.number, data.ctypes.data - self.start, data.nbytes, purpose
            after = following.get(one.to, _NONE)
            place = self._places[one.to]
            rounded = self.is_narrow and one.changed
            messages.append((place, *token, purpose, copied, rounded, after, request, 0, 0))
            following[one.to] = index
        return messages[::-1]


def _receives(plan: Cut) -> list[Receiving]:
    return [term for turn in plan.turns for recv in turn.recvs for term in _terms(recv)]


def _terms(recv: Receiving | Sum) -> tuple[Receiving, ...]:
    return recv.terms if isinstance(recv, Sum) else (recv,)
