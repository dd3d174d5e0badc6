"""Accuracy of the asynchronous parameter server over its bound on staleness.

Source: Gupta, Zhang, Wang, "Model accuracy and runtime tradeoff in distributed deep learning"
(2015), and Ho et al., "More effective distributed ML via a stale synchronous parallel parameter
server" (NIPS 2013): stale gradients cost accuracy, and dividing the rate by the mean staleness, as
`ps-async` does, wins most of it back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commbench.experiments import Experiment, Finding, Results, Variant, against, beats, holds
from commbench.reproduce import Cell, Outcome, score_cells

NEEDS = "some 10 minutes on two cores; --quick, two"

BOUNDS = ("0", "1", "2", "4", "8", "inf")
GENTLE, HIGH = 0.1, 0.5  # the recipe's rate, and five times that
_RANKS = 4
_MARGIN = 2.0  # points of top-1
_LARGEST = "staleness_updates_largest"


def experiment(quick: bool) -> Experiment:
    """Every bound at the high rate; only the two ends at the recipe's."""
    options = {
        "model": "lstm-mnist",
        "data": "fashion-mnist-subset",
        "width": 0.25,
        "batch": 96,
        "epochs": 1 if quick else 3,
        "evaluate_every": 1,
        "recipe": "legw-lstm-mnist",
    }
    synchronous = {"exchange": "parameter-server", "server": "dedicated"}
    chosen = [(HIGH, bound) for bound in (("inf",) if quick else BOUNDS)]
    chosen += [] if quick else [(GENTLE, "inf")]
    variants = []
    for rate in dict.fromkeys(rate for rate, _ in chosen):
        variants.append(Variant(_variant(None, rate), {**options, **synchronous, "lr": rate}))
        variants += [
            Variant(
                _variant(bound, rate),
                {**options, "exchange": "ps-async", "staleness": bound, "lr": rate},
            )
            for at, bound in chosen
            if at == rate
        ]
    return Experiment(
        "async-staleness", tuple(variants), seeds=(1,) if quick else (1, 2, 3), ranks=_RANKS
    )


def judge(results: Results) -> Outcome:
    """Whether staleness costs accuracy at either rate, and whether the bound matters."""
    findings = [_costs(results, bound) for bound in _bounds(results, HIGH) if bound != "0"]
    if not results.quick:
        findings = [_same(results), *findings, _keeps(results), *_bounded(results)]
    return Outcome(
        title=f"Asynchronous parameter server: accuracy over the bound, {_RANKS - 1} workers",
        source="Gupta et al. 2015, Ho et al. NIPS 2013",
        cells=(*score_cells(results), *_staleness_cells(results)),
        notes=(
            "Top-1 on the Fashion-MNIST subset, read row by row by a quarter of LEGW's LSTM. A "
            "server divides the rate by the number of workers, and counts momentum by updates.",
            f"{results.clock_minutes():.0f} minutes of training by the clock; on a busy machine "
            "workers drift apart further, and only a bound of 0 repeats its bits.",
        ),
        findings=tuple(findings),
    )


def panels(results: Results) -> list[Callable[[Any], None]]:
    """Accuracy over the bound; staleness as measured over it."""
    from commbench.figures.spread import draw_choices

    scores = {
        f"rate {rate}": {
            ("sync" if bound is None else bound): results.scores(_variant(bound, rate))
            for bound in (None, *_bounds(results, rate))
        }
        for rate in (HIGH, GENTLE)
        if _bounds(results, rate)
    }
    bounds = _bounds(results, HIGH)
    measured = {
        label: {bound: _facts(results, _variant(bound, HIGH), fact) for bound in bounds}
        for label, fact in (("mean", "staleness_updates_mean"), ("largest", _LARGEST))
    }
    return [
        partial(draw_choices, series=scores, title="Accuracy over the bound", x="bound (steps)"),
        partial(
            draw_choices,
            series=measured,
            title=f"Staleness as measured, rate {HIGH}",
            x="bound (steps)",
            y="staleness (updates)",
        ),
    ]


def _variant(bound: str | None, rate: float) -> str:
    """The name of a variant; no bound is the synchronous server."""
    return f"sync-lr{rate}" if bound is None else f"s{bound}-lr{rate}"


def _bounds(results: Results, rate: float) -> list[str]:
    return [bound for bound in BOUNDS if _variant(bound, rate) in results.variants]


def _facts(results: Results, variant: str, fact: str) -> NDArray[np.float64]:
    return np.array([run.facts[fact] for run in results.of(variant)])


def _staleness_cells(results: Results) -> list[Cell]:
    cells = []
    for rate in (HIGH, GENTLE):
        for bound in _bounds(results, rate):
            variant = _variant(bound, rate)
            mean = _facts(results, variant, "staleness_updates_mean")
            largest = _facts(results, variant, _LARGEST).max()
            cells.append(
                Cell(
                    variant,
                    "staleness (updates)",
                    float(mean.mean()),
                    note=f"at most {largest:.0f}",
                    low=float(mean.min()),
                    high=float(mean.max()),
                )
            )
    return cells


def _same(results: Results) -> Finding:
    zero, fresh = _variant("0", HIGH), _variant(None, HIGH)
    return Finding(
        "with a bound of 0, the asynchronous server is the synchronous one",
        against(results.scores(zero), results.scores(fresh)),
        np.array_equal(results.scores(zero), results.scores(fresh)),
    )


def _costs(results: Results, bound: str) -> Finding:
    stale, fresh = _variant(bound, HIGH), _variant(None, HIGH)
    far = bound not in ("1", "2")
    return Finding(
        f"at five times the recipe's rate, a bound of {bound} costs accuracy",
        against(results.scores(stale), results.scores(fresh)),
        beats(results.scores(fresh), results.scores(stale), _MARGIN),
        expected=far,
        why="" if far else "lower in the mean, but not with every seed",
    )


def _keeps(results: Results) -> Finding:
    stale, fresh = _variant("inf", GENTLE), _variant(None, GENTLE)
    return Finding(
        f"at the recipe's rate, divided by the workers, no more than {_MARGIN:g} points are lost",
        against(results.scores(stale), results.scores(fresh)),
        holds(results.scores(stale), results.scores(fresh), _MARGIN),
        expected=False,
        why="three epochs at a constant rate, where the papers' runs are far longer",
    )


def _bounded(results: Results) -> list[Finding]:
    one, none = _variant("1", HIGH), _variant("inf", HIGH)
    mean = [_facts(results, name, "staleness_updates_mean") for name in (one, none)]
    return [
        Finding(
            "a bound of 1 keeps gradients fresher than none",
            f"{mean[0].mean():.2f} against {mean[1].mean():.2f} updates",
            bool(mean[0].max() < mean[1].min()),
        ),
        Finding(
            "a bound of 1 keeps more accuracy than none",
            against(results.scores(one), results.scores(none)),
            beats(results.scores(one), results.scores(none), _MARGIN),
            expected=False,
            why=f"{_RANKS - 1} workers that are alike are about {_RANKS - 2} updates behind under "
            "any bound",
        ),
    ]
