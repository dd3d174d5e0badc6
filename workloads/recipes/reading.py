"""Recipes from TOML files, every key checked, single ones changed on the way."""

from __future__ import annotations

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from commbench import spec
from commbench.errors import UserError
from commbench.toml_table import Table, read_toml
from commbench.workloads.recipes.rates import DECAYS, WARMUPS, Decay, Growth, Warmup
from commbench.workloads.recipes.recipe import (
    IMAGENET_IMAGES,
    PRECISIONS,
    OptimizerSettings,
    Recipe,
)
from commbench.workloads.recipes.scaling import RULES

_FOLDER = Path(__file__).parent
_OPTIMIZERS = ("caffe-sgd", "sgd", "lars", "lars-clip", "rmsprop-sgd", "adam")


def recipe_names() -> list[str]:
    """Names of the recipes shipped with commbench, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_recipe(text: str) -> Recipe:
    """Reads a shipped recipe by name, or any recipe by the path of its TOML file.

    Args:
        text: the name or path, and keys to change: ``goyal-resnet50@warmup.kind=constant``, with
            nothing after the = to drop a key or a table. Anything ending in `.toml` or holding a
            path separator is a path; in it, a backslash stands before each @.

    Raises:
        UserError: for an unknown name, an unreadable file, or an unknown key, a missing key or an
            impossible value in it; the line names file, key and choices.
    """
    name_or_path, changes = spec.split("--recipe", text)
    if name_or_path.endswith(".toml") or os.sep in name_or_path:
        path = Path(name_or_path)
    elif name_or_path in recipe_names():
        path = _FOLDER / f"{name_or_path}.toml"
    else:
        raise UserError(
            f"unknown recipe {name_or_path!r}: choose from {', '.join(recipe_names())}, "
            "or give the path of a .toml file"
        )
    table = read_toml(path, "recipe")
    for key, value in changes.items():
        table.change(key, value)
    return _recipe(spec.join(path.stem, changes), table)


def _recipe(name: str, table: Table) -> Recipe:
    # A run counted in epochs has its places in epochs, one counted in steps in steps.
    unit = "steps" if table.has("reference_steps") else "epochs"
    if unit == "steps" and table.has("reference_epochs"):
        raise table.refusal("reference_epochs", "stand alone: drop it, or drop reference_steps")
    length = table.length(f"reference_{unit}")
    recipe = Recipe(
        name=name,
        description=table.text("description", default=name),
        reference_batch=table.whole("reference_batch", at_least=1),
        reference_lr=table.number("reference_lr", above=0.0),
        reference_length=length,
        unit=unit,
        images=table.whole("reference_images", at_least=1, default=IMAGENET_IMAGES),
        lr_scaling=table.choice("lr_scaling", list(RULES)),
        momentum=table.number("momentum", at_least=0.0, below=1.0),
        weight_decay=table.number("weight_decay", at_least=0.0),
        bias_lr_multiplier=table.number("bias_lr_multiplier", at_least=0.0, default=1.0),
        bias_decay_multiplier=table.number("bias_decay_multiplier", at_least=0.0, default=1.0),
        norm_lr_multiplier=_multiplier(table, "norm_lr_multiplier"),
        norm_decay_multiplier=_multiplier(table, "norm_decay_multiplier"),
        optimizer=_optimizer(table),
        warmup=_warmup(table, unit),
        decay=_decay(table.table("schedule"), length),
        growth=_growth(table, length),
        label_smoothing=table.number("label_smoothing", at_least=0.0, below=1.0, default=0.0),
        clip_norm=table.number("clip_norm", above=0.0) if table.has("clip_norm") else None,
        precision=table.choice("precision", PRECISIONS, default="float32"),
        loss_scale=_loss_scale(table),
        laptop_lr=table.number("laptop_lr", above=0.0) if table.has("laptop_lr") else None,
        ours=table.words("ours"),
    )
    table.finish()
    return recipe


def _multiplier(table: Table, key: str) -> float | None:
    return table.number(key, at_least=0.0) if table.has(key) else None


def _loss_scale(table: Table) -> float | str:
    if table.is_text("loss_scale"):
        return table.choice("loss_scale", ["dynamic"])
    return table.number("loss_scale", above=0.0) if table.has("loss_scale") else "dynamic"


def _optimizer(parent: Table) -> OptimizerSettings:
    if not parent.has("optimizer"):
        return OptimizerSettings()
    table, default = parent.table("optimizer"), OptimizerSettings()
    kind = table.choice("kind", _OPTIMIZERS)
    settings = OptimizerSettings(kind=kind)
    if kind == "sgd":
        settings = replace(settings, nesterov=table.flag("nesterov", default=False))
    if kind in ("caffe-sgd", "lars", "lars-clip"):
        corrects = table.flag("momentum_correction", default=False)
        settings = replace(settings, momentum_correction=corrects)
    if kind in ("lars", "lars-clip"):
        settings = replace(
            settings,
            trust=table.number("trust", above=0.0, default=default.trust),
            trust_decay=table.flag("trust_decay", default=True),
            skip=table.words("skip", ["bias", "norm"]),
        )
    if kind == "rmsprop-sgd":
        settings = replace(
            settings,
            center=table.length("center", default=default.center),
            period=table.length("period", default=default.period),
            rms_lr=table.number("rms_lr", above=0.0, default=default.rms_lr),
            beta2=table.number("beta2", at_least=0.0, below=1.0, default=default.beta2),
            eps=table.number("eps", above=0.0, default=default.eps),
        )
    if kind == "adam":
        settings = replace(
            settings,
            beta2=table.number("beta2", at_least=0.0, below=1.0, default=0.999),
            eps=table.number("eps", above=0.0, default=default.eps),
        )
    table.finish()
    if settings.nesterov and not parent.number("momentum", default=0.0):
        raise table.refusal("nesterov", "be false without momentum")
    return settings


def _warmup(parent: Table, unit: str) -> Warmup:
    if not parent.has("warmup"):
        return Warmup()
    table = parent.table("warmup")
    kind = table.choice("kind", WARMUPS)
    warmup = Warmup(
        kind=kind,
        length=table.length(unit),
        start_lr=table.number("start_lr", at_least=0.0),
        scaling=table.choice("scaling", list(RULES), default="none"),
    )
    table.finish()
    return warmup


def _decay(table: Table, length: Fraction) -> Decay:
    kind = table.choice("kind", DECAYS)
    counts_from = table.choice("counts_from", ["start", "warmup"], default="start")
    if kind in ("step", "exponential"):
        decay = Decay(
            kind,
            every=table.length("every"),
            factor=table.number("factor", above=0.0),
            counts_from=counts_from,
        )
    elif kind == "multistep":
        decay = Decay(
            kind,
            at=table.increasing("at", below=length),
            factor=table.number("factor", above=0.0),
            counts_from=counts_from,
        )
    elif kind == "piecewise":
        at = table.increasing("at", below=length)
        factors = table.positive("factors", count=len(at) + 1)
        decay = Decay(kind, at=at, factors=factors, counts_from=counts_from)
    elif kind == "polynomial":
        decay = Decay(kind, power=table.number("power", above=0.0), counts_from=counts_from)
    else:
        decay = Decay(kind, counts_from=counts_from)
    table.finish()
    return decay


def _growth(parent: Table, length: Fraction) -> Growth:
    if not parent.has("batch"):
        return Growth()
    table = parent.table("batch")
    growth = Growth(table.increasing("at", below=length), table.whole("factor", at_least=2))
    table.finish()
    return growth
