"""Goyal's ResNet-50: the batch up to which linear scaling is free, and three ways to warm up.

Source: Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour" (2017): Figure 1,
error over the batch; Table 1 and Figure 2, no, constant and gradual warmup at 8192.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commbench.experiments import Experiment, Finding, Results, Variant, against, beats, holds
from commbench.reproduce import Outcome, score_cells

NEEDS = "some 8 minutes on two cores; --quick, one"

# The rate at a batch of 64 is the paper's at 256. The warmup takes a quarter of the run, since the
# paper's share of it, 5 of 90 epochs, would be four steps.
_SCALED = "goyal-resnet50@reference_batch=64"
_GRADUAL = f"{_SCALED}@warmup.epochs=22.5"
RECIPES = {
    "gradual": _GRADUAL,
    "constant": f"{_GRADUAL}@warmup.kind=constant",
    "none": f"{_SCALED}@warmup=",
}
_LABELS = {
    "gradual": "gradual warmup",
    "constant": "constant warmup",
    "none": "no warmup",
}
_BATCHES = (64, 128, 256, 512, 1024)
_LARGE = 512  # just beyond the knee, where the start decides
_EPOCHS = 4
_WARMUP_SHARE = 0.25  # of the run
_FLAT_TO = 256  # with as many steps as here
# Normalisation sees so many images, whatever the batch: in the paper, the 32 of a worker.
_PART = 64
_FLAT = 1.5  # points of top-1 that a flat part may lose
_AHEAD = 0.5
_LOSS = 0.05
# Measured not to show, and the likely reason.
_ABSENT = {"none": "what the first steps lose, the 60 that follow make good; the seeds overlap"}


def experiment(quick: bool) -> Experiment:
    """All batches with gradual warmup; the two other ways at the large one."""
    batches, large = ((64, 256), 256) if quick else (_BATCHES, _LARGE)
    options = {
        "model": "resnet50",
        "width": 0.125,
        "image_size": 28,
        "classes": 10,
        "data": "fashion-mnist-subset",
        "epochs": 2 if quick else _EPOCHS,
    }

    def variant(kind: str, batch: int) -> Variant:
        return Variant(
            f"{kind}-{batch}",
            {
                **options,
                "batch": batch,
                "accumulate": batch // _PART,
                "evaluate_every": 0.5 if batch == large else 1,
                "recipe": RECIPES[kind],
            },
        )

    variants = [variant("gradual", batch) for batch in batches]
    variants += [variant(kind, large) for kind in ("constant", "none")]
    return Experiment("goyal-warmup", tuple(variants), seeds=(1,) if quick else (1, 2, 3))


def judge(results: Results) -> Outcome:
    """Where linear scaling costs nothing, where it does, and what each warmup changes."""
    batches = sorted(_sweep(results))
    large = _large(results)
    small = batches[0]
    flat = [batch for batch in batches[1:] if batch <= _FLAT_TO]
    findings = [_keeps(results, small, batch) for batch in flat]
    knee = [batch for batch in batches if batch > _FLAT_TO]
    findings += [
        _loses(results, before, batch)
        for before, batch in zip([max(small, *flat), *knee], knee, strict=False)
    ]
    if flat:
        findings.append(_same_training(results, small, flat[-1]))
    findings += [_ahead(results, "none", large), _ahead(results, "constant", large)]
    findings += [_starts_worse(results, large), _jumps(results, large)]
    return Outcome(
        title=f"Goyal: linear scaling from {small} to {batches[-1]}, warmup at {large}",
        source="Goyal et al., 2017",
        cells=score_cells(results),
        notes=(
            "Top-1 on 2,000 images of Fashion-MNIST by an eighth of the width of ResNet-50, after "
            f"{_EPOCHS} epochs of 10,000 images; normalised over {_PART} images at every batch.",
            "In print, at 8192: no warmup 75.2, constant 74.1, gradual 76.3; at 256, 76.4.",
        ),
        findings=tuple(findings),
    )


def panels(results: Results) -> list[Callable[[Any], None]]:
    """Error over the batch; training loss and error over epochs, of the warmups."""
    from commbench.figures.spread import draw_curves, draw_sweep

    large, small = _large(results), min(_sweep(results))
    series: dict[str, dict[float, NDArray[np.float64]]] = {
        f"linear scaling, {_LABELS['gradual']}": {
            batch: 100 - scores for batch, scores in _sweep(results).items()
        }
    }
    for kind in ("constant", "none"):
        series[_LABELS[kind]] = {large: 100 - results.scores(f"{kind}-{large}")}
    shown = {_LABELS[kind]: results.of(f"{kind}-{large}") for kind in RECIPES}
    shown[f"batch {small}"] = results.of(f"gradual-{small}")
    losses = {
        label: [(run.epochs, run.train_loss) for run in runs] for label, runs in shown.items()
    }
    errors = {
        label: [(run.epochs, 100 * (1 - run.top1)) for run in runs] for label, runs in shown.items()
    }
    return [
        partial(
            draw_sweep,
            series=series,
            title="Error over the batch",
            x="batch",
            y="top-1 error after training (%)",
        ),
        partial(
            draw_curves,
            curves=losses,
            title=f"Training at a batch of {large}",
            y="training loss, mean since the point before",
        ),
        partial(
            draw_curves,
            curves=errors,
            title=f"Test at a batch of {large}",
            y="top-1 error on the test set (%)",
        ),
    ]


def _sweep(results: Results) -> dict[int, NDArray[np.float64]]:
    """Scores with gradual warmup, by batch."""
    names = [name for name in results.variants if name.startswith("gradual-")]
    return {int(name.rsplit("-", 1)[1]): results.scores(name) for name in names}


def _large(results: Results) -> int:
    """The batch at which warmups are compared."""
    return next(int(name[5:]) for name in results.variants if name.startswith("none-"))


def _keeps(results: Results, small: int, batch: int) -> Finding:
    steps = 10_000 * _EPOCHS // batch
    return Finding(
        f"linear scaling: {batch} keeps the accuracy of {small}, but for {_FLAT:g} points",
        against(results.scores(f"gradual-{batch}"), results.scores(f"gradual-{small}")),
        holds(results.scores(f"gradual-{batch}"), results.scores(f"gradual-{small}"), _FLAT),
        expected=steps > 300,
        why="" if steps > 300 else f"the curve begins to bend: {steps} steps are left of 625",
    )


def _loses(results: Results, before: int, batch: int) -> Finding:
    return Finding(
        f"the knee: {batch} loses more than {_FLAT:g} points on {before}",
        against(results.scores(f"gradual-{batch}"), results.scores(f"gradual-{before}")),
        beats(results.scores(f"gradual-{before}"), results.scores(f"gradual-{batch}"), _FLAT),
    )


def _same_training(results: Results, small: int, batch: int) -> Finding:
    """Goyal's Figure 2 (c): the curves of training come together."""
    ends = {
        size: np.array([run.train_loss[-1] for run in results.of(f"gradual-{size}")])
        for size in (small, batch)
    }
    return Finding(
        f"the training loss of the last epoch at {batch} is that of {small}, but for {_LOSS:g}",
        f"{_losses(ends[batch])} against {_losses(ends[small])}",
        bool(abs(ends[batch].mean() - ends[small].mean()) <= _LOSS),
    )


def _ahead(results: Results, other: str, batch: int) -> Finding:
    better, worse = results.scores(f"gradual-{batch}"), results.scores(f"{other}-{batch}")
    return Finding(
        f"at {batch}, gradual warmup ends ahead of {_LABELS[other]}",
        against(results.scores(f"gradual-{batch}"), results.scores(f"{other}-{batch}")),
        beats(better, worse, _AHEAD),
        expected=other not in _ABSENT,
        why=_ABSENT.get(other, ""),
    )


def _starts_worse(results: Results, batch: int) -> Finding:
    """The loss of the first evaluation's steps."""
    none, gradual = (
        np.array([run.train_loss[0] for run in results.of(f"{kind}-{batch}")])
        for kind in ("none", "gradual")
    )
    return Finding(
        f"at {batch}, training begins worse without warmup than with gradual",
        f"loss of the first half epoch {_losses(none)} against {_losses(gradual)}",
        beats(none, gradual, 0.0),
    )


def _jumps(results: Results, batch: int) -> Finding:
    """The loss just after the constant warmup, and just before its end."""
    runs = results.of(f"constant-{batch}")
    ended = [_ends(run.epochs) for run in runs]
    after, before = (
        np.array([run.train_loss[end - ago] for run, end in zip(runs, ended, strict=True)])
        for ago in (0, 1)
    )
    return Finding(
        f"at {batch}, the loss jumps up where constant warmup ends",
        f"{_losses(before)} in the half epoch before, {_losses(after)} in the one after",
        beats(after, before, 0.0),
    )


def _ends(epochs: NDArray[np.float64]) -> int:
    """The first evaluation of which most steps lie behind the warmup."""
    later = np.searchsorted(epochs, 1.25 * _WARMUP_SHARE * epochs[-1])
    return int(min(later, len(epochs) - 1))


def _losses(values: NDArray[np.float64]) -> str:
    return f"{values.mean():.2f} ({values.min():.2f} to {values.max():.2f})"
