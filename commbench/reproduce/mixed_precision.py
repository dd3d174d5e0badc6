"""Jia et al.'s mixed precision: AlexNet with LARS in 16 bits against float32, in miniature.

Source: Jia et al., "Highly scalable deep learning training system with mixed-precision: training
ImageNet in four minutes" (2018), Figure 10: with the forward and backward pass in 16 bits, the loss
scaled and LARS in float32, training converges as in single precision.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commbench.experiments import Experiment, Finding, Results, Run, Variant, against
from commbench.reproduce import Cell, Outcome, score_cells

NEEDS = "some 5 minutes on two cores; --quick, one"

_SHORT = ("bfloat16", "float16")
_MARGIN = 2.0  # points of top-1
_LOSS_MARGIN = 0.1

_LABELS = {
    "float32": "float32",
    "bfloat16": "bfloat16",
    "float16": "float16, loss scaled",
}


def experiment(quick: bool) -> Experiment:
    """One training for each format; LARS and its rate are the same."""
    options = {
        "model": "alexnet-bn@variant=jia",
        "data": "fashion-mnist-subset",
        "classes": 10,
        "image_size": 63,
        "width": 0.0625,
        "batch": 64,
        "epochs": 0.5 if quick else 2,
        "evaluate_every": 0.25,
        "recipe": "jia-alexnet-64k",
        # The recipe's own, for 64K by the square root, hardly moves in so few steps.
        "lr": 16,
    }
    variants = tuple(Variant(name, {**options, "precision": name}) for name in _LABELS)
    return Experiment("mixed-precision", variants, seeds=(1,) if quick else (1, 2, 3))


def judge(results: Results) -> Outcome:
    """Whether each format's curves are those of float32."""
    return Outcome(
        title="Mixed precision: AlexNet-BN with LARS in float32 and in 16 bits",
        source="Jia et al. 2018",
        cells=(*score_cells(results), *_loss_cells(results)),
        notes=(
            "Top-1 on the Fashion-MNIST subset by a sixteenth of the width of Jia's AlexNet, batch "
            "64, two epochs; weights, gradients' sum and LARS are in float32 in all.",
            f"{results.clock_minutes():.0f} minutes of training by the clock; a CPU gains no "
            "time by float16.",
        ),
        findings=(*(_agrees(results, name) for name in _SHORT), _loses_nothing(results)),
    )


def panels(results: Results) -> list[Callable[[Any], None]]:
    """Accuracy over the epochs, and the training loss."""
    from commbench.figures.spread import draw_curves

    def curves(value: Callable[[Run], NDArray[np.float64]]) -> dict[str, Any]:
        return {
            _LABELS[name]: [(run.epochs, value(run)) for run in results.of(name)]
            for name in results.variants
        }

    return [
        partial(
            draw_curves,
            curves=curves(lambda run: 100 * run.top1),
            title="AlexNet-BN by LARS in each format",
            y="top-1 on the test set (%)",
        ),
        partial(
            draw_curves,
            curves=curves(lambda run: run.train_loss),
            title="The loss it learns by",
            y="loss of training",
        ),
    ]


def _agrees(results: Results, name: str) -> Finding:
    ours, reference = results.scores(name), results.scores("float32")
    apart = _apart(results, name)
    return Finding(
        f"{_LABELS[name]}: as accurate as float32, and its loss runs along",
        f"{against(ours, reference)}; losses of training at most {apart:.2f} apart",
        abs(float(ours.mean() - reference.mean())) <= _MARGIN and apart <= _LOSS_MARGIN,
    )


def _loses_nothing(results: Results) -> Finding:
    reference = results.scores("float32")
    behind = [reference - results.scores(name) for name in _SHORT]
    ranges = " and ".join(f"{one.min():.1f} to {one.max():.1f}" for one in behind)
    return Finding(
        "16 bits lose nothing: neither format is behind float32 of the same seed every time",
        f"{ranges} points behind",
        all(one.min() <= 0 for one in behind),
        expected=False,
        why="less than what seeds differ by, and a run ends long before it has converged",
    )


def _apart(results: Results, name: str) -> float:
    """Largest distance of the mean curve of the training loss from that of float32."""
    curves = [_loss(results, one) for one in (name, "float32")]
    shortest = min(len(curve) for curve in curves)
    return float(np.abs(curves[0][:shortest] - curves[1][:shortest]).max())


def _loss(results: Results, name: str) -> NDArray[np.float64]:
    """Mean over the seeds, as far as all have come, ``(evaluations,)``."""
    losses = [run.train_loss for run in results.of(name)]
    shortest = min(len(loss) for loss in losses)
    mean: NDArray[np.float64] = np.mean([loss[:shortest] for loss in losses], axis=0)
    return mean


def _loss_cells(results: Results) -> list[Cell]:
    cells = []
    for name in results.variants:
        last = np.array([run.train_loss[-1] for run in results.of(name)])
        skipped = sum(run.facts.get("skipped_steps", 0) for run in results.of(name))
        cells.append(
            Cell(
                name,
                "loss of training",
                float(last.mean()),
                note=f"{skipped:.0f} steps skipped for an overflow" if skipped else "",
                low=float(last.min()),
                high=float(last.max()),
            )
        )
    return cells
