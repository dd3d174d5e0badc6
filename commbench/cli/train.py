"""`commbench train`: the main job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commbench.cli.options import (
    MOST_SEED,
    MOST_THREADS,
    Number,
    augment_on_option,
    cluster_option,
    exchange_options,
    loaders_option,
    output_options,
    take_topology_options,
    take_transport,
)

if TYPE_CHECKING:
    from commbench.network.cluster import Cluster
    from commbench.trainer import Outcome

_BATCH = 64


@click.command("train")
@click.option(
    "--model",
    default="nin",
    show_default=True,
    help="The network, NAME[@option=value...], such as alexnet@groups=2; "
    "`commbench info --models` lists them.",
)
@click.option(
    "--exchange",
    default="tree",
    show_default=True,
    help="How gradients are summed: NAME[@option=value...], by size tree:64K:ring, or auto (see "
    "`commbench tune`); `commbench info` lists them.",
)
@click.option(
    "--data",
    help="fashion-mnist-subset (shipped: 10,000 training and 2,000 test images), fashion-mnist "
    "(all 70,000, from Debian's dataset-fashion-mnist or --data-folder), synthetic (images, text "
    "or frames, as the model takes), or a path: a folder as ImageNet's, NAME.lmdb or NAME.h5 of "
    "`commbench data pack`, or a folder with ptb.train.txt and ptb.test.txt. [default: "
    "fashion-mnist-subset; synthetic where the model takes no images]",
)
@click.option(
    "--data-folder",
    type=click.Path(path_type=Path),
    help="Folder of the four idx files for --data fashion-mnist.",
)
@click.option(
    "--augment",
    default="caffe",
    show_default=True,
    metavar="NAME",
    help="What is done to pictures from --data PATH: caffe (random crop, flip), alexnet (and "
    "lighting), goyal (crop of random area, flip, divided by the deviation), fb-resnet (and colour "
    "jitter and lighting) or none.",
)
@augment_on_option
@loaders_option
@click.option(
    "--max-corrupt",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="So many pictures of --data PATH may be unreadable; the next one stands in for each.",
)
@click.option(
    "--classes",
    type=click.IntRange(min=2),
    help="Width of the classifier; of a language model, the vocabulary. With 1000 NiN is the "
    "published network with its real gradient, 30.4 MB; its last ReLU lets single classes of a "
    "narrow one die early on. [default: as published]",
)
@click.option(
    "--image-size",
    type=click.IntRange(min=1),
    help="Side of the images in pixels, scaled up or down; most papers use 224. "
    "[default: 48, and 28 for lstm-mnist]",
)
@click.option(
    "--width",
    type=Number(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Multiplies the channels of all layers but the last, to fit a model to a laptop.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    help="Global batch: images per step over all workers; where the recipe lets it grow, at the "
    "start. [default: 64, or the number of ranks where that is more]",
)
@click.option(
    "--epochs",
    type=Number(min=0, min_open=True),
    default=6.0,
    show_default=True,
    help="Passes over the training images.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Length in steps, instead of --epochs.")
@click.option(
    "--recipe",
    default="firecaffe-nin",
    show_default=True,
    help="Preset (`commbench recipe` lists them), or a TOML file: optimizer, learning rate by "
    "batch and step, momentum, weight decay. Its schedule is scaled to the length of the run. "
    "NAME@key=value changes a key, such as @optimizer.nesterov=false; @warmup= drops one.",
)
@click.option(
    "--lr",
    type=Number(min=0, min_open=True),
    help="Peak learning rate. [default: the recipe's own for this batch; 0.001 of the FireCaffe "
    "recipes, ours, for runs of a few epochs on small images]",
)
@click.option(
    "--recipe-lr",
    is_flag=True,
    help="Take the recipe's own learning rate for this batch in any case. On short runs with small "
    "images FireCaffe's may stall, depending on the seed.",
)
@click.option(
    "--label-smoothing",
    type=Number(min=0, max=1, max_open=True),
    help="Share of the target that all classes get alike. [default: the recipe's]",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Of the forward and backward pass; weights, exchange and optimizer stay in float32. "
    "[default: the recipe's]",
)
@click.option(
    "--loss-scale",
    type=Number(min=0, min_open=True),
    help="Fixed factor of the loss in float16. [default: the recipe's, or a dynamic one]",
)
@click.option(
    "--accumulate",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Compute each worker's share of a batch in N parts, for less memory; one exchange a step.",
)
@click.option(
    "--fusion-bytes",
    metavar="SIZE",
    help="Gradients are exchanged in buckets, last layer first; one is closed once it has so many "
    "bytes. none: a bucket for each tensor; all: one bucket. [default: 4M]",
)
@click.option(
    "--fusion-split",
    type=click.IntRange(min=1),
    metavar="N",
    help="Two buckets instead, as Jia et al.: the model's first N tensors, and those after them, "
    "which backward finishes first.",
)
@click.option(
    "--overlap/--no-overlap",
    default=True,
    show_default=True,
    help="Exchange a bucket as soon as backward has filled it, on a thread of its own; or all "
    "after it, as FireCaffe.",
)
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write what every rank does when, as JSON for Perfetto or chrome://tracing.",
)
@click.option(
    "--trace-steps",
    default="11:20",
    show_default=True,
    metavar="FIRST:LAST",
    help="The steps in it; the last ones of a shorter run.",
)
@click.option(
    "--tensorboard",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write scalars for TensorBoard into a folder of the run's own in this one.",
)
@click.option(
    "--mllog",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the lines of an MLPerf Training log, by the package mlperf-logging.",
)
@click.option("--seed", type=click.IntRange(0, MOST_SEED), default=1, show_default=True)
@click.option(
    "--evaluate-every",
    type=Number(min=0, min_open=True),
    default=1.0,
    show_default=True,
    metavar="EPOCHS",
    help="Measure top-1 and top-5 on the test images this often, and at the end.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, MOST_THREADS),
    help="CPU threads of each rank. [default: OMP_NUM_THREADS, or the cores shared out]",
)
@click.option(
    "--staleness",
    metavar="STEPS",
    help="ps-async: a worker may begin step t when every worker's gradient of step t-1-STEPS has "
    "been applied; inf does not bound it. [default: 1]",
)
@click.option(
    "--wire",
    default="float32",
    show_default=True,
    metavar="FORMAT",
    help="The form in which gradients travel: float32, float16, bfloat16, topk:F (the fraction F "
    "of entries that are largest, the others later) or powersgd:R (matrices of rank R).",
)
@click.option(
    "--warm-start",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="Whether each node imports once and forks its ranks, which saves time and memory. auto "
    "does where a node has 16 ranks or more, and more than cores, on Linux without --device cuda.",
)
@click.option(
    "--share-weights",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="Whether the ranks of a node have weights and momentum in common, updated by one of them: "
    "the same bits with less memory. auto does where weights, gradients and momentum of all would "
    "take over a quarter of the node's memory.",
)
@output_options
@click.option(
    "--progress",
    type=click.Choice(["auto", "bar", "lines", "none"]),
    default="auto",
    show_default=True,
    help="A bar on a terminal, lines elsewhere; mpirun usually hides its terminal, so ask for it.",
)
@cluster_option
@exchange_options
def command(**options: Any) -> None:
    """Train a network on all ranks and record accuracy and the time of every phase.

    \b
      mpirun -n 4 commbench train --model nin --exchange tree

    trains NiN for six epochs on the shipped Fashion-MNIST subset: some three minutes on two
    cores.
    Each rank computes the gradient of its share of every batch, the exchange adds the gradients up,
    and all ranks take the same step. The same seed gives bitwise the same weights on every rank and
    in every run with the same exchange and ranks.
    """
    from commbench.job import mpi_job
    from commbench.network.predicted import cluster_of
    from commbench.registry import parse_exchange
    from commbench.tune import resolve_auto
    from commbench.units import Window
    from commbench.wire import parse_wire

    given = take_topology_options(options)
    options["transport"] = take_transport(options)
    if (staleness := options.pop("staleness")) is not None:
        given["staleness"] = staleness
    spec, tuning = options.pop("exchange"), options.pop("tuning")
    wire = parse_wire(options.pop("wire"))
    window = Window.parse(options.pop("trace_steps"))
    timeout_s, cluster = options.pop("timeout"), options.pop("cluster")
    del options["warm_start"]  # settled before anything was imported, in commbench/start.py
    with mpi_job(timeout_s) as job:
        from commbench.course import Settings
        from commbench.trainer import train

        options["batch"] = options["batch"] or max(_BATCH, job.size)
        spec = resolve_auto(
            job,
            spec,
            tuning,
            device=options["device"],
            dtype=wire.dtype,
            transport=options["transport"],
        )
        nodes = job.nodes()
        exchange = job.agree(lambda: parse_exchange(spec, given).placed(nodes))
        priced = job.agree(lambda: cluster_of(cluster, job.size))
        outcome = train(
            job,
            Settings(
                exchange=exchange, wire=wire, trace_steps=window, timeout_s=timeout_s, **options
            ),
        )
        if outcome and options["progress"] != "none":
            _print(outcome, priced)


def _print(outcome: Outcome, priced: Cluster | None) -> None:
    """The end of the run in a few lines."""
    import numpy as np

    rates = np.array(outcome.images_per_s)
    # The first step pays for memory and for peers that are still starting.
    rates = rates[1:] if len(rates) > 1 else rates
    jitter = 1.4826 * np.median(np.abs(rates - np.median(rates)))
    error = rates.std() / np.sqrt(len(rates))
    total = sum(outcome.phase_s.values())
    phases = ", ".join(
        f"{name} {seconds * 1e3:.1f} ms ({seconds / total:.0%})"
        for name, seconds in outcome.phase_s.items()
    )
    print(f"top-1 {outcome.top1:.2%}, top-5 {outcome.top5:.2%}, last loss {outcome.loss:.4f}")
    print(f"a step, mean over workers: {phases}")
    print(f"images/sec: {rates.mean():.1f} +/- {error:.1f} (jitter = {jitter:.1f})")
    print(f"training took {outcome.train_s:.1f} s, evaluations apart")
    if outcome.told:
        print(outcome.told)
    if priced:
        from commbench.network.predicted import step_line

        print(step_line(outcome.path, priced))
    print(f"run file: {outcome.path}")
    print(f"          commbench info {outcome.path}")
    sys.stdout.flush()
