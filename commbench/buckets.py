"""Gradients in flat buckets: an exchange sums one contiguous buffer, not two dozen tensors.

All gradients lie side by side in one buffer, last layer first as backward finishes them, and a
bucket is a part of it. Few large buckets cost few messages; many small ones are ready early, and
are exchanged while backward goes on. Sources: Li et al., "PyTorch distributed" (VLDB 2020), section
3.2.2, for buckets by size; Jia et al., "Highly scalable deep learning training system with mixed
precision" (2018), section 3.3, for AlexNet's two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch

from commbench.errors import UserError
from commbench.units import Bytes

DEFAULT_FUSION = "4M"


@dataclass(frozen=True)
class Fusion:
    """Which gradients travel together.

    Attributes:
        nbytes: a bucket is closed once it has so many; 0 for a bucket of each tensor, None for one
            bucket of all.
        first: two buckets instead: the first so many of the model's tensors, and before them, as
            backward comes to them, all others; None for buckets by size.
    """

    nbytes: int | None = None
    first: int | None = None

    @property
    def spec(self) -> str | None:
        """What `--fusion-bytes` says for it; None of a split."""
        if self.first is not None:
            return None
        return "all" if self.nbytes is None else str(Bytes(self.nbytes)) if self.nbytes else "none"

    def cut(self, sizes: Sequence[int]) -> list[int]:
        """How many tensors each bucket has.

        Args:
            sizes: bytes of the tensors' gradients, as backward finishes them.

        Raises:
            UserError: a split that leaves nothing on one side.
        """
        if self.first is not None:
            if not 0 < self.first < len(sizes):
                raise UserError(
                    f"--fusion-split {self.first}: the model has {len(sizes)} tensors; give a "
                    f"number from 1 to {len(sizes) - 1}"
                )
            return [len(sizes) - self.first, self.first]
        counts, gathered = [0], 0
        for size in sizes:
            if counts[-1] and self.nbytes is not None and gathered >= self.nbytes:
                counts.append(0)
                gathered = 0
            counts[-1] += 1
            gathered += size
        return counts


def parse_fusion(nbytes: str | None, split: int | None) -> Fusion:
    """What `--fusion-bytes` and `--fusion-split` ask for.

    Raises:
        UserError: both are given, or no size.
    """
    if split is not None:
        if nbytes is not None:
            raise UserError("--fusion-bytes and --fusion-split: give one of the two")
        return Fusion(first=split)
    nbytes = nbytes or DEFAULT_FUSION
    if nbytes == "all":
        return Fusion()
    if nbytes == "none":
        return Fusion(nbytes=0)
    try:
        return Fusion(nbytes=Bytes(nbytes))
    except ValueError as error:
        raise UserError(
            f"--fusion-bytes {nbytes}: give a size such as 16M, none (a bucket for each tensor) or "
            "all (one bucket)"
        ) from error


WHOLE = Fusion()
"""One bucket."""


@dataclass(frozen=True, eq=False)
class Bucket:
    """Parameters whose gradients are exchanged together.

    Attributes:
        parameters: in the order in which their gradients lie in the bucket.
        start, stop: where it lies in the buffer of all gradients, in elements.
    """

    parameters: tuple[torch.nn.Parameter, ...]
    start: int
    stop: int

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The parameters' shapes."""
        return [tuple(parameter.shape) for parameter in self.parameters]


class Gradients:
    """All gradients of a model, in one buffer.

    Backward brings each gradient in memory of its own, and it is copied into the buffer as it
    comes: two passes over it, where adding it to a buffer of zeros would take four. Those of later
    micro-batches are added there.

    Attributes:
        flat: ``(n,)`` float32, on the parameters' device; every ``.grad`` is a view of it.
        buckets: its parts, in order.
        gathers: whether gradients are brought together in the buffer. Where nothing is to be done
            with all of them, as in a job of one rank, they may stay where backward puts them.
    """

    def __init__(self, flat: torch.Tensor, buckets: tuple[Bucket, ...]) -> None:
        """Give every parameter its gradient, and see to those that come."""
        self.flat = flat
        self.buckets = buckets
        self.gathers = True
        self._views: dict[torch.nn.Parameter, torch.Tensor] = {}
        start = 0
        for parameter in self.parameters:
            stop = start + parameter.numel()
            parameter.grad = self._views[parameter] = flat[start:stop].view_as(parameter)
            parameter.register_post_accumulate_grad_hook(self._came)  # type: ignore[no-untyped-call]
            start = stop

    @property
    def parameters(self) -> tuple[torch.nn.Parameter, ...]:
        """In the order in which their gradients lie in the buffer."""
        return tuple(parameter for bucket in self.buckets for parameter in bucket.parameters)

    def clear(self) -> None:
        """Forget the gradients; backward brings new ones."""
        for parameter in self._views:
            parameter.grad = None

    def complete(self) -> None:
        """Set to zero the gradients of the parameters that backward did not come to."""
        for parameter, view in self._views.items():
            if parameter.grad is None:
                parameter.grad = view.zero_()

    @torch.no_grad()
    def _came(self, parameter: torch.nn.Parameter) -> None:
        view = self._views[parameter]
        if self.gathers and parameter.grad is not view:
            assert parameter.grad is not None
            parameter.grad = view.copy_(parameter.grad)


def plan_buckets(
    parameters: Iterable[torch.nn.Parameter], fusion: Fusion = WHOLE
) -> tuple[Bucket, ...]:
    """Cut a model's parameters into buckets, last layer first as backward finishes them.

    Args:
        parameters: of the model, in its order; those that are frozen are left out.
        fusion: which go together.

    Raises:
        UserError: as of `Fusion.cut`.
    """
    ordered = [parameter for parameter in parameters if parameter.requires_grad][::-1]
    counts = fusion.cut([4 * parameter.numel() for parameter in ordered])
    ends = [0, *accumulate(parameter.numel() for parameter in ordered)]
    return tuple(
        Bucket(tuple(ordered[first:last]), ends[first], ends[last])
        for first, last in pairwise([0, *accumulate(counts)])
    )


def lay_out(buckets: tuple[Bucket, ...], allocate: Callable[[int], torch.Tensor]) -> Gradients:
    """Give every parameter its gradient.

    Args:
        buckets: of `plan_buckets`.
        allocate: makes a float32 buffer of so many zeros, on the parameters' device.
    """
    return Gradients(allocate(buckets[-1].stop), buckets)
