"""`commbench advise`: which exchange a model should use on a cluster, from prices alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from commbench.cli.options import Number

if TYPE_CHECKING:
    from rich.table import Table

    from commbench.network.advice import Advice

_IMAGES = 32  # a rank's share of the batch, as in most papers
_ELEMENT_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@click.command("advise")
@click.option("--model", required=True, help="The network, NAME[@option=value...], as published.")
@click.option(
    "--cluster",
    "cluster_name",
    required=True,
    help="NAME of `commbench info --clusters`, or the path of a .toml file.",
)
@click.option("--ranks", type=click.IntRange(min=1), required=True, help="How many.")
@click.option(
    "--batch-size",
    "--batch",
    "batch",
    type=click.IntRange(min=1),
    help="Global batch. [default: 32 images a rank]",
)
@click.option(
    "--images-per-s",
    type=Number(min=0, min_open=True),
    help="What a rank computes alone. [default: as the cluster's file tells]",
)
@click.option(
    "--exchange",
    "exchanges",
    help="Only these, a,b,c. [default: all, and the hierarchical ones of the nodes]",
)
@click.option(
    "--fusion-bytes",
    metavar="BYTES|none|all",
    help="Buckets as of `commbench train`. [default: what suits each exchange best]",
)
@click.option(
    "--wire",
    type=click.Choice(list(_ELEMENT_BYTES)),
    default="float32",
    show_default=True,
    help="How gradients travel.",
)
@click.option("--no-overlap", is_flag=True, help="Exchange when backward is over, as FireCaffe.")
@click.option("--verbose", "-v", is_flag=True, help="Tell all exchanges, not the best alone.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    *,
    model: str,
    cluster_name: str,
    ranks: int,
    batch: int | None,
    verbose: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Tell which exchange trains MODEL fastest on CLUSTER, how fast, and why.

    \b
      commbench advise --model resnet50 --cluster big-basin --ranks 256

    Nothing is run: every exchange's schedule is priced on the cluster's links, and what backward
    hides is taken off. docs/CLUSTERS.md tells the rules, and what they leave out.
    """
    share = (batch or _IMAGES * ranks) / ranks
    advice = _advice(model, cluster_name, ranks, share, **options)
    if as_json:
        facts = {"model": model, "cluster": cluster_name, "ranks": ranks, "batch": share * ranks}
        click.echo(json.dumps({**facts, **_as_dict(advice)}, indent=2))
        return
    click.echo(f"{_line(advice)}: {advice.reason}")
    if verbose:
        _print(advice, f"{model} on {ranks} ranks of {cluster_name}, {share:g} images each")


def _advice(
    model: str,
    cluster_name: str,
    ranks: int,
    share: float,
    *,
    images_per_s: float | None,
    exchanges: str | None,
    fusion_bytes: str | None,
    wire: str,
    no_overlap: bool,
) -> Advice:
    from commbench.buckets import parse_fusion
    from commbench.network.advice import FUSIONS, Training, advise, candidates
    from commbench.network.cluster import load_cluster
    from commbench.network.iteration import Compute, model_loads, rank_compute
    from commbench.registry import parse_exchanges
    from commbench.workloads.models import build_model, parse_model

    cluster = load_cluster(cluster_name)
    cluster.nodes(ranks)
    parse_model(model)
    given = [choice.spec for choice in parse_exchanges(exchanges)] if exchanges is not None else []
    fusions = {
        one: parse_fusion(one, None) for one in ([fusion_bytes] if fusion_bytes else FUSIONS)
    }
    compute = (
        Compute.of(share / images_per_s, f"{images_per_s:g} images/s a rank, as given")
        if images_per_s
        else rank_compute(cluster, model, share)
    )
    built = build_model(model, seed=None)
    loads = {
        name: model_loads(built, fusion, _ELEMENT_BYTES[wire]) for name, fusion in fusions.items()
    }
    training = Training(ranks, cluster, compute, loads, overlap=not no_overlap)
    return advise(given or candidates(ranks, cluster), training)


def _line(advice: Advice) -> str:
    best = advice.options[0]
    return (
        f"{best.exchange} --fusion-bytes {best.fusion}: {best.iteration.seconds:.4g} s an "
        f"iteration, {best.iteration.efficiency:.1%} efficient"
    )


def _as_dict(advice: Advice) -> dict[str, Any]:
    from dataclasses import asdict

    options = [
        {
            **asdict(option),
            "seconds": option.iteration.seconds,
            "exposed_s": option.iteration.exposed_s,
            "efficiency": option.iteration.efficiency,
        }
        for option in advice.options
    ]
    return {
        "best": advice.options[0].exchange,
        "reason": advice.reason,
        "gradient_bytes": advice.gradient_bytes,
        "compute": asdict(advice.compute),
        "options": options,
        "refused": list(advice.refused),
    }


def _print(advice: Advice, title: str) -> None:
    from rich.console import Console

    console = Console(width=160, highlight=False)
    console.print(f"{title}: {advice.compute.how}", markup=False)
    console.print(_table(advice))
    for reason in advice.refused:
        console.print(f"left out: {reason}", markup=False)


def _table(advice: Advice) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    table.add_column("exchange", no_wrap=True)
    for heading in ("s/iteration", "efficiency", "exposed", "fusion", "buckets", "messages", "x n"):
        table.add_column(heading, justify="right", no_wrap=True)
    for option in advice.options:
        iteration = option.iteration
        table.add_row(
            Text(option.exchange),
            f"{iteration.seconds:.4g}",
            f"{iteration.efficiency:.1%}",
            f"{1e3 * iteration.exposed_s:.3g} ms",
            option.fusion,
            str(option.buckets),
            f"{option.whole.alpha_count:,}",
            f"{option.whole.beta_bytes / advice.gradient_bytes:.3g}",
        )
    return table
