"""One rank's copy of the model: what a training step does, phase by phase."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from commbench.arrays import arrays_for, to_torch
from commbench.backprop import Backprop
from commbench.buckets import WHOLE, Fusion, lay_out, plan_buckets
from commbench.errors import UserError
from commbench.job import Job
from commbench.node_weights import NodeWeights, worth_sharing
from commbench.overlap import Courier, Span, Watch
from commbench.record import RunFile
from commbench.schedule import Schedule
from commbench.wire import WireFormat, describe
from commbench.wire.codec import open_codec, open_lanes
from commbench.workloads.data.loader import Batch
from commbench.workloads.models.network import Network
from commbench.workloads.recipes import Plan, Recipe
from commbench.workloads.recipes.groups import parameter_groups
from commbench.workloads.recipes.optimizers import make_optimizer, take_step


class Replica:
    """Model, gradient buckets, exchanges and optimizer of one rank.

    Every rank has one, a dedicated server too: its buckets are what it sums others' gradients in.

    Attributes:
        in_rounds: whether all that this rank sends during training follows a schedule's rounds.
        spans: of the buckets' exchanges in the last step.
        handed_in: when the gradients of the last step were complete, in `perf_counter`'s seconds;
            NaN where workers do not wait for each other.
    """

    in_rounds = True

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
        accumulate: int = 1,
        fusion: Fusion = WHOLE,
        overlap: bool = False,
        share_weights: str = "off",
    ) -> None:
        """Put the model on its device, start from rank 0's weights and prepare the exchange.

        Args:
            job: the ranks.
            model: on rank 0 with the weights to start from.
            recipe: the optimizer's settings.
            plan: the learning rate of every step.
            schedule_for: this rank's schedule for a buffer of so many bytes.
            wire: in which form gradients travel.
            workers: the ranks with data.
            transport: by name.
            device: "cpu" or "cuda".
            timeout_s: the longest wait for a peer, in seconds.
            accumulate: micro-batches that this rank's share is cut into.
            fusion: which gradients are exchanged together.
            overlap: whether buckets are exchanged while backward goes on.
            share_weights: whether the ranks of a node have them in common: auto, on or off.

        Raises:
            UserError: a split that the model does not have, an MPI library that does not let
                another thread call it, or weights that cannot be shared.
        """
        self.job = job
        arrays = arrays_for(device, "float32", job.local_rank)
        self.device = torch.device(arrays.device)
        self.synchronize: Callable[[], None] = lambda: None
        if device != "cpu":
            torch.cuda.set_device(self.device)
            self.synchronize = torch.cuda.current_stream().synchronize
        self.model = model.to(self.device)
        buckets = plan_buckets(self.model.parameters(), fusion)
        shapes = [shape for bucket in buckets for shape in bucket.shapes]
        buffers = [wire.buffers(bucket.shapes, len(workers)) for bucket in buckets]
        schedules = [schedule_for(one.nbytes) for several in buffers for one in several]
        self.contributes = all(schedule.contributes for schedule in schedules)
        self.reduces = any(schedule.reduces for schedule in schedules)
        self.node_weights: NodeWeights | None = None
        stay_equal = self.in_rounds and all(schedule.reduces for schedule in schedules)
        if self._shares_weights(share_weights, stay_equal):
            self.node_weights = NodeWeights(job, self.model, workers)
        else:
            self._take_weights()
        lanes = open_lanes(
            buffers,
            schedule_for,
            job=job,
            transport=transport,
            device=device,
            rounds=self.in_rounds,
            timeout_s=timeout_s,
            synchronize=self.synchronize,
        )
        self.transport, self.buffer = lanes.transport, lanes.memory

        def allocate(count: int) -> torch.Tensor:
            if wire.plain:
                return to_torch(lanes.memory)
            return torch.zeros(count, device=self.device)

        self.gradients = lay_out(buckets, allocate)
        self.plan = plan
        self.codecs = [
            open_codec(
                wire,
                self.gradients.flat[bucket.start : bucket.stop],
                bucket.shapes,
                own,
                workers=workers,
                rank=job.rank,
            )
            for bucket, own in zip(buckets, lanes.of, strict=True)
        ]
        self.backprop = Backprop(self.model, recipe, parts=accumulate, now=self.now)
        moves = any(schedule.rounds for schedule in schedules)
        self.gradients.gathers = (
            moves or not wire.plain or not self.in_rounds or self.backprop.reads_gradient
        )
        self._allow_overflow()
        self.courier = self._open_courier(overlap and self.contributes and moves)
        self.watch = Watch(buckets, self.courier) if self.courier.overlaps else None
        self.spans: list[Span] = []
        self.handed_in = math.nan
        self.told = describe(wire, shapes)
        self.optimizer = make_optimizer(parameter_groups(self.model, recipe), plan)
        self.model.label_smoothing = recipe.label_smoothing

    def _allow_overflow(self) -> None:
        """Have NumPy not warn of what a loss scale is there for, in this thread."""
        if self.backprop.scale.active:
            np.seterr(over="ignore", invalid="ignore")

    def _open_courier(self, overlap: bool) -> Courier:
        """What exchanges the buckets.

        Raises:
            UserError: it is to be another thread, which the MPI library does not allow.
        """
        from mpi4py import MPI

        if overlap and MPI.Query_thread() < MPI.THREAD_SERIALIZED:
            raise UserError(
                "this MPI library was started for one thread only, and gradients are exchanged on "
                "another while backward goes on: use --no-overlap, or start it with "
                "MPI_THREAD_MULTIPLE (mpi4py's default)"
            )

        def arrived() -> Callable[[], None]:
            if self.device.type == "cpu":
                return lambda: None
            wait: Callable[[], None] = torch.cuda.current_stream().record_event().synchronize
            return wait

        def enter() -> None:
            self._allow_overflow()
            if self.device.type != "cpu":
                torch.cuda.set_device(self.device)

        return Courier(
            [codec.exchange for codec in self.codecs],
            overlap=overlap,
            arrived=arrived,
            enter=enter,
        )

    def step(
        self, take: Callable[[], Batch], *, step: int, global_batch: int
    ) -> tuple[float, list[float]]:
        """One step of synchronous SGD.

        Args:
            take: gives this rank's share of the global batch, on the model's device; its keys are
                those of the dropout masks.
            step: from 0, sets the learning rate.
            global_batch: samples of all ranks together; the loss is their mean.

        Returns:
            The sum of the losses of this rank's samples, of which each is a mean over its terms,
            and the seconds of each phase: input, forward, backward, exchange, update.
        """
        marks = [perf_counter()]
        batch = take()
        keys = torch.from_numpy(batch.request.keys)
        marks.append(self.now())
        self.model.train()
        self.gradients.clear()
        watch = self.watch
        loss_sum, passes_s = self.backprop.run(
            batch.inputs,
            batch.targets,
            keys,
            global_batch,
            before_last=watch.arm if watch else None,
        )
        if watch:
            watch.disarm()
        self.gradients.complete()
        marks.append(self.now())
        self.exchange_gradient(step)
        marks.append(self.now())
        self.update(step)
        marks.append(self.now())
        input_s, both_s, *rest_s = np.diff(marks).tolist()
        # What lies around the passes is the forward one's.
        seconds = [input_s, both_s - passes_s[1], passes_s[1], *rest_s]
        return loss_sum.item() / self.model.loss_terms, seconds

    def close(self) -> None:
        """End the thread of the exchanges."""
        self.courier.close()

    def now(self) -> float:
        """The time in seconds, once the device has done its work."""
        self.synchronize()
        return perf_counter()

    def exchange_gradient(self, step: int) -> None:
        """Have the ranks' gradients added up in the buckets, in the form in which they travel."""
        self.handed_in = perf_counter()
        self.spans = self.courier.finish()

    def update(self, step: int) -> None:
        """Take the optimizer's step with them, unless they overflowed."""
        if not self.backprop.ready(self.gradients.flat):
            return
        take = partial(take_step, self.optimizer, self.plan, step)
        if self.node_weights:
            self.node_weights.update(self.gradients.flat, take)
        else:
            take()

    def serve(self, step: int) -> tuple[float, list[float]]:
        """A step of a rank without data: it only takes part in the exchanges."""
        start = self.handed_in = perf_counter()
        for codec in self.codecs:
            codec.relay()
        return 0.0, [0.0, 0.0, 0.0, perf_counter() - start, 0.0]

    def hand_in(self, file: RunFile | None) -> str:
        """Store what the exchange knows about itself, and tell it in a line; collective."""
        return self.told

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> NDArray[np.float64]:
        """Count over this rank's test samples: right at first guess, among five, loss sum."""
        self.model.eval()
        totals = np.zeros(3)
        for batch in batches:
            totals += self.model.score(batch.inputs, batch.targets).cpu().numpy()
        return totals

    @torch.no_grad()
    def mean_statistics(self, job: Job, workers: int) -> None:
        """Give every rank the mean over the workers of BatchNorm's running statistics.

        Each worker normalises by its own share of a batch and keeps its own running mean and
        variance; evaluated with those, the result would depend on who evaluates what.
        """
        own = [buffer for buffer in self.model.buffers() if buffer.is_floating_point()]
        if not own:
            return
        flat = torch.cat([buffer.flatten() for buffer in own]).double()
        total = job.all_sum(flat.cpu().numpy() * self.contributes)
        job.broadcast(total)  # the sum may have been added in another order elsewhere
        means = torch.split(torch.from_numpy(total / workers), [one.numel() for one in own])
        for buffer, mean in zip(own, means, strict=True):
            buffer.copy_(mean.view_as(buffer))

    def _take_weights(self) -> None:
        """Overwrite the weights with rank 0's; collective."""
        for parameter in self.model.parameters():
            value = parameter.detach().cpu()
            self.job.broadcast(value.numpy())
            parameter.data.copy_(value)

    def _shares_weights(self, asked: str, stay_equal: bool) -> bool:
        """Whether the ranks of a node have the weights in common; the same on all nodes."""
        can = self.device.type == "cpu" and stay_equal
        if asked == "on" and not can:
            raise UserError(
                "--share-weights on: only ranks whose weights stay equal can share them; use it "
                "with --device cpu and a synchronous exchange other than none"
            )
        if asked != "auto" or not can:
            return asked == "on"
        weights = sum(parameter.nbytes for parameter in self.model.parameters())
        worth = worth_sharing(self.job.local_size, weights)
        return bool(self.job.all_gather(np.array([worth])).any())

    def fingerprint(self) -> str:
        """SHA-256 of all weights, in the model's order."""
        digest = hashlib.sha256()
        for parameter in self.model.parameters():
            digest.update(parameter.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    def state_digest(self) -> bytes:
        """What is the same on all workers as long as the exchange is right, 36 bytes."""
        applied = self.node_weights.digest if self.node_weights else 0
        return bytes.fromhex(self.fingerprint()) + applied.to_bytes(4, "big")
