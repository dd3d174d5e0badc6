"""One rank's part in asynchronous training, in the place of an exchange."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from commbench.arrays import to_torch
from commbench.asynchronous.histogram import MEASURES, describe
from commbench.asynchronous.ledger import Ledger
from commbench.asynchronous.server import Server
from commbench.asynchronous.shard import Shard
from commbench.asynchronous.terms import Terms
from commbench.asynchronous.wire import shares_of, sources_of
from commbench.asynchronous.worker import Worker
from commbench.buckets import WHOLE, Fusion
from commbench.job import Job
from commbench.record import RunFile
from commbench.replica import Replica
from commbench.schedule import Schedule
from commbench.wire import WireFormat
from commbench.workloads.models.network import Network
from commbench.workloads.recipes import Plan, Recipe


class AsynchronousReplica(Replica):
    """A worker that pushes and pulls, or a server with its shard."""

    in_rounds = False

    def __init__(
        self,
        job: Job,
        model: Network,
        *,
        recipe: Recipe,
        plan: Plan,
        schedule_for: Callable[[int], Schedule],
        wire: WireFormat,
        workers: Sequence[int],
        transport: str,
        device: str,
        timeout_s: float,
        terms: Terms,
        accumulate: int = 1,
        fusion: Fusion = WHOLE,
        overlap: bool = False,
        share_weights: str = "off",
    ) -> None:
        """As `Replica`, with the schedule of the synchronous exchange of the same servers.

        There is one bucket, and nothing overlaps: that is what `Settings` ask for.
        """
        super().__init__(
            job,
            model,
            recipe=recipe,
            plan=plan,
            schedule_for=schedule_for,
            wire=wire,
            workers=workers,
            transport=transport,
            device=device,
            timeout_s=timeout_s,
            accumulate=accumulate,
            fusion=fusion,
            overlap=overlap,
            share_weights=share_weights,
        )
        self.terms = terms
        count = self.gradients.flat.numel()
        schedule = schedule_for(4 * count)
        with job.watchdog.guard(f"rank {job.rank} waits for all ranks to open the exchange"):
            comm = job.comm.Dup()
        # The second buffer: a worker's weights; the first and it are a server's for snapshots.
        weights = self.transport.allocate(count)
        self.server: Server | None = None
        self.worker: Worker | None = None
        if self.contributes:
            self._move_weights(to_torch(weights))
            self.worker = Worker(
                comm,
                self.transport,
                shares_of(schedule, count),
                gradient=self.buffer,
                weights=weights,
                timeout_s=timeout_s,
            )
            return
        order, bounds = sources_of(schedule, count)
        shard = Shard(
            self.model,
            self.gradients.parameters,
            bounds,
            arrays=self.transport.arrays,
            recipe=recipe,
            plan=plan,
            # With its own update for each, every worker's gradient brings its share of the decay.
            share=1.0 if terms.staleness == 0 else 1 / len(terms.workers),
            synchronize=self.synchronize,
        )
        self.ledger = Ledger(order, terms.staleness, terms.bins)
        length = bounds[1] - bounds[0]
        places = range(0, count - length + 1, max(1, length))
        self.server = Server(
            comm,
            self.transport,
            shard,
            self.ledger,
            memory=[buffer[at : at + length] for buffer in (self.buffer, weights) for at in places],
            timeout_s=timeout_s,
        )

    def exchange_gradient(self, step: int) -> None:
        """Push the gradient and pull the weights to go on with."""
        assert self.worker is not None
        self.worker.exchange(step, step + 1, meets=step + 1 in self.terms.meetings)

    def update(self, step: int) -> None:
        """The servers have done it."""

    def serve(self, step: int) -> tuple[float, list[float]]:
        """Serve until all gradients of a step have been applied."""
        assert self.server is not None
        start, updating = perf_counter(), self.server.update_s
        self.server.serve(step + 1)
        if step + 1 in self.terms.meetings:
            self.server.finish()
        update_s = self.server.update_s - updating
        return 0.0, [0.0, 0.0, 0.0, perf_counter() - start - update_s, update_s]

    def hand_in(self, file: RunFile | None) -> str:
        """Store the staleness so far, and tell it in a line, on rank 0; collective."""
        own = np.zeros((len(MEASURES), len(self.terms.workers), self.terms.bins + 2))
        if self.server is not None:
            own = self.ledger.histogram.packed()
        everyone = self.job.gather(own)
        if everyone is None or file is None:
            return ""
        packed = everyone[self.terms.servers(self.job.size)]
        for measure, name in enumerate(MEASURES):
            file[f"staleness/{name}"][:] = packed[:, measure, :, :-2]
            file[f"staleness/{name}_sum"][:] = packed[:, measure, :, -2]
            file[f"staleness/{name}_largest"][:] = packed[:, measure, :, -1]
        return describe(packed)

    def _move_weights(self, flat: Any) -> None:
        """Make the parameters views of one buffer, in the bucket's order."""
        start = 0
        for parameter in self.gradients.parameters:
            stop = start + parameter.numel()
            view = flat[start:stop].view_as(parameter)
            view.copy_(parameter.detach())
            parameter.data = view
            start = stop
