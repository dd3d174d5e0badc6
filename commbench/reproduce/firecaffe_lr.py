"""FireCaffe's ladder of learning rates: GoogLeNet at rates a factor of two apart, in miniature.

Source: Iandola, Ashraf, Moskewicz, Keutzer, "FireCaffe: near-linear acceleration of deep neural
network training on compute clusters" (CVPR 2016): of 0.02, 0.04, 0.08, 0.16 and 0.32 at a batch of
1024 on ImageNet, 0.08 was best, and 0.16 and 0.32 failed to learn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commbench.experiments import Experiment, Finding, Results, Variant, against, beats, spread
from commbench.reproduce import Outcome, score_cells

NEEDS = "some 10 minutes on two cores; --quick, one"

RATES = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
_MARGIN = 2.0  # points of top-1
_FAILED = 20.0  # top-1 in percent, twice that of guessing: a network below has hardly learned


def experiment(quick: bool) -> Experiment:
    """One training for each rate; they differ in nothing else."""
    options = {
        "model": "googlenet",
        "data": "fashion-mnist-subset",
        "classes": 10,
        "image_size": 32,
        "width": 0.125,
        "batch": 128,
        "epochs": 1 if quick else 4,
        "evaluate_every": 0.5,
        "recipe": "firecaffe-googlenet",
    }
    rates = (0.02, 0.16) if quick else RATES
    variants = tuple(Variant(f"lr-{rate}", {**options, "lr": rate}) for rate in rates)
    return Experiment("firecaffe-lr", variants, seeds=(1,) if quick else (1, 2, 3))


def judge(results: Results) -> Outcome:
    """Whether there is a best rate inside the ladder, and whether those above it fail."""
    scores = _scores(results)
    best = max(scores, key=lambda rate: float(scores[rate].mean()))
    lowest, top = min(scores), sorted(scores)[-1 if results.quick else -2 :]
    findings = [_fails(scores, rate, f"{rate}, at the top of the ladder,") for rate in top]
    if not results.quick:
        findings.append(
            Finding(
                f"the best rate, {best}, is inside the ladder and ahead of the lowest, {lowest}",
                against(scores[best], scores[lowest]),
                beats(scores[best], scores[lowest], _MARGIN),
            )
        )
    if 2 * best in scores:
        findings.append(
            replace(
                _fails(scores, 2 * best, f"{2 * best}, twice the best rate,"),
                expected=False,
                why="the way from the best rate to failure is longer here",
            )
        )
    return Outcome(
        title="FireCaffe: GoogLeNet at learning rates a factor of two apart, batch 128",
        source="Iandola et al., CVPR 2016",
        cells=score_cells(results),
        notes=(
            "Top-1 on the Fashion-MNIST subset at 32 pixels by an eighth of GoogLeNet's width, "
            "312 steps; the paper's 0.02 to 0.32 are of a batch of 1024 and 84,375 steps.",
            f"{results.clock_minutes():.0f} minutes of training by the clock.",
        ),
        findings=tuple(findings),
    )


def panels(results: Results) -> list[Callable[[Any], None]]:
    """Accuracy over the rate; over epochs for each rate."""
    from commbench.figures.spread import draw_curves, draw_sweep

    curves = {
        f"{rate:g}": [(run.epochs, 100 * run.top1) for run in results.of(f"lr-{rate}")]
        for rate in _scores(results)
    }
    return [
        partial(
            draw_sweep,
            series={"GoogLeNet": _scores(results)},
            title="The ladder of rates",
            x="learning rate",
        ),
        partial(
            draw_curves,
            curves=curves,
            title="Each rate over the epochs",
            y="top-1 on the test set (%)",
            columns=4,
        ),
    ]


def _scores(results: Results) -> dict[float, NDArray[np.float64]]:
    return {
        float(variant.removeprefix("lr-")): results.scores(variant) for variant in results.variants
    }


def _fails(scores: dict[float, NDArray[np.float64]], rate: float, name: str) -> Finding:
    return Finding(
        f"{name} fails to learn",
        f"{spread(scores[rate])} %",
        bool(scores[rate].max() < _FAILED),
    )
