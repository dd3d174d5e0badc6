"""The schedule language: what one rank does in one exchange, as plain data.

A schedule is a list of rounds; a round is a set of sends and receives that may all be in flight
together. It names pieces of the buffer, never bytes, so one schedule serves a buffer of any length.
Four rules give it its meaning, and everything that reads a schedule keeps to them:

* Piece ``i`` of ``k`` of a buffer of ``n`` elements is ``[i*n//k, (i+1)*n//k)``.
* A send carries the value its piece had as the round began.
* Receives take effect in the order listed, so a result is bitwise repeatable.
* The messages from one rank to another arrive in the order they were sent.

`commbench.proof` checks a schedule and counts it, `commbench.exchange` runs it, and
`commbench.network.cost` prices it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True, order=True)
class Piece:
    """Piece ``index`` of the ``of`` nearly equal parts of a buffer.

    Cuts nest exactly: piece ``j`` of the ``y`` parts of piece ``i`` of ``x`` is
    ``Piece(i*y + j, x*y)``, for every buffer length.
    """

    index: int
    of: int

    def bounds(self, count: int) -> tuple[int, int]:
        """First element and one past the last, in a buffer of `count` elements."""
        return self.index * count // self.of, (self.index + 1) * count // self.of

    def overlaps(self, other: Piece) -> bool:
        """Whether the two share an element in some buffer."""
        return self.index * other.of < (other.index + 1) * self.of and other.index * self.of < (
            (self.index + 1) * other.of
        )

    def __str__(self) -> str:
        """``3/8``, counted from 0."""
        return f"{self.index}/{self.of}"


WHOLE = Piece(0, 1)


@dataclass(frozen=True, slots=True)
class Send:
    """Send `piece`, as it was when the round began, to rank `to`."""

    piece: Piece
    to: int


@dataclass(frozen=True, slots=True)
class Recv:
    """Receive `piece` from rank `source`: add it to one's own, or take its place."""

    piece: Piece
    source: int
    reduce: bool = True


@dataclass(frozen=True, slots=True)
class AllReduce:
    """Hand `piece` to the transport's own all-reduce over all ranks; alone in its round.

    What travels is the library's business: it is timed, not counted.
    """

    piece: Piece = WHOLE


Op = Send | Recv | AllReduce


@dataclass(frozen=True, slots=True)
class Round:
    """Sends and receives that may all be in flight together."""

    ops: tuple[Op, ...]

    @property
    def sends(self) -> tuple[Send, ...]:
        """The sends, in order."""
        return tuple(op for op in self.ops if isinstance(op, Send))

    @property
    def recvs(self) -> tuple[Recv, ...]:
        """The receives, in the order in which they take effect."""
        return tuple(op for op in self.ops if isinstance(op, Recv))


@dataclass(frozen=True, slots=True)
class Schedule:
    """What one rank does in one exchange.

    Attributes:
        rounds: the rounds, in order.
        contributes: whether this rank is a worker, that is, brings a gradient of its own and must
            end with the sum. A dedicated parameter server is a rank that does not.
        reduces: whether the exchange leaves a sum at all; false only for the floor, ``none``.
    """

    rounds: tuple[Round, ...]
    contributes: bool = True
    reduces: bool = True


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """What a topology's formula says its schedules cost; `proof.Counts` is compared with it.

    Attributes:
        rounds: the longest chain of rounds, each waiting for the one before.
        messages: messages sent by all ranks together.
        sent: the most any one rank sends, as a fraction of the buffer.
        received: the most any one rank receives, as a fraction of the buffer.
        total: what all ranks together send, as a fraction of the buffer.
    """

    rounds: int
    messages: int
    sent: Fraction
    received: Fraction
    total: Fraction


@dataclass(frozen=True, slots=True)
class Terms:
    """What a topology's formula says its schedules take, where all links are alike.

    That is alpha latencies, and beta and gamma times the buffer sent and added, one after another:
    exactly what `network.cost` comes to by playing the schedules.
    """

    alpha: Fraction
    beta: Fraction
    gamma: Fraction

    def seconds(self, n_bytes: float, alpha_s: float, beta_s: float, gamma_s: float) -> float:
        """For a buffer of `n_bytes`, of a latency and of seconds a byte sent and added."""
        per_byte = float(self.beta) * beta_s + float(self.gamma) * gamma_s
        return float(self.alpha) * alpha_s + n_bytes * per_byte


@dataclass(frozen=True, slots=True)
class Grid:
    """Ranks as places of a grid, row by row, on which schedules may be moved.

    Moving every rank by a multiple of ``steps[d]`` places in dimension d, and round its end, leads
    from each rank's schedule to that of the rank where it comes to stand, but for which piece is
    which. So what one rank does tells what all those do that it can be moved to. A step as long as
    its dimension allows no move along it.
    """

    dims: tuple[int, ...]
    steps: tuple[int, ...]

    def moved(self, rank: int, by: Sequence[int]) -> int:
        """Where a rank comes to stand; `by` so many places in each dimension."""
        place, stride = 0, 1
        for dim, distance in zip(reversed(self.dims), reversed(by), strict=True):
            rank, at = divmod(rank, dim)
            place += (at + distance) % dim * stride
            stride *= dim
        return place

    def home(self, rank: int) -> tuple[int, list[int]]:
        """The first rank that can be moved to where `rank` stands, and by how much."""
        first, stride = 0, 1
        by = []
        for dim, step in zip(reversed(self.dims), reversed(self.steps), strict=True):
            rank, at = divmod(rank, dim)
            first += at % step * stride
            stride *= dim
            by.append(at - at % step)
        return first, by[::-1]

    def homes(self) -> list[int]:
        """All such ranks, one for each set of ranks that are alike, in order."""
        ranks = [0]
        for dim, step in zip(self.dims, self.steps, strict=True):
            ranks = [rank * dim + at for rank in ranks for at in range(step)]
        return ranks


@dataclass(frozen=True, slots=True)
class Traffic:
    """Messages and elements that one rank sends and receives for a buffer of known length."""

    messages_sent: int
    messages_received: int
    elements_sent: int
    elements_received: int


def traffic(schedule: Schedule, count: int) -> Traffic:
    """Count what one rank moves for a buffer of `count` elements; empty pieces are not sent."""
    sent = [op.piece.bounds(count) for turn in schedule.rounds for op in turn.sends]
    received = [op.piece.bounds(count) for turn in schedule.rounds for op in turn.recvs]
    sizes_sent = [stop - start for start, stop in sent if stop > start]
    sizes_received = [stop - start for start, stop in received if stop > start]
    return Traffic(len(sizes_sent), len(sizes_received), sum(sizes_sent), sum(sizes_received))
