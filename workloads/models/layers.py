"""Layers with weights from a generator of their own, by Caffe's fillers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

Filler = Callable[[torch.Tensor, torch.Generator | None], object]
"""Draws a weight `(out, ...)` in place; its fan-in is the length of `weight[0]`."""


def gaussian(std: float) -> Filler:
    """N(0, std^2)."""
    return lambda weight, generator: weight.normal_(0.0, std, generator=generator)


def uniform(bound: float) -> Filler:
    """U(-bound, bound)."""
    return lambda weight, generator: weight.uniform_(-bound, bound, generator=generator)


def xavier(weight: torch.Tensor, generator: torch.Generator | None) -> object:
    """Caffe's "xavier": U(-a, a), a = sqrt(3 / fan_in), without the fan-out of Glorot's paper."""
    bound = math.sqrt(3.0 / weight[0].numel())
    return weight.uniform_(-bound, bound, generator=generator)


def msra(weight: torch.Tensor, generator: torch.Generator | None) -> object:
    """Caffe's "msra": N(0, 2 / fan_in). Source: He et al., "Delving deep into rectifiers"."""
    return weight.normal_(0.0, math.sqrt(2.0 / weight[0].numel()), generator=generator)


def msra_out(weight: torch.Tensor, generator: torch.Generator | None) -> object:
    """The same with the fan-out, for convolutions, as fb.resnet.torch has it."""
    fan_out = weight.shape[0] * weight[0, 0].numel()
    return weight.normal_(0.0, math.sqrt(2.0 / fan_out), generator=generator)


def scaled(channels: int, width: float, multiple: int = 1) -> int:
    """Channels times `width`, rounded to a positive multiple of `multiple`."""
    return multiple * max(1, round(channels * width / multiple))


class Undrawn(TorchFunctionMode):
    """Within it nothing is drawn: tensors keep what their memory holds, which costs no time.

    For a model that is to get another's weights; all that is not drawn is as always.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Calls `func`, unless it draws."""
        if func in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


class LocalResponseNorm(nn.LocalResponseNorm):
    """torch's, in float32 at least: float16 has no squares of activations above 256."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalises `(b, c, h, w)`."""
        return super().forward(x.float() if x.dtype.itemsize < 4 else x)


def lrn() -> LocalResponseNorm:
    """AlexNet's, over five channels; like Caffe's, torch divides alpha by them."""
    return LocalResponseNorm(5, 1e-4, 0.75, 1.0)


class Layers:
    """Makes layers one after another; their weights depend on the generator and the order alone."""

    def __init__(self, generator: torch.Generator | None) -> None:
        """Draws from `generator`; without one, layers have shapes and no values (meta device)."""
        self.generator = generator
        self.device = "meta" if generator is None else "cpu"

    def conv(
        self,
        channels: int,
        out: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        *,
        groups: int = 1,
        fill: Filler,
        bias: float | None = 0.0,
    ) -> nn.Conv2d:
        """A convolution; its biases start at `bias`, None for none."""
        conv = self._bare(
            nn.Conv2d,
            *(channels, out, kernel, stride, padding),
            groups=groups,
            bias=bias is not None,
        )
        return cast("nn.Conv2d", self._filled(conv, fill, bias))

    def dense(
        self, features: int, out: int, *, fill: Filler, bias: float | Filler = 0.0
    ) -> nn.Linear:
        """A dense layer; its biases start at `bias`, or are drawn."""
        dense = self._bare(nn.Linear, features, out)
        return cast("nn.Linear", self._filled(dense, fill, bias))

    def norm(
        self, channels: int, *, eps: float = 1e-5, affine: bool = True, gamma: float = 1.0
    ) -> nn.BatchNorm2d:
        """Batch normalisation; the running statistics keep 0.9 of themselves at each step.

        In training every rank normalises by its own share of the batch, as in the papers.
        """
        norm = nn.BatchNorm2d(channels, eps=eps, affine=affine, device=self.device)
        if affine:
            nn.init.constant_(norm.weight, gamma)
        return norm

    def draw(self, shape: tuple[int, ...], fill: Filler) -> nn.Parameter:
        """A parameter by itself."""
        weight = torch.empty(shape, device=self.device)
        fill(weight, self.generator)
        return nn.Parameter(weight)

    def embedding(self, words: int, features: int, fill: Filler) -> nn.Embedding:
        """A table of `(words, features)`."""
        return cast("nn.Embedding", self._filled(self._bare(nn.Embedding, words, features), fill))

    def _bare(self, kind: type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
        # skip_init: torch's default initialisation would draw from the global generator.
        bare = nn.utils.skip_init(kind, *args, device=self.device, **kwargs)  # type: ignore[no-untyped-call]
        return cast("nn.Module", bare)

    @torch.no_grad()
    def _filled(
        self, module: nn.Module, fill: Filler, bias: float | Filler | None = None
    ) -> nn.Module:
        fill(module.get_parameter("weight"), self.generator)
        if callable(bias):
            bias(module.get_parameter("bias"), self.generator)
        elif bias is not None:
            module.get_parameter("bias").fill_(bias)
        return module
