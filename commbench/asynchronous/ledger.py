"""What a server does about each message, as a machine without MPI, arrays or time.

A worker's *clock* is the first step for which a server may still get a gradient from it: t while it
computes step t. A worker that has no gradient for some steps to come puts its clock forward over
them, so nobody waits for it meanwhile. The server answers a worker that wants to begin step t once
every clock has reached ``t - staleness``, so the weights it gets lack no gradient of the steps
before ``t - staleness``: the bound of stale synchronous parallel (Ho et al., NIPS 2013).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from commbench.asynchronous.histogram import Histogram


@dataclass(frozen=True)
class Message:
    """What a worker tells every server once it has computed a gradient.

    Attributes:
        worker: its rank.
        step: of the gradient that comes with it; None if none comes.
        following: the next step that it may have a gradient for.
        meets: whether it wants the weights only when all clocks have reached `following`: a
            *meeting*, after which all workers hold the same weights.
    """

    worker: int
    step: int | None
    following: int
    meets: bool = False


@dataclass(frozen=True)
class Take:
    """Put this worker's gradient in the place of the sum, or add it."""

    worker: int
    first: bool


@dataclass(frozen=True)
class Update:
    """Take a step of the optimizer with the sum of the gradients taken, at this step's rate."""

    step: int


@dataclass(frozen=True)
class Answer:
    """Send the weights to a worker."""

    worker: int


Action = Take | Update | Answer


class Ledger:
    """The books of one server.

    Attributes:
        version: updates done.
        histogram: the staleness of every gradient applied, by worker in increasing rank.
    """

    def __init__(self, workers: Sequence[int], staleness: float, bins: int) -> None:
        """Open them before step 0, with all workers computing it.

        Args:
            workers: their ranks, in the order in which gradients of one step are added.
            staleness: the bound in steps. 0 sums the gradients of a step into one update; above,
                every gradient is an update of its own, applied as it arrives. ``math.inf`` is none.
            bins: of the histogram.
        """
        self._order = tuple(workers)
        self._bound = staleness
        self._place = {worker: index for index, worker in enumerate(sorted(workers))}
        self._clock = dict.fromkeys(workers, 0)
        # Of the workers that wait for weights: what they said.
        self._waiting: dict[int, Message] = {}
        # Of the gradients that are here but not in an update yet, those of one step in its turn.
        self._arrived: dict[int, Message] = {}
        self._taken: list[int] = []
        # Of the weights that each worker computes from: the version, and the steps complete in it.
        self._pulled = dict.fromkeys(workers, (0, 0))
        self.version = 0
        self.histogram = Histogram(len(workers), bins)

    @property
    def complete(self) -> int:
        """The steps whose gradients have all been applied: the slowest worker's clock."""
        return min(self._clock.values())

    @property
    def awaited(self) -> list[int]:
        """The workers whose message could let the others go on: computing, and the slowest."""
        computing = [worker for worker in self._order if worker not in self._waiting]
        slowest = min((self._clock[worker] for worker in computing), default=0)
        return sorted(worker for worker in computing if self._clock[worker] == slowest)

    def handle(self, message: Message) -> list[Action]:
        """Take note of a message, its gradient included; returns what to do, in order.

        Raises:
            RuntimeError: a worker that has not been answered, or whose steps go backwards.
        """
        worker, step = message.worker, message.step
        clock = self._clock[worker]
        backwards = message.following < clock if step is None else step < clock
        if (
            worker in self._waiting
            or backwards
            or message.following <= (-1 if step is None else step)
        ):
            raise RuntimeError(f"out of turn, rank {worker}'s clock is {clock}: {message}")
        self._waiting[worker] = message
        if step is None:
            self._clock[worker] = message.following
            actions: list[Action] = self._sum() if self._bound == 0 else []
        elif self._bound == 0:
            self._arrived[worker] = message
            actions = self._sum()
        else:
            self._arrived[worker] = message
            self._taken = [worker]
            actions = [Take(worker, first=True), self._update(step)]
        return actions + self._answers()

    def _sum(self) -> list[Action]:
        """Go on adding the gradients of the slowest clock's step, in order; update with the last.

        Each is taken as soon as all before it are: the order, and every bit of the sum, is that of
        the synchronous server.
        """
        actions: list[Action] = []
        step = self.complete
        for worker in self._order:
            if self._clock[worker] > step or worker in self._taken:
                continue
            if worker not in self._arrived:
                return actions
            actions.append(Take(worker, first=not self._taken))
            self._taken.append(worker)
        if self._taken:
            actions.append(self._update(step))
        return actions

    def _update(self, step: int) -> Update:
        for worker in self._taken:
            version, complete = self._pulled[worker]
            self.histogram.add(self._place[worker], self.version - version, step - complete)
            self._clock[worker] = self._arrived.pop(worker).following
        self._taken = []
        self.version += 1
        return Update(step)

    def _answers(self) -> list[Action]:
        complete = self.complete
        ready = [
            worker
            for worker, message in self._waiting.items()
            if worker not in self._arrived
            and complete >= message.following - (0 if message.meets else self._bound)
        ]
        for worker in ready:
            del self._waiting[worker]
            self._pulled[worker] = (self.version, complete)
        return [Answer(worker) for worker in ready]


def most_updates(workers: int, staleness: float, steps: int) -> int:
    """The most updates that can lie between a worker's pull and the use of its gradient.

    At the pull for step t every other worker has brought its gradients up to step t-1-s, and until
    this one's comes it may bring those up to step t+s: 2s+1 each, of the run's steps.
    """
    if staleness == 0:
        return 0
    each = steps if math.isinf(staleness) else min(steps, 2 * int(staleness) + 1)
    return (workers - 1) * each
