"""Sixteen bits on the wire: the gradient is rounded for the exchange and widened afterwards.

What happens between is that of 16-bit buffers everywhere: sums are added in float32 and rounded to
the nearest once per hop (`commbench.arrays`).

float16 has few small numbers: below 6.1e-5 they lose bits, and below 3e-8 they become zero. A
rank's gradient comes divided by the *global* batch, so with W workers it is a W-th of what one
worker alone would round. So it is multiplied by the power of two that is W or next above, and the
sum divided by it: no more is lost to underflow than a single worker's mean gradient would lose, and
a sum overflows from 65504 over that power on, to infinity. No further loss scaling is done. A power
of two changes no other bit. bfloat16 has float32's range and is not scaled.
"""

from __future__ import annotations

import numpy as np
import torch

from commbench.arrays import to_torch
from commbench.wire.codec import Lane


class Half:
    """The codec of ``float16`` and ``bfloat16``."""

    def __init__(self, gradient: torch.Tensor, dtype: str, lane: Lane, *, workers: int) -> None:
        """Exchange `gradient`, ``(n,)`` float32, over a lane of n elements of type `dtype`."""
        self._gradient = gradient
        self._lane = lane
        # NumPy knows bfloat16 by another name than torch, and CuPy not at all.
        self._wire = to_torch(lane.buffer.view(np.int16)).view(getattr(torch, dtype))
        self.scale = float(1 << (workers - 1).bit_length()) if dtype == "float16" else 1.0

    def exchange(self) -> None:
        """Replace the gradient by the sum of all workers'."""
        if self.scale != 1:
            self._gradient.mul_(self.scale)
        self._wire.copy_(self._gradient)
        self._lane.run()
        self._gradient.copy_(self._wire)
        if self.scale != 1:
            self._gradient.div_(self.scale)

    def relay(self) -> None:
        """Take part without a gradient."""
        self._lane.run()

    def reset(self) -> None:
        """Nothing stays: what rounding takes off is lost."""
