"""Dropout as a function of the sample, not of the rank: any split of a batch drops the same units.

torch's dropout draws from a generator in the order in which samples are met, so one and four
workers would train different networks. Here the decision for unit i of a sample is a hash of
(seed, epoch, sample index, layer, i). A sample occurs at most once an epoch, so the masks change
with every step.

The hash is SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014)
in wrapping int64 arithmetic, which torch does alike on every device.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


def _signed(value: int) -> int:
    """The int64 with the bits of a 64-bit unsigned number."""
    return (value & (2**64 - 1)) - ((value & 2**63) << 1)


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MIX1 = _signed(0xBF58476D1CE4E5B9)
_MIX2 = _signed(0x94D049BB133111EB)
_BITS = 53


def _shift_right(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift: torch's `>>` copies the sign bit in."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix(x: torch.Tensor) -> torch.Tensor:
    """SplitMix64's finaliser of x + gamma, element by element; int64 in and out."""
    x = x + _GAMMA
    x = (x ^ _shift_right(x, 30)) * _MIX1
    x = (x ^ _shift_right(x, 27)) * _MIX2
    return x ^ _shift_right(x, 31)


def sample_keys(seed: int, epoch: int, indices: NDArray[np.int64]) -> torch.Tensor:
    """Keys of the samples of a batch: mix(mix(mix(seed) + epoch) + index).

    Args:
        seed: the run's seed.
        epoch: number of the pass over the training set, from 0.
        indices: `(b,) int64` positions of the samples in the training set.

    Returns:
        `(b,) int64` on the CPU.
    """
    start = mix(torch.tensor(_signed(seed), dtype=torch.int64))
    start = mix(start + epoch)
    return mix(start + torch.from_numpy(indices))


def keep_mask(keys: torch.Tensor, units: int, *, layer: int, p: float) -> torch.Tensor:
    """Which units of each sample stay: `(b, units) bool`, each True with probability 1 - p.

    Unit i of a sample is dropped where SplitMix64's i-th number, of the generator started at
    mix(key + layer), falls in the lowest fraction p of its range.

    Args:
        keys: `(b,) int64`, see `sample_keys`; the result is on their device.
        units: activations per sample.
        layer: number of the dropout layer in its network.
        p: probability of dropping a unit.
    """
    counters = torch.arange(units, dtype=torch.int64, device=keys.device) * _GAMMA
    numbers = mix(mix(keys + layer).unsqueeze(1) + counters)
    return _shift_right(numbers, 64 - _BITS).ge(round(p * 2**_BITS))


class SampleDropout(nn.Module):
    """Zeroes units with probability p and scales the others by 1 / (1 - p); identity in eval mode.

    In training mode the keys of the batch must have been set with `set_samples`.
    """

    def __init__(self, p: float, layer: int) -> None:
        """Makes a layer that drops with probability p; `layer` sets its masks apart."""
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout probability {p}: must be in [0, 1)")
        self.p = p
        self.layer = layer
        self.keys: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drops units of `(b, ...)` activations.

        Raises:
            RuntimeError: in training mode, if no keys or keys of another batch size were set.
        """
        if not self.training or self.p == 0.0:
            return x
        if self.keys is None or len(self.keys) != len(x):
            held = "no samples" if self.keys is None else f"{len(self.keys)} samples"
            raise RuntimeError(f"dropout knows {held}, the batch has {len(x)}: call set_samples")
        keys = self.keys.to(x.device)
        keep = keep_mask(keys, x[0].numel(), layer=self.layer, p=self.p).view_as(x)
        return x * keep.to(x.dtype) * (1.0 / (1.0 - self.p))

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"p={self.p}, layer={self.layer}"


def set_samples(model: nn.Module, keys: torch.Tensor) -> None:
    """Tells every dropout layer of `model` the keys `(b,) int64` of the next batch."""
    for module in model.modules():
        if isinstance(module, SampleDropout):
            module.keys = keys
