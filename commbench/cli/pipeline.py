"""`commbench pipeline`: how fast each stage of the input is, and whether training waits for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commbench.cli.options import (
    MOST_SEED,
    MOST_THREADS,
    Number,
    augment_on_option,
    loaders_option,
    output_options,
    timeout_option,
)
from commbench.errors import UserError
from commbench.launcher import launched_size

if TYPE_CHECKING:
    from rich.table import Table

    from commbench.pipeline.roofline import Roofline


def _batches(_: click.Context, __: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        found = tuple(sorted({int(one) for one in text.split(",")}))
    except ValueError:
        found = (0,)
    if found[0] < 1:
        raise click.BadParameter(f"{text}: give numbers of samples with commas between")
    return found


@click.command("pipeline")
@click.option("--model", default="resnet50", show_default=True, help="As of `commbench train`.")
@click.option(
    "--data",
    help="As of `commbench train`: a folder as ImageNet's, NAME.lmdb, NAME.h5, or data in memory, "
    "of which nothing is read or decoded. [default: the model's]",
)
@click.option("--data-folder", type=click.Path(path_type=Path), help="As of `commbench train`.")
@click.option("--augment", default="goyal", show_default=True, metavar="NAME", help="As of train.")
@augment_on_option
@loaders_option
@click.option("--max-corrupt", type=click.IntRange(min=0), default=20, show_default=True)
@click.option("--classes", type=click.IntRange(min=2), help="As of `commbench train`.")
@click.option(
    "--image-size",
    type=click.IntRange(min=1),
    help="Side of the inputs in pixels. [default: the model's for a laptop; most papers use 224]",
)
@click.option(
    "--width",
    type=Number(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Multiplies the channels of all layers but the last.",
)
@click.option(
    "--batch-size",
    default="32,64,128",
    show_default=True,
    callback=_batches,
    metavar="N,N,...",
    help="Samples of a training step; the input is timed with the smallest.",
)
@click.option("--recipe", default="firecaffe-nin", show_default=True, help="For its optimizer.")
@click.option("--threads", type=click.IntRange(1, MOST_THREADS), help="CPU threads of training.")
@click.option(
    "--seconds",
    type=Number(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="About how long to measure, all stages together; three rounds at least.",
)
@click.option("--seed", type=click.IntRange(0, MOST_SEED), default=1, show_default=True)
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True,
    help="Where the model is trained.",
)  # fmt: skip
@timeout_option("Longest wait for a batch.")
@output_options
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The figure, PNG or SVG. [default: beside the run file, .png]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def command(plot: Path | None, as_json: bool, **options: Any) -> None:
    """Time reading, decoding, augmenting and training, and tell what bounds a run.

    \b
      commbench pipeline --data imagenet.lmdb --model resnet50 --image-size 224 --device cuda

    One process, its loaders and its device; the stages take turns, and every sample is kept in a
    run file. The figure is a roofline: the rates of the input as lines over the training's by batch
    size. Files that were read before come from the system's memory, as in a second epoch.
    """
    if launched_size() > 1:
        raise UserError("commbench pipeline times one process: start it without mpirun")
    from commbench.figures import sheet

    if plot:
        sheet.check_target(plot, "--plot")
    from commbench.figures import roofline as panel
    from commbench.pipeline.measure import PipelineSettings, measure
    from commbench.pipeline.roofline import read_roofline

    options["batches"], options["timeout_s"] = options.pop("batch_size"), options.pop("timeout")
    path = measure(PipelineSettings(**options))
    measured = read_roofline(path)
    figure = plot or path.with_suffix(".png")
    sheet.write_row([lambda axes: panel.draw(axes, measured)], figure)
    if as_json:
        _print_json(measured, path, figure)
        return
    _print(measured)
    print(f"run file: {path}")
    print(f"figure: {figure}", flush=True)


def _print_json(measured: Roofline, path: Path, figure: Path) -> None:
    from dataclasses import asdict

    from commbench.record.reader import to_json

    training = [{**asdict(rate), "bound": measured.bound(rate)} for rate in measured.training]
    document = {
        "model": measured.facts["model"],
        "data": measured.facts["data"],
        "options": measured.facts["options"],
        "input": [asdict(rate) for rate in measured.inputs],
        "training": training,
        "slowest_input_stage": measured.slowest.stage,
        "run_file": os.fspath(path),
        "figure": os.fspath(figure),
    }
    print(to_json(document), flush=True)


def _print(measured: Roofline) -> None:
    from rich.console import Console

    # Piped into a file, a table is as wide as it needs to be.
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(_table(measured))
    for line in measured.told():
        console.print(line, markup=False)


def _table(measured: Roofline) -> Table:
    from rich.table import Table

    options = measured.facts["options"]
    table = Table(
        title=f"{measured.facts['model']}, {measured.facts['data_source']}, "
        f"{options['loaders']} loaders",
        title_justify="left",
        box=None,
    )
    table.add_column("stage", no_wrap=True)
    for heading in ("images/s", "95 %", "MB/s in"):
        table.add_column(heading, justify="right", no_wrap=True)
    for rate in (*measured.inputs, *measured.training):
        between = f"{rate.low:,.1f} to {rate.high:,.1f}" if rate.low else "too few rounds"
        name = f"{rate.stage}, batch {rate.batch}" if rate.batch else rate.stage
        table.add_row(name, f"{rate.images_per_s:,.1f}", between, f"{rate.mb_per_s:,.1f}")
    return table
