"""The stages between a file and an updated weight, each of which can be run by itself.

A turn of an input stage is some pictures, shared out among the loader's threads as in training. The
bytes of a stage are those that it takes in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from commbench.backprop import Backprop
from commbench.buckets import WHOLE, lay_out, plan_buckets
from commbench.workloads.data import Dataset, order
from commbench.workloads.data.augment import Draw
from commbench.workloads.data.batches import OnDevice, OnHost
from commbench.workloads.data.cuts import Box
from commbench.workloads.data.decoding import CorruptImageError, Pixels, examine
from commbench.workloads.data.loader import Batch, Loader, Request
from commbench.workloads.data.pictures import Pictures
from commbench.workloads.models.dropout import sample_keys
from commbench.workloads.models.network import Network
from commbench.workloads.recipes import Plan, Recipe
from commbench.workloads.recipes.groups import parameter_groups
from commbench.workloads.recipes.optimizers import make_optimizer, take_step

READ, DECODE, AUGMENT, INPUT, TRAIN = "read", "decode", "augment", "input", "train"
_PICTURES = 256
_PIXELS_BYTES = 256 << 20

Loaded = tuple[Draw, Pixels, Box]


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: one of the above.
        batch: samples of a training step; 0 of the others.
        turn: runs it for a while; returns the samples and the bytes taken in.
    """

    name: str
    batch: int
    turn: Callable[[], tuple[int, int]]


def input_stages(
    data: Dataset, loader: Loader, device: torch.device, *, batch: int, seed: int
) -> list[Stage]:
    """Read, decode, augment, and all three at once; of data in memory the last alone.

    Args:
        data: whose training samples are taken, in the order of the first epoch.
        loader: whose threads do it.
        device: where batches go.
        batch: samples of a batch of the last stage.
        seed: of the order and the augmentation.
    """
    samples = np.arange(len(data.train))
    if not data.in_order:
        samples = order.epoch_order(len(data.train), seed, 0)
    count = min(_PICTURES, len(samples))
    pictures = data.train
    if not isinstance(pictures, Pictures):
        some = samples[:count]
        return [Stage(INPUT, 0, _whole_input(data, loader, some, batch=batch, seed=seed))]
    stored = _stored(pictures, samples[:count], seed)
    some = samples[: len(stored)]
    encoded = [pictures.source.read(int(index)) for index in some]
    nbytes = sum(map(len, encoded))
    keys = sample_keys(seed, 0, some).numpy()

    def read(part: int) -> None:
        with suppress(CorruptImageError):
            pictures.source.read(int(some[part]))

    def decode(part: int) -> None:
        with suppress(CorruptImageError):
            cut = stored[part][0].cut
            examine(encoded[part]).pixels(cut.shrink, rows=cut.box[3])

    where = pictures.begin(some, keys, device)
    kind = _StoredOnDevice if isinstance(where, OnDevice) else _StoredOnHost

    def augment() -> tuple[int, int]:
        begun = kind(pictures, some, keys, device)
        begun.stored = stored
        loader.share_out(begun)
        _finish(device)
        return len(stored), sum(pixels.nbytes for _, pixels, _ in stored)

    return [
        Stage(READ, 0, lambda: _each(loader, read, len(some), nbytes)),
        Stage(DECODE, 0, lambda: _each(loader, decode, len(some), nbytes)),
        Stage(AUGMENT, 0, augment),
        Stage(INPUT, 0, _whole_input(data, loader, some, batch=batch, seed=seed, nbytes=nbytes)),
    ]


def _stored(pictures: Pictures, samples: NDArray[np.int64], seed: int) -> list[Loaded]:
    """Pictures decoded as for training, as many as memory is meant for; at least one."""
    keys = sample_keys(seed, 0, samples).numpy()
    begun = OnHost(pictures, samples, keys, torch.device("cpu"))
    stored: list[Loaded] = []
    total = 0
    for part in range(len(samples)):
        stored.append(begun.load(part))
        total += stored[-1][1].nbytes
        if total > _PIXELS_BYTES:
            break
    begun.settle()
    return stored


class _Stored:
    """In the place of reading and decoding."""

    stored: Sequence[Loaded]

    def load(self, part: int) -> Loaded:
        """A picture that is decoded already."""
        return self.stored[part]


class _StoredOnHost(_Stored, OnHost):
    """Pictures in memory, augmented one by one."""


class _StoredOnDevice(_Stored, OnDevice):
    """Pictures in memory, augmented together."""


class _Parts:
    """Something done to each of several pictures: a batch of nothing."""

    def __init__(self, make: Callable[[int], None], parts: int) -> None:
        self.make = make
        self.parts = parts

    def seal(self) -> None:
        """There is nothing left to do."""

    def hand_over(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Nothing comes of it."""
        return torch.empty(0), torch.empty(0)

    def settle(self) -> None:
        """Corrupt pictures have been counted before."""


def _each(loader: Loader, make: Callable[[int], None], count: int, nbytes: int) -> tuple[int, int]:
    loader.share_out(_Parts(make, count))
    return count, nbytes


def _whole_input(
    data: Dataset,
    loader: Loader,
    samples: NDArray[np.int64],
    *,
    batch: int,
    seed: int,
    nbytes: int = 0,
) -> Callable[[], tuple[int, int]]:
    """A pass over the samples in batches, as in training; 0 bytes stand for those that it makes."""
    cuts = [samples[start : start + batch] for start in range(0, len(samples), batch)]
    requests = [Request(cut, sample_keys(seed, 0, cut).numpy()) for cut in cuts]

    def turn() -> tuple[int, int]:
        made = 0
        for one in loader.batches(data.train, requests):
            _finish(one.inputs.device)
            made += one.inputs.nbytes
        return len(samples), nbytes or made

    return turn


def _finish(device: torch.device) -> None:
    if device.type != "cpu":
        torch.cuda.synchronize(device)


class Training:
    """A model that is trained on one batch, kept where it computes."""

    def __init__(
        self, model: Network, recipe: Recipe, plan: Plan, data: Batch, *, seed: int
    ) -> None:
        """Prepare it.

        Args:
            model: in training mode, on its device.
            recipe: its optimizer's settings.
            plan: the learning rates.
            data: samples on that device, as many as the largest batch has.
            seed: of dropout.
        """
        self.model = model
        self.data = data
        self.plan = plan
        self.device = data.inputs.device
        buckets = plan_buckets(model.parameters(), WHOLE)
        self.gradients = lay_out(buckets, lambda count: torch.zeros(count, device=self.device))
        self.backprop = Backprop(model, recipe, parts=1, now=lambda: 0.0)
        self.optimizer = make_optimizer(parameter_groups(model, recipe), plan)
        self.keys = sample_keys(seed, 0, data.request.indices)

    def stage(self, batch: int) -> Stage:
        """Forward, backward and update of the first `batch` samples."""
        inputs, targets = self.data.inputs[:batch], self.data.targets[:batch]

        def turn() -> tuple[int, int]:
            self.model.start_epoch()
            self.gradients.clear()
            self.backprop.run(inputs, targets, self.keys[:batch], batch)
            if self.backprop.ready(self.gradients.flat):
                take_step(self.optimizer, self.plan, 0)
            _finish(self.device)
            return batch, inputs.nbytes

        return Stage(TRAIN, batch, turn)
