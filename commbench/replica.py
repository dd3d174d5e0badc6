"""One rank's copy of the model: what a training step does, phase by phase."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from commbench.arrays import arrays_for, to_torch
from commbench.backprop import Backprop
from commbench.buckets import exchanged, single_bucket
from commbench.job import Job
from commbench.record import RunFile
from commbench.schedule import Schedule
from commbench.wire import WireFormat, describe
from commbench.wire.codec import open_codec, open_lanes
from commbench.workloads.data import Split
from commbench.workloads.models.dropout import sample_keys
from commbench.workloads.models.network import Network
from commbench.workloads.recipes import Plan, Recipe
from commbench.workloads.recipes.groups import parameter_groups
from commbench.workloads.recipes.optimizers import make_optimizer, take_step

_EVALUATION_BATCH = 250


class Replica:
    """Model, gradient bucket, exchange and optimizer of one rank.

    Every rank has one, a dedicated server too: its bucket is what it sums others' gradients in.

    Attributes:
        in_rounds: whether all that this rank sends during training follows a schedule's rounds.
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
    ) -> None:
        """Put the model on its device, start from rank 0's weights and prepare the exchange.

        Args:
            job: the ranks.
            model: with the same weights on every rank, or rank 0's are taken.
            recipe: the optimizer's settings.
            plan: the learning rate of every step.
            schedule_for: this rank's schedule for a buffer of so many bytes.
            wire: in which form gradients travel.
            workers: the ranks with data.
            transport: by name.
            device: "cpu" or "cuda".
            timeout_s: the longest wait for a peer, in seconds.
            accumulate: micro-batches that this rank's share is cut into.
        """
        self.job = job
        arrays = arrays_for(device, "float32", job.local_rank)
        self.device = torch.device(arrays.device)
        self.synchronize: Callable[[], None] = lambda: None
        if device != "cpu":
            torch.cuda.set_device(self.device)
            self.synchronize = torch.cuda.current_stream().synchronize
        self.model = model.to(self.device)
        for parameter in self.model.parameters():
            value = parameter.detach().cpu()
            job.broadcast(value.numpy())
            parameter.data.copy_(value)
        shapes = [tuple(one.shape) for one in exchanged(self.model.parameters())]
        buffers = wire.buffers(shapes, len(workers))
        lanes, self.transport = open_lanes(
            buffers,
            schedule_for,
            job=job,
            transport=transport,
            device=device,
            rounds=self.in_rounds,
            timeout_s=timeout_s,
            synchronize=self.synchronize,
        )

        def allocate(count: int) -> torch.Tensor:
            if wire.plain:
                return to_torch(lanes[0].buffer)
            return torch.zeros(count, device=self.device)

        self.bucket = single_bucket(self.model.parameters(), allocate)
        self.buffer = lanes[0].buffer
        self.plan = plan
        schedule = schedule_for(buffers[0].nbytes)
        self.contributes, self.reduces = schedule.contributes, schedule.reduces
        self.codec = open_codec(
            wire, self.bucket.gradient, shapes, lanes, workers=workers, rank=job.rank
        )
        self.told = describe(wire, shapes)
        self.optimizer = make_optimizer(parameter_groups(self.model, recipe), plan)
        self.model.label_smoothing = recipe.label_smoothing
        self.backprop = Backprop(self.model, recipe, parts=accumulate, now=self.now)

    def step(
        self,
        data: Split,
        share: NDArray[np.int64],
        *,
        step: int,
        epoch: int,
        global_batch: int,
        seed: int,
    ) -> tuple[float, list[float]]:
        """One step of synchronous SGD.

        Args:
            data: the training set.
            share: ``(b,)`` indices of this rank's samples of the global batch.
            step: from 0, sets the learning rate.
            epoch: from 0, part of the key of the dropout masks.
            global_batch: samples of all ranks together; the loss is their mean.
            seed: of the run.

        Returns:
            The sum of the losses of this rank's samples, of which each is a mean over its terms,
            and the seconds of each phase: input, forward, backward, exchange, update.
        """
        marks = [perf_counter()]
        keys = sample_keys(seed, epoch, share)
        inputs, targets = data.batch(share, keys.numpy())
        inputs, targets = inputs.to(self.device), targets.to(self.device)
        marks.append(self.now())
        self.model.train()
        self.bucket.clear()
        loss_sum, passes_s = self.backprop.run(inputs, targets, keys, global_batch)
        marks.append(self.now())
        self.exchange_gradient(step)
        marks.append(self.now())
        self.update(step)
        marks.append(self.now())
        input_s, both_s, *rest_s = np.diff(marks).tolist()
        # What lies around the passes is the forward one's.
        seconds = [input_s, both_s - passes_s[1], passes_s[1], *rest_s]
        return loss_sum.item() / self.model.loss_terms, seconds

    def now(self) -> float:
        """The time in seconds, once the device has done its work."""
        self.synchronize()
        return perf_counter()

    def exchange_gradient(self, step: int) -> None:
        """Add up the ranks' gradients in the bucket, in the form in which they travel."""
        self.codec.exchange()

    def update(self, step: int) -> None:
        """Take the optimizer's step with them, unless they overflowed."""
        if self.backprop.ready(self.bucket.gradient):
            take_step(self.optimizer, self.plan, step)

    def serve(self, step: int) -> tuple[float, list[float]]:
        """A step of a rank without data: it only takes part in the exchange."""
        start = perf_counter()
        self.codec.relay()
        return 0.0, [0.0, 0.0, 0.0, perf_counter() - start, 0.0]

    def hand_in(self, file: RunFile | None) -> str:
        """Store what the exchange knows about itself, and tell it in a line; collective."""
        return self.told

    @torch.no_grad()
    def evaluate(self, data: Split, share: NDArray[np.int64]) -> NDArray[np.float64]:
        """Count over this rank's test samples: right at first guess, among five, loss sum."""
        self.model.eval()
        totals = np.zeros(3)
        for start in range(0, len(share), _EVALUATION_BATCH):
            inputs, targets = data.batch(share[start : start + _EVALUATION_BATCH])
            score = self.model.score(inputs.to(self.device), targets.to(self.device))
            totals += score.cpu().numpy()
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

    def fingerprint(self) -> str:
        """SHA-256 of all weights, in the model's order."""
        digest = hashlib.sha256()
        for parameter in self.model.parameters():
            digest.update(parameter.detach().cpu().numpy().tobytes())
        return digest.hexdigest()
