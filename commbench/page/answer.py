"""The page's first lines: what the runs say, in words and with how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from commbench.compare.differences import differences
from commbench.figures.style import bytes_text, seconds_text
from commbench.report import Report, Timing, Training, plural
from commbench.reproduce import Outcome
from commbench.resampling import FEWEST, Estimate, ratio_of_medians
from commbench.spec import cut

_RIVALS = ("parameter-server", "native")
_One = TypeVar("_One", Timing, Training)


@dataclass(frozen=True)
class Answer:
    """One thing that the runs say.

    Attributes:
        text: the sentence.
        detail: the numbers behind it, and where they come from.
    """

    text: str
    detail: str


def answers(report: Report, outcomes: Sequence[Outcome]) -> list[Answer]:
    """What can be said: of the sweeps, of the trainings, of the reproductions."""
    found = [
        _of_sweeps(report.timings),
        _of_trainings(report.trainings),
        _of_reproductions(outcomes),
    ]
    return [one for one in found if one]


def _of_sweeps(timings: Sequence[Timing]) -> Answer | None:
    """The fastest exchange against the parameter server, on most ranks, for the largest buffer."""
    real = [one for one in timings if one.exchange != "none" and one.ranks > 1 and one.size > 0]
    if not real:
        return None
    # Of a few turns nothing can be said; and only times of one setting are of one sweep.
    enough = [one for one in real if len(one.slowest_s) >= FEWEST]
    largest = max(enough or real, key=lambda one: (one.ranks, one.size))
    cells = [
        one
        for one in real
        if (one.setting, one.ranks, one.size) == (largest.setting, largest.ranks, largest.size)
    ]
    cells.sort(key=lambda one: one.time_us()["median"])
    where = f"on {plural(largest.ranks, 'rank')}, {bytes_text(largest.size)}"
    if len(cells) < 2:
        time = seconds_text(cells[0].time_us()["median"])
        return Answer(f"{cells[0].exchange} takes {time} {where}", f"{largest.setting}")
    fastest, others = cells[0], cells[1:]
    slower = _rival(others)
    ratio = slower.over(fastest)
    return Answer(
        _sentence(fastest.exchange, slower.exchange, ratio, where),
        f"The exchange alone: {seconds_text(fastest.time_us()['median'])} against "
        f"{seconds_text(slower.time_us()['median'])}; {_interval(ratio)}, paired over "
        f"{plural(min(len(fastest.slowest_s), len(slower.slowest_s)), 'turn')} "
        f"({largest.setting}).",
    )


def _of_trainings(runs: Sequence[Training]) -> Answer | None:
    """The training of the shortest step against the parameter server's, all else being alike."""
    stepped = [run for run in runs if len(run.steps.step_s) and run.exchange != "none"]
    if not stepped:
        return None
    group = max(_alike(stepped), key=len)
    group.sort(key=lambda run: float(np.median(run.steps.step_s)))
    fastest = group[0]
    model, ranks = fastest.task.get("model", "the model"), plural(fastest.ranks, "rank")
    others = [run for run in group[1:] if run.exchange != fastest.exchange]
    if not others:
        return Answer(
            f"{fastest.exchange} trains {model} on {ranks} to {_top1(fastest)}",
            f"{fastest.evaluations['time_s'][-1]:.1f} s of training, evaluations apart."
            if len(fastest.evaluations["time_s"])
            else "Not evaluated yet.",
        )
    slower = _rival(others)
    ratio = ratio_of_medians(slower.steps.step_s, fastest.steps.step_s)
    where = f"in training {model} on {ranks}"
    return Answer(
        _sentence(fastest.exchange, slower.exchange, ratio, where),
        f"Median step: {_step(fastest)} against {_step(slower)}; {_interval(ratio)}, not paired: "
        f"one run of each. Top-1 {_top1(fastest)} and {_top1(slower)}.",
    )


def _of_reproductions(outcomes: Sequence[Outcome]) -> Answer | None:
    if not outcomes:
        return None
    findings = [finding for outcome in outcomes for finding in outcome.findings]
    expected = [finding for finding in findings if finding.expected]
    shown = sum(finding.shows for finding in expected)
    beyond = len(findings) - len(expected)
    titles = "; ".join(outcome.title for outcome in outcomes)
    count = plural(len(outcomes), "reproduction")
    more = f" {beyond} more of the papers' are told too, but not expected at this scale."
    return Answer(
        f"{shown} of the {plural(len(expected), 'effect')} expected in {count} show",
        f"{titles}.{more if beyond else ''}",
    )


def _alike(runs: Sequence[Training]) -> list[list[Training]]:
    """The runs in groups that differ in the exchange alone."""
    groups: list[list[Training]] = []
    for run in runs:
        for group in groups:
            found = differences(group[0].facts, run.facts)
            if not any(difference.refused for difference in found):
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


def _rival(others: Sequence[_One]) -> _One:
    """The one to hold the fastest against: the parameter server, else native, else the slowest."""
    for name in _RIVALS:
        for other in others:
            if cut(other.exchange, "@")[0] == name:
                return other
    return others[-1]


def _sentence(fast: str, slow: str, ratio: Estimate, where: str) -> str:
    if not math.isfinite(ratio.high):
        return f"Too few samples to tell {fast} from {slow} {where}"
    if ratio.low <= 1:
        return f"No difference shown between {fast} and {slow} {where}"
    return f"{fast} is {ratio.value:.1f} times as fast as {slow} {where}"


def _interval(ratio: Estimate) -> str:
    return f"ratio {ratio.text()}{', 95 % interval' if math.isfinite(ratio.high) else ''}"


def _step(run: Training) -> str:
    return seconds_text(1e6 * float(np.median(run.steps.step_s)))


def _top1(run: Training) -> str:
    top1 = run.evaluations["top1"]
    return f"{top1[-1]:.1%}" if len(top1) else "not evaluated"
