"""What all ranks do in one exchange, stripped to what its price depends on.

Schedules of all ranks grow with the square of their number. Most topologies tell how their ranks
are alike (`Grid`), and then one rank of each kind stands for all of them: of a ring of 4,096 ranks,
one. Ranks that share a node's port are kept together.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError
from commbench.matching import ProofError
from commbench.registry import Choice
from commbench.schedule import AllReduce, Grid, Schedule, Send


@dataclass(frozen=True, slots=True)
class Step:
    """A round of one rank: messages by number, in the order listed; which receives add."""

    sends: tuple[int, ...]
    recvs: tuple[int, ...]
    adds: tuple[bool, ...]


@dataclass(frozen=True)
class Program:
    """All rounds of those ranks that stand for all; ranks are counted among these.

    Attributes:
        nodes: the node of each rank.
        steps: of each rank, without rounds in which it does nothing.
        senders, receivers: of each message.
        shares: of each message, as fractions of the buffer.
        inside: of each message, whether it stays in a node.
    """

    nodes: Sequence[int]
    steps: Sequence[Sequence[Step]]
    senders: Sequence[int]
    receivers: Sequence[int]
    shares: Sequence[float]
    inside: Sequence[bool]


def compile_program(
    choice: Choice, size: int, nodes: Sequence[int], *, each: bool = False
) -> Program:
    """Make and match the schedules of a plain exchange.

    Args:
        choice: a plain exchange.
        size: number of ranks.
        nodes: the node of every rank, from 0, nodes of equal ranks apart.
        each: whether every rank is wanted, for itself, even where ranks are alike.

    Raises:
        UserError: the topology refuses this size, or leaves its work to the library.
        ProofError: a send without its receive.
    """
    if each:
        return _Matching(Grid((size,), (size,)), nodes).program(choice, size)
    grid = _kept_together(choice.symmetry(size), np.asarray(nodes))
    return _Matching(grid, nodes).program(choice, size)


@contextmanager
def without_collector() -> Iterator[None]:
    """Schedules are millions of objects and no cycles; looking for those would take most of it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Matching:
    """Finds the receive of every send, among the ranks that stand for all."""

    def __init__(self, grid: Grid, nodes: Sequence[int]) -> None:
        self.grid = grid
        self.fixed = grid.dims == grid.steps
        self.ranks = grid.homes()
        self.index = {rank: at for at, rank in enumerate(self.ranks)}
        self.nodes = nodes
        self.senders: list[int] = []
        self.receivers: list[int] = []
        self.shares: list[float] = []
        self.inside: list[bool] = []
        # From a rank, to one of those that stand for all: messages in the order they are sent.
        self.channels: dict[tuple[int, int], list[int]] = defaultdict(list)

    def program(self, choice: Choice, size: int) -> Program:
        """Take one rank's schedule after the other, and pair what they send and receive."""
        raw = [self._sent(rank, choice.schedule(rank, size), choice) for rank in self.ranks]
        taken: dict[tuple[int, int], int] = defaultdict(int)
        steps = []
        for rank, rounds in zip(self.ranks, raw, strict=True):
            own = []
            for sends, sources, adds in rounds:
                recvs = []
                for source in sources:
                    channel = source, rank
                    if taken[channel] == len(self.channels.get(channel, ())):
                        raise ProofError(f"rank {rank} receives from {source} what it never sends")
                    recvs.append(self.channels[channel][taken[channel]])
                    taken[channel] += 1
                own.append(Step(sends, tuple(recvs), adds))
            steps.append(tuple(own))
        if sum(taken.values()) != len(self.senders):
            raise ProofError(f"{choice.spec}: some messages are sent and never received")
        renumbered: dict[int, int] = {}
        nodes = [renumbered.setdefault(self.nodes[rank], len(renumbered)) for rank in self.ranks]
        return Program(nodes, steps, self.senders, self.receivers, self.shares, self.inside)

    def _sent(
        self, rank: int, schedule: Schedule, choice: Choice
    ) -> list[tuple[tuple[int, ...], list[int], tuple[bool, ...]]]:
        """Number what a rank sends; of each round that has any, those, and the receives."""
        rounds = []
        for turn in schedule.rounds:
            sends: list[int] = []
            sources: list[int] = []
            adds: list[bool] = []
            for op in turn.ops:
                if isinstance(op, AllReduce):
                    raise UserError(
                        f"exchange {choice.spec} leaves its work to the MPI library, which does "
                        "not tell what it sends: name another to have it priced"
                    )
                if isinstance(op, Send):
                    sends.append(self._numbered(rank, op))
                else:
                    sources.append(op.source)
                    adds.append(op.reduce)
            if sends or sources:
                rounds.append((tuple(sends), sources, tuple(adds)))
        return rounds

    def _numbered(self, rank: int, send: Send) -> int:
        home, source = send.to, rank
        if not self.fixed:
            # Moved so that its receiver is one of those that stand for all, whence does it come?
            home, by = self.grid.home(send.to)
            source = self.grid.moved(rank, [-distance for distance in by])
        number = len(self.senders)
        self.senders.append(self.index[rank])
        self.receivers.append(self.index[home])
        self.shares.append(1 / send.piece.of)
        self.inside.append(self.nodes[rank] == self.nodes[send.to])
        self.channels[source, home].append(number)
        return number


def _kept_together(grid: Grid, nodes: NDArray[np.int64]) -> Grid:
    """The moves of a grid that take every node to another one as a whole."""
    steps = []
    for axis, (dim, step) in enumerate(zip(grid.dims, grid.steps, strict=True)):
        allowed = [width for width in range(step, dim + 1, step) if dim % width == 0]
        steps.append(next(w for w in allowed if w == dim or _moves_nodes(grid, axis, w, nodes)))
    kept = replace(grid, steps=tuple(steps))
    # No node may be moved onto itself: its ranks, alike or not, take turns at one port.
    for axis in reversed(range(len(steps))):
        homes = kept.homes()
        whole = np.isin(nodes, nodes[homes]).sum() == len(homes)
        if whole:
            break
        steps[axis] = grid.dims[axis]
        kept = replace(grid, steps=tuple(steps))
    return kept


def _moves_nodes(grid: Grid, axis: int, distance: int, nodes: NDArray[np.int64]) -> bool:
    """Whether moving along one axis takes ranks of one node to one node, and no others there."""
    places = np.arange(len(nodes)).reshape(grid.dims)
    onto = nodes[np.roll(places, -distance, axis).ravel()]
    pairs = np.unique(np.stack([nodes, onto]), axis=1).shape[1]
    return bool(pairs == len(np.unique(nodes)))
