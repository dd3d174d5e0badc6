"""Charts of trainings: accuracy, phases, the headroom ladder, every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commbench.figures.style import Look
from commbench.page.charts import DASHES, Chart, Trace, View, axis, bar, line
from commbench.page.paint import exchange_key, phase_key
from commbench.report import Training

_MOST_POINTS = 2000


def charts(runs: Sequence[Training], look: Mapping[str, Look]) -> list[Chart]:
    """Those for which there are numbers."""
    accurate = [run for run in runs if len(run.evaluations["top1"])]
    stepped = [run for run in runs if run.phase_s]
    climbed = [run for run in runs if "headroom_s" in run.facts]
    found = []
    if accurate:
        found.append(_accuracy(accurate, look))
    if stepped:
        found += [_steps(stepped, look), _phases(stepped)]
    if climbed:
        found.append(_headroom(climbed))
    return found


def _accuracy(runs: Sequence[Training], look: Mapping[str, Look]) -> Chart:
    dashes = _dashes(runs)

    def view(name: str, x: str, title: str, *, y: str, what: str, scale: float) -> View:
        traces = [
            line(
                run.label,
                exchange_key(run.exchange),
                run.evaluations[x],
                scale * run.evaluations[y],
                dash=dash,
                marker=look[run.exchange].marker,
                hollow=look[run.exchange].hollow,
                exchange=run.exchange,
                hover=("%{y:.2f} %" if scale > 1 else "%{y:.4f}") + " at %{x:.4~g}",
            )
            for run, dash in zip(runs, dashes, strict=True)
        ]
        return View(name, traces, {"xaxis": axis(title, rangemode="tozero"), "yaxis": axis(what)})

    time, epochs = "training time (s), evaluations apart", "epochs of training data"
    return Chart(
        "accuracy",
        "Accuracy",
        "Measured on the whole test set, at every evaluation.",
        [
            view("over time", "time_s", time, y="top1", what="top-1 (%)", scale=100),
            view("over epochs", "epoch", epochs, y="top1", what="top-1 (%)", scale=100),
            view("test loss", "epoch", epochs, y="loss", what="mean loss", scale=1),
        ],
    )


def _phases(runs: Sequence[Training]) -> Chart:
    names = list(dict.fromkeys(name for run in runs for name in run.phase_s))
    rows = [run.label for run in runs]

    def view(title: str, what: str, scale: list[float], hover: str) -> View:
        traces = [
            bar(
                name,
                phase_key(name),
                rows,
                [
                    factor * run.phase_s.get(name, 0.0)
                    for run, factor in zip(runs, scale, strict=True)
                ],
                hover,
            )
            for name in names
        ]
        return View(title, traces, _bars(what))

    return Chart(
        "phases",
        "Where a step's time goes",
        "Mean over the ranks with data and over steps; of the exchange, what backward does not "
        "hide.",
        [
            view("time", "ms a step", [1e3] * len(runs), "%{x:.4~g} ms"),
            view(
                "share", "share of a step (%)", [100 / run.step_s() for run in runs], "%{x:.1f} %"
            ),
        ],
        height=_height(runs),
    )


def _headroom(runs: Sequence[Training]) -> Chart:
    rungs = runs[0].facts["headroom_rungs"]
    rises = [np.diff(run.facts["headroom_s"], prepend=0.0) for run in runs]
    traces = [
        bar(
            name if number == 0 else f"+ {name}",
            f"rung {number}",
            [run.label for run in runs],
            [1e3 * rise[number] for rise in rises],
            "%{x:.4~g} ms",
        )
        for number, name in enumerate(rungs)
    ]
    return Chart(
        "headroom",
        "What the exchange costs a step",
        "From a step that exchanges nothing to the one measured: what perfect overlap leaves, what "
        "the last bucket adds, and the waiting and all else that overlap does not hide.",
        [View("ladder", traces, _bars("ms a step"))],
        height=_height(runs),
    )


def _steps(runs: Sequence[Training], look: Mapping[str, Look]) -> Chart:
    def view(name: str, what: str, values: list[NDArray[np.float64]], scale: float) -> View:
        traces = [
            line(
                run.label,
                exchange_key(run.exchange),
                *_thinned(run.steps.number, scale * value),
                dash=dash,
                mode="lines",
                exchange=run.exchange,
                hover=f"step %{{x}}: %{{y:.4~g}} {what.split(' ', maxsplit=1)[0]}",
            )
            for run, value, dash in zip(runs, values, _dashes(runs), strict=True)
        ]
        for trace in traces:
            trace["line"]["width"] = 1.2
        return View(name, traces, {"xaxis": axis("step"), "yaxis": axis(what, **_usual(traces))})

    exposed = [run.steps.phase_s.get("exchange", np.zeros(0)) for run in runs]
    return Chart(
        "steps",
        "Every step",
        "By rank 0's clock; the first step, which pays for memory, is left out. A double click "
        "shows rare steps that are far above the others.",
        [
            view("step", "ms a step", [run.steps.step_s for run in runs], 1e3),
            view("exposed exchange", "ms of exchange", exposed, 1e3),
            view("rate", "images/s", [run.steps.images_per_s for run in runs], 1),
        ],
    )


def _usual(traces: Sequence[Trace]) -> dict[str, Any]:
    """The range of an axis from 0 that a few steps far above the others do not flatten."""
    values = [value for trace in traces for value in trace["y"]]
    highest = 2 * float(np.percentile(values, 98)) if values else 0.0
    if not highest or max(values) <= highest:
        return {"rangemode": "tozero"}
    return {"range": [0, highest]}


def _thinned(x: NDArray[Any], y: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Medians of neighbours where there are more points than a screen can show."""
    stride = -(-len(y) // _MOST_POINTS)
    if stride < 2:
        return x[: len(y)], y
    whole = len(y) // stride * stride
    return x[:whole:stride], np.median(y[:whole].reshape(-1, stride), axis=1)


def _dashes(runs: Sequence[Training]) -> list[str]:
    """Runs of one exchange share its colour and differ in the line."""
    seen: list[str] = []
    for run in runs:
        seen.append(run.exchange)
    return [DASHES[seen[:at].count(run.exchange) % 4] for at, run in enumerate(runs)]


def _bars(title: str) -> dict[str, Any]:
    return {
        "barmode": "stack",
        "xaxis": axis(title),
        "yaxis": {"autorange": "reversed", "automargin": True, "ticksuffix": " "},
        "bargap": 0.35,
    }


def _height(runs: Sequence[Training]) -> int:
    return 180 + 46 * len(runs)
