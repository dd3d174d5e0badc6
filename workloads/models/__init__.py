"""The models by name. Importing this module does not import torch; choosing a model does."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, cast

from commbench import spec as spec_text
from commbench.errors import UserError
from commbench.workloads.task import Task

if TYPE_CHECKING:
    import torch

    from commbench.workloads.models.network import Network

# Command-line name -> the options of its published variants, the default first. The module of that
# name has `build(task, width, generator, *, option...) -> Network` and either `TASK` or, where the
# task depends on the options, `task(option...)`.
_VARIANTS = {
    "alexnet": ("", "@groups=2", "@groups=2@variant=caffenet"),
    "alexnet-bn": ("", "@variant=v1", "@variant=jia", "@variant=jia-plain"),
    "googlenet": ("", "@auxiliary=off"),
    "lstm-mnist": ("",),
    "lstm-ptb": ("", "@size=medium", "@size=large"),
    "nin": ("",),
    "resnet50": ("", "@variant=v1"),
    "speech-mlp": ("",),
    "vgg19": ("",),
}


@dataclass(frozen=True)
class ModelChoice:
    """A model with its options, as chosen by the user.

    Attributes:
        name: of the model.
        options: the keyword arguments of `build` that were given.
        module: the file that defines it.
    """

    name: str
    options: Mapping[str, object]
    module: ModuleType

    @property
    def spec(self) -> str:
        """The text that chooses this model: ``alexnet@groups=2``."""
        return spec_text.join(self.name, self.options)

    @property
    def published(self) -> Task:
        """The task it was published for."""
        task = getattr(self.module, "TASK", None) or self.module.task(**self.options)
        return cast("Task", task)

    def task(self, classes: int | None, image_size: int | None) -> Task:
        """The published task with other classes or another image size.

        Raises:
            UserError: fewer than two classes, no pixel, or an image size for a model of no images.
        """
        task = self.published
        if classes is not None:
            if classes < 2:
                raise UserError(f"{classes} classes: a model needs at least 2")
            task = replace(task, classes=classes)
        if image_size is None:
            return task
        if task.kind != "images":
            raise UserError(
                f"image size {image_size}: {self.name} takes {task.kind} and no images: "
                "drop --image-size"
            )
        return replace(task, size=image_size)

    def build(self, task: Task, *, width: float, seed: int | None, drawn: bool = True) -> Network:
        """Builds it with its published initialisation, on the CPU, in float32, in training mode.

        Args:
            task: what for; its size and classes may differ from the published ones.
            width: multiplies the channels of every layer but the last.
            seed: the weights are a function of this number and the shapes alone; torch's global
                generator is neither read nor moved. None gives shapes without values, on the meta
                device.
            drawn: whether to draw weights; without, they may be any, until another model's are
                copied into them. What is not drawn has its values all the same.

        Raises:
            UserError: a size that the model cannot take, or a width that is not positive.
        """
        if not 0 < width < float("inf"):
            raise UserError(f"width {width}: must be a positive number")
        import torch

        generator: torch.Generator | None = None
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
        from commbench.workloads.models.layers import Undrawn

        with nullcontext() if drawn else Undrawn():
            model = self.module.build(task, width, generator, **self.options)
        return cast("Network", model)


def model_names() -> list[str]:
    """The names `parse_model` accepts, sorted."""
    return sorted(_VARIANTS)


def published_models() -> list[str]:
    """Every model and its published variants, each as `parse_model` takes it."""
    return [name + options for name in model_names() for options in _VARIANTS[name]]


def parse_model(spec: str) -> ModelChoice:
    """Reads ``alexnet``, or with options ``alexnet@groups=2``.

    Raises:
        UserError: unknown model, unknown option or impossible value.
    """
    name, given = spec_text.split("--model", spec)
    if name not in _VARIANTS:
        raise UserError(f"unknown model {name!r}: choose from {', '.join(model_names())}")
    module = importlib.import_module(f"commbench.workloads.models.{name.replace('-', '_')}")
    parameters = spec_text.keyword_options(module.build)
    return ModelChoice(name, spec_text.convert(f"model {name}", parameters, given), module)


def build_model(
    spec: str,
    *,
    classes: int | None = None,
    image_size: int | None = None,
    width: float = 1.0,
    seed: int | None,
) -> Network:
    """`parse_model` and `ModelChoice.build` in one, by default with the published sizes."""
    choice = parse_model(spec)
    return choice.build(choice.task(classes, image_size), width=width, seed=seed)
