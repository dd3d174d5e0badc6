"""Plans as tables of numbers: what a program for `play.c` is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from commbench.arrays import Array
from commbench.cutting import Cut, Receiving, Sending, Sum, Turn
from commbench.prepared import WINDOW

if TYPE_CHECKING:
    from mpi4py import MPI

# Alike in program.h.
_SEND, _AWAIT, _COPY, _ADD, _TOTAL, _POST, _FETCH = range(7)
_PLAIN, _LENT = 0, 1
_NONE = -1


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


class Translation:
    """A plan as rows of numbers; program.h tells what is in them.

    Attributes:
        ranks: this rank's peers; rows name them by their places in this list.
        start, offset: the address from which offsets count, and where the array begins.
        is_narrow: whether elements travel in 16 bits, and are added in 32.
        steps, said: what is to be done, in order, and what each step is about.
        requests: all persistent requests.
    """

    def __init__(self, plan: Cut, ground: Ground) -> None:
        """Translate it; `can_play` has said that this can be done."""
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
            terms = terms_of(recv)
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


def terms_of(recv: Receiving | Sum) -> tuple[Receiving, ...]:
    """The messages of a receive, or of several that are added together."""
    return recv.terms if isinstance(recv, Sum) else (recv,)


def _receives(plan: Cut) -> list[Receiving]:
    return [term for turn in plan.turns for recv in turn.recvs for term in terms_of(recv)]
