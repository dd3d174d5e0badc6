"""LEGW's LSTM from a batch of 128 to 8192: one recipe against fixed and linear rates, and Adam.

Source: You, Hseu, Ying, Demmel, Keutzer, Hsieh, "Large-batch training for LSTM and beyond" (SC
2019): the LSTM on MNIST, with batches from 128 to 8K and nothing tuned again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from commbench.experiments import Experiment, Finding, Results, Variant, against, beats, holds
from commbench.reproduce import Outcome, score_cells

NEEDS = "some 20 minutes on two cores; --quick, two"

METHODS = {
    "legw": "legw-lstm-mnist",
    "fixed": "legw-lstm-mnist@lr_scaling=none@warmup=",
    "linear": "legw-lstm-mnist@lr_scaling=linear@warmup=",
    "adam": "legw-lstm-mnist@optimizer.kind=adam@reference_lr=0.001@lr_scaling=none@warmup=",
}
_LABELS = {
    "legw": "LEGW: square root, warmup grows",
    "fixed": "fixed rate 0.1",
    "linear": "linear scaling, no warmup",
    "adam": "Adam, fixed rate 0.001",
}
_BATCHES = (128, 512, 2048, 8192)
_EPOCHS = 5
_IMAGES = 60_000
_MARGIN = 2.0  # points of top-1
# Where the effects cannot be had in a fifth of the paper's epochs; set after the first full run.
_MANY_STEPS = 500
_NO_LEAD = {
    512: "four times the batch is not yet too much for any rate",
    8192: "36 steps are too few for its warmup, and its rate of 0.8 is near the edge",
}


def experiment(quick: bool) -> Experiment:
    """All methods at all batches; at 128 the three rates of SGD are one, but for the warmup."""
    batches = (128, 1024) if quick else _BATCHES
    options = {
        "model": "lstm-mnist",
        "data": "fashion-mnist-subset" if quick else "fashion-mnist",
        "width": 0.5,
        "epochs": 2 if quick else _EPOCHS,
        "evaluate_every": 1,
    }
    variants = tuple(
        Variant(
            f"{method}-{batch}",
            # In parts that stay in the cache: the same result to rounding, twice as fast.
            {**options, "batch": batch, "accumulate": max(1, batch // 512), "recipe": recipe},
        )
        for batch in batches
        for method, recipe in METHODS.items()
        if not (batch == 128 and method == "linear")
    )
    return Experiment("legw-lstm", variants, seeds=(1,) if quick else (1, 2, 3))


def judge(results: Results) -> Outcome:
    """Whether LEGW keeps the accuracy of the small batch, and where the others lose it."""
    batches = sorted(_series(results)["legw"])
    small, large = batches[0], batches[-1]
    findings = [_beats(results, "linear", large)]
    findings += [_beats(results, "fixed", batch) for batch in batches[1:]]
    findings += [_keeps(results, small, batch) for batch in batches[1:]]
    findings.append(
        Finding(
            "LEGW untuned is level with Adam at the largest batch",
            against(results.scores(f"legw-{large}"), results.scores(f"adam-{large}")),
            holds(results.scores(f"legw-{large}"), results.scores(f"adam-{large}"), _MARGIN),
        )
    )
    return Outcome(
        title=f"LEGW: an LSTM at batches of {small} to {large}, nothing tuned again",
        source="You et al., SC 2019",
        cells=score_cells(results),
        notes=(
            "Top-1 on Fashion-MNIST, read row by row by half the width of the paper's LSTM, for a "
            "fifth of its 25 epochs; the paper's figures are of MNIST.",
            f"{results.clock_minutes():.0f} minutes of training by the clock.",
        ),
        findings=tuple(findings),
    )


def panels(results: Results) -> list[Callable[[Any], None]]:
    """Accuracy over the batch; accuracy over epochs at the largest."""
    from commbench.figures.spread import draw_curves, draw_sweep

    series = _series(results)
    large = max(series["legw"])
    named = {_LABELS[method]: points for method, points in series.items()}
    curves = {
        _LABELS[method]: [(run.epochs, 100 * run.top1) for run in results.of(f"{method}-{large}")]
        for method in series
    }
    return [
        partial(draw_sweep, series=named, title="LEGW and its rivals over the batch", x="batch"),
        partial(
            draw_curves,
            curves=curves,
            title=f"At a batch of {large}",
            y="top-1 on the test set (%)",
        ),
    ]


def _series(results: Results) -> dict[str, dict[int, Any]]:
    """Scores by method and batch; at 128 linear scaling is the fixed rate."""
    series: dict[str, dict[int, Any]] = {method: {} for method in METHODS}
    for variant in results.variants:
        method, batch = variant.rsplit("-", 1)
        series[method][int(batch)] = results.scores(variant)
    series["linear"][128] = series["fixed"][128]
    return series


def _beats(results: Results, other: str, batch: int) -> Finding:
    better, worse = results.scores(f"legw-{batch}"), results.scores(f"{other}-{batch}")
    why = _NO_LEAD.get(batch, "") if other == "fixed" else ""
    return Finding(
        f"at {batch}, LEGW is {_MARGIN:g} points ahead of the {_LABELS[other]}",
        against(results.scores(f"legw-{batch}"), results.scores(f"{other}-{batch}")),
        beats(better, worse, _MARGIN),
        expected=not why,
        why=why,
    )


def _keeps(results: Results, small: int, batch: int) -> Finding:
    steps = _IMAGES * _EPOCHS // batch
    many = steps >= _MANY_STEPS
    return Finding(
        f"LEGW at {batch} keeps the accuracy of {small}, but for {_MARGIN:g} points",
        against(results.scores(f"legw-{batch}"), results.scores(f"legw-{small}")),
        holds(results.scores(f"legw-{batch}"), results.scores(f"legw-{small}"), _MARGIN),
        expected=many,
        why="" if many else f"the run has {steps} steps, the paper's five times as many",
    )
