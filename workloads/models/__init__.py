"""The models by name. Importing this module does not import torch; building a model does."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from commbench.errors import UserError

if TYPE_CHECKING:
    from torch import nn

# Command-line name -> module with `build(*, classes, image_size, generator) -> nn.Module`.
_MODULES = {
    "nin": "commbench.workloads.models.nin",
}


def model_names() -> list[str]:
    """The names `build_model` accepts, sorted."""
    return sorted(_MODULES)


def build_model(name: str, *, classes: int, image_size: int, seed: int) -> nn.Module:
    """Builds a model with its published initialisation, on the CPU, in float32.

    Args:
        name: one of `model_names()`.
        classes: width of the output, at least 2.
        image_size: side S in pixels of the square input `(b, 3, S, S)`.
        seed: the weights are a function of this number and the shapes alone; torch's global
            generator is neither read nor moved.

    Returns:
        A module from `(b, 3, S, S) float32` images (mean-subtracted, 0-255 range) to
        `(b, classes) float32` logits, in training mode.

    Raises:
        UserError: for an unknown name, fewer than two classes, or a size the model cannot take.
    """
    if name not in _MODULES:
        raise UserError(f"unknown model {name!r}: choose from {', '.join(model_names())}")
    if classes < 2:
        raise UserError(f"{classes} classes: a model needs at least 2")
    import torch

    module = importlib.import_module(_MODULES[name])
    generator = torch.Generator().manual_seed(seed)
    model = module.build(classes=classes, image_size=image_size, generator=generator)
    return cast("nn.Module", model)
