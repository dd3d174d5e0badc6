"""Matrices as products of two thin ones: ``powersgd:R``.

Vogels, Karimireddy and Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed
Optimization", NeurIPS 2019, algorithms 1 and 2. A parameter is a matrix M of its first dimension by
all others. With Q from the step before: P = sum over workers of M Q; the columns of P are made
orthonormal; Q = sum of M^T P; and P Q^T stands for the sum of M. It is one step of the power
method, and the warm start makes its steps add up. What a worker's own P Q^T misses of its M, its
*error*, is added to its next gradient.

Both sums are ordinary exchanges of short buffers, so any exchange does. Vectors, and matrices too
small to gain, travel whole with the P. Workers make P orthonormal each for itself; the same bits
come out where processors are of the same kind, with the same number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from commbench.arrays import to_torch
from commbench.wire import low_rank
from commbench.wire.codec import Lane

# Every rank starts from the same Q.
_SEED = 1


@dataclass(frozen=True, eq=False)
class _Matrix:
    """A parameter of `rows` x `columns`, its factors in the lanes, and what stays behind.

    Attributes:
        gradient: ``(rows, columns)``, a view of the bucket.
        left: P, ``(rows, rank)``.
        right: Q transposed, ``(rank, columns)``; from one exchange to the next, the warm start.
        start: the first `right`.
        error: ``(rows, columns)``.
    """

    gradient: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    start: torch.Tensor
    error: torch.Tensor


class PowerSGD:
    """The codec of ``powersgd``."""

    def __init__(
        self,
        gradient: torch.Tensor,
        shapes: Sequence[Sequence[int]],
        rank: int,
        lanes: Sequence[Lane],
    ) -> None:
        """Prepare it.

        Args:
            gradient: ``(n,)`` float32.
            shapes: of the parameters that lie in it, in order.
            rank: of the approximation, at most.
            lanes: float32; the first for all P and vectors, the second for all Q.
        """
        self._lanes = lanes
        self._matrices: list[_Matrix] = []
        self._whole: list[tuple[torch.Tensor, torch.Tensor]] = []
        lefts, *rights = [to_torch(lane.buffer) for lane in lanes]
        generator = torch.Generator().manual_seed(_SEED)
        first = left_at = right_at = 0
        for shape in shapes:
            own = gradient[first : first + math.prod(shape)]
            first += len(own)
            low = low_rank(shape, rank)
            if low is None:
                self._whole.append((own, lefts[left_at : left_at + len(own)]))
                left_at += len(own)
                continue
            left = lefts[left_at : left_at + low.rows * low.rank].view(low.rows, low.rank)
            right = rights[0][right_at : right_at + low.rank * low.columns]
            left_at, right_at = left_at + left.numel(), right_at + len(right)
            start = torch.randn(low.rank, low.columns, generator=generator).to(own.device)
            own = own.view(low.rows, low.columns)
            self._matrices.append(
                _Matrix(own, left, right.view_as(start), start, torch.zeros_like(own))
            )
        self.reset()

    def exchange(self) -> None:
        """Replace the gradient by the approximate sum of all workers'."""
        for one in self._matrices:
            one.gradient.add_(one.error)
            # A row of zeros, from a gradient that was zero for a while, would stay so for ever.
            lost = (one.right == 0).all(dim=1, keepdim=True)
            one.right.copy_(torch.where(lost, one.start, one.right))
            torch.mm(one.gradient, one.right.T, out=one.left)
        for own, sent in self._whole:
            sent.copy_(own)
        self._lanes[0].run()
        for own, sent in self._whole:
            own.copy_(sent)
        if not self._matrices:
            return
        for one in self._matrices:
            one.left.copy_(orthonormal(one.left))
            torch.mm(one.left.T.contiguous(), one.gradient, out=one.right)
            torch.addmm(one.gradient, one.left, one.right, alpha=-1, out=one.error)
        self._lanes[1].run()
        for one in self._matrices:
            torch.mm(one.left, one.right, out=one.gradient)

    def relay(self) -> None:
        """Serve both exchanges."""
        for lane in self._lanes:
            lane.run()

    def reset(self) -> None:
        """Forget errors and warm start."""
        for one in self._matrices:
            one.right.copy_(one.start)
            one.error.zero_()


def orthonormal(columns: torch.Tensor) -> torch.Tensor:
    """Make columns orthonormal, by Gram and Schmidt in float64; one of zeros stays so.

    Args:
        columns: ``(n, r)`` float32.

    Returns:
        ``(n, r)`` float64.
    """
    rows = columns.T.double().contiguous()
    for number, row in enumerate(rows):
        for earlier in rows[:number]:
            row.sub_((earlier * row).sum() * earlier)
        norm = row.square().sum().sqrt()
        row.div_(torch.where(norm == 0, torch.ones_like(norm), norm))
    return rows.T
