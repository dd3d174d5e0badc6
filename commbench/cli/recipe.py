"""`commbench recipe`: what the published settings come to at a batch."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commbench.cli.options import Number
from commbench.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from commbench.workloads.recipes.outline import Outline


@click.command("recipe")
@click.argument("name", default="list")
@click.option(
    "--batch-size",
    "--batch",
    "batch",
    type=click.IntRange(min=1),
    help="Global batch, at the start where it grows. [default: the recipe's reference batch]",
)
@click.option(
    "--epochs",
    type=Number(min=0, min_open=True),
    help="Length of the run. [default: the paper's]",
)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    help="Training samples in an epoch. [default: the paper's]",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw learning rate, batch and momentum over the epochs, as .png or .svg.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def command(name: str, plot: Path | None, as_json: bool, **numbers: Any) -> None:
    """Tell what recipe NAME comes to at a batch; without NAME, list the recipes.

    \b
      commbench recipe goyal-resnet50 --batch-size 8192 --plot goyal.png

    NAME may be the path of a TOML file; docs/RECIPES.md tells its keys. NAME@key=value changes one.
    """
    if name == "list":
        if plot or any(numbers.values()):
            raise UserError("name a recipe for --batch-size, --epochs, --images or --plot")
        _list(as_json)
        return
    from commbench.workloads.recipes import load_recipe
    from commbench.workloads.recipes.outline import outline

    recipe = load_recipe(name)
    if plot:
        from commbench.figures import sheet

        sheet.check_target(plot, "--plot")
    made = outline(
        recipe,
        batch=numbers["batch"] or recipe.reference_batch,
        epochs=numbers["epochs"] or recipe.epochs,
        images=numbers["images"] or recipe.images,
    )
    if plot:
        _draw(made, plot)
    facts = _facts(made)
    if as_json:
        moments = [asdict(moment) for moment in made.moments]
        click.echo(json.dumps({**facts, "moments": moments}, indent=2))
    else:
        _print(made, facts)


def _list(as_json: bool) -> None:
    from commbench.workloads.recipes import load_recipe, recipe_names

    told = {name: load_recipe(name).description for name in recipe_names()}
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    for name, description in told.items():
        click.echo(f"{name:20} {description}")


def _facts(made: Outline) -> dict[str, Any]:
    recipe, times = made.recipe, made.timetable
    facts: dict[str, Any] = {
        "recipe": recipe.name,
        "description": recipe.description,
        "epochs": float(times.epochs(times.total_steps)),
        "steps": times.total_steps,
        "warmup_steps": round(float(made.plan.warmup_steps), 1),
        "peak_lr": made.plan.base_lr,
        "lr_scaling": f"{recipe.lr_scaling}, {recipe.reference_lr:g} at {recipe.reference_batch}",
        "optimizer": recipe.optimizer.kind,
        "momentum": recipe.momentum,
        "weight_decay": recipe.weight_decay,
        "decays": _decays(made),
    }
    if recipe.label_smoothing:
        facts["label_smoothing"] = recipe.label_smoothing
    if recipe.clip_norm:
        facts["clip_norm"] = recipe.clip_norm
    if recipe.precision != "float32":
        facts["precision"] = f"{recipe.precision}, loss scale {recipe.loss_scale}"
    facts["ours"] = list(recipe.ours)
    return facts


def _decays(made: Outline) -> str:
    recipe = made.recipe
    if not recipe.weight_decay:
        return "nothing"
    kinds = ["weights"]
    kinds += ["biases"] if recipe.bias_decay_multiplier else []
    # By Caffe's rule gamma is a weight, and beta a bias.
    norm = recipe.norm_decay_multiplier
    kinds += ["normalisation"] if norm or (norm is None and recipe.bias_decay_multiplier) else []
    kinds += ["gamma"] if norm is None and not recipe.bias_decay_multiplier else []
    return ", ".join(kinds)


def _print(made: Outline, facts: dict[str, Any]) -> None:
    from rich.console import Console

    # Piped into a file, a table is as wide as it needs to be.
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(_table(facts))
    console.print()
    console.print(_moments(made))


def _table(facts: dict[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        text = ", ".join(value) or "-" if isinstance(value, list) else str(value)
        if isinstance(value, float):
            text = f"{value:.6g}"
        table.add_row(name.replace("_", " "), Text(text))
    return table


def _moments(made: Outline) -> Table:
    from rich.table import Table

    table = Table(box=None)
    table.add_column("")
    for heading in ("step", "epoch", "learning rate", "batch"):
        table.add_column(heading, justify="right", no_wrap=True)
    for moment in made.moments:
        numbers = (f"{moment.step:,}", f"{moment.epoch:.2f}", f"{moment.lr:.5g}")
        table.add_row(moment.what, *numbers, f"{moment.batch:,}")
    return table


def _draw(made: Outline, path: Path) -> None:
    from commbench.figures import recipe, sheet

    title = f"{made.recipe.name} at a batch of {made.timetable.batch(0):,}"
    sheet.write_column(recipe.panels(made.curves(), title), path)
