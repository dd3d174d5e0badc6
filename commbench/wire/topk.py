"""The largest entries only, the rest later: ``topk:F``.

Each worker adds its gradient to what it has not sent yet, the *residual*, sends the fraction F of
entries whose absolute values are largest, and keeps the others (Stich, Cordonnier and Jaggi,
"Sparsified SGD with Memory", NeurIPS 2018; the accumulation of gradients is that of Lin et al.,
"Deep Gradient Compression", ICLR 2018, whose momentum correction, clipping, warm-up and choice by
layer are left out: entries are chosen over the whole bucket, and momentum is the optimizer's, after
the sum).

A worker's entries lie elsewhere than its neighbour's, so no sum is formed on the way: workers
gather each other's slots (`commbench.gathering`), k values followed by their k positions as int32,
and every one adds them up in the order of ranks, to the same bits.
"""

from __future__ import annotations

import torch

from commbench.arrays import to_torch
from commbench.wire.codec import Lane

# The threshold moves little from step to step; this far below the last one, enough are found.
_SLACK = 0.8


class TopK:
    """The codec of ``topk``."""

    def __init__(
        self, gradient: torch.Tensor, entries: int, lane: Lane, *, slot: int | None, workers: int
    ) -> None:
        """Prepare it.

        Args:
            gradient: ``(n,)`` float32.
            entries: k, how many each worker sends.
            lane: over at least ``workers`` slots of 2k float32.
            slot: of this worker, from 0; None for a rank without a gradient.
            workers: how many slots are in use.
        """
        self._gradient = gradient
        self._entries = entries
        self._lane = lane
        words = to_torch(lane.buffer)[: workers * 2 * entries].view(workers, 2, entries)
        self._values, self._positions = words[:, 0], words.view(torch.int32)[:, 1]
        self._slot = slot
        self._threshold = float("inf")
        #: ``(n,)``: what this worker has still to send.
        self.residual = torch.zeros_like(gradient if slot is not None else gradient[:0])

    def exchange(self) -> None:
        """Replace the gradient by the sum of all that was sent."""
        assert self._slot is not None
        self.residual.add_(self._gradient)
        chosen = self._largest()
        torch.index_select(self.residual, 0, chosen, out=self._values[self._slot])
        self._positions[self._slot].copy_(chosen)
        self.residual[chosen] = 0
        self._lane.run()
        self._gradient.zero_()
        for values, positions in zip(self._values, self._positions, strict=True):
            # A worker names no position twice, so the order within a slot does not matter.
            self._gradient.index_add_(0, positions, values)

    def relay(self) -> None:
        """Pass slots on."""
        self._lane.run()

    def reset(self) -> None:
        """Forget the residual."""
        self.residual.zero_()
        self._threshold = float("inf")

    def _largest(self) -> torch.Tensor:
        """The positions of the largest entries, in order."""
        sizes = self.residual.abs()
        # Those that are not smaller than the guess: NaN is among them, and is told to everybody.
        candidates = _where(~(sizes < _SLACK * self._threshold))
        if len(candidates) >= self._entries:
            sizes = sizes[candidates]
        found = torch.topk(sizes, self._entries, sorted=False)
        if self._entries:
            self._threshold = float(found.values.min())
        chosen = found.indices if len(candidates) < self._entries else candidates[found.indices]
        return chosen.sort().values


def _where(mask: torch.Tensor) -> torch.Tensor:
    """The positions where a mask is set."""
    if mask.is_cuda:
        return mask.nonzero()[:, 0]
    # On the CPU, NumPy's search is ten times as fast as torch's.
    return torch.from_numpy(mask.numpy().nonzero()[0])
