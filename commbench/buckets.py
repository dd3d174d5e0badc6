"""Gradients in flat buckets: an exchange sums one contiguous buffer, not two dozen tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class Bucket:
    """Some parameters whose gradients lie side by side in one buffer.

    Attributes:
        gradient: ``(n,)`` float32, on the parameters' device; every ``.grad`` is a view of it.
        parameters: in the order in which they lie there.
    """

    gradient: torch.Tensor
    parameters: tuple[torch.nn.Parameter, ...]

    @property
    def nbytes(self) -> int:
        """Size of the buffer."""
        return self.gradient.numel() * self.gradient.element_size()

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The parameters' shapes, in the same order."""
        return [tuple(parameter.shape) for parameter in self.parameters]

    def clear(self) -> None:
        """Set every gradient to zero and make sure that it is a view of the buffer."""
        self.gradient.zero_()
        start = 0
        for parameter in self.parameters:
            stop = start + parameter.numel()
            parameter.grad = self.gradient[start:stop].view_as(parameter)
            start = stop


def exchanged(parameters: Iterable[torch.nn.Parameter]) -> tuple[torch.nn.Parameter, ...]:
    """The parameters that have a gradient, last layer first as backward finishes them."""
    return tuple(reversed([p for p in parameters if p.requires_grad]))


def single_bucket(
    parameters: Iterable[torch.nn.Parameter], allocate: Callable[[int], torch.Tensor]
) -> Bucket:
    """All parameters in one bucket, last layer first as backward finishes them.

    One exchange after backward is FireCaffe's way (Iandola et al., CVPR 2016, section 4).

    Args:
        parameters: of the model, in its order.
        allocate: makes a float32 buffer of so many elements, on the parameters' device.
    """
    ordered = exchanged(parameters)
    count = sum(parameter.numel() for parameter in ordered)
    bucket = Bucket(allocate(count), ordered)
    bucket.clear()
    return bucket
