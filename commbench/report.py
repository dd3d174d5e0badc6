"""Reads run files and picks out the numbers that the report prints and draws."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError
from commbench.experiments import Results, collected, outcomes
from commbench.record.reader import attributes, cell_value, open_run, progress, summary
from commbench.resampling import Estimate, median, paired_ratio
from commbench.steps import Steps, read_steps, workers

if TYPE_CHECKING:
    from commbench.reproduce import Outcome


@dataclass(frozen=True)
class Timing:
    """The times of one exchange at one size on so many ranks, of one sweep or several alike.

    Attributes:
        exchange: with its options.
        ranks: number of ranks.
        size: bytes of the buffer.
        setting: transport, element type and device, which make times comparable.
        slowest_s: the slowest rank's time of every iteration, ``(iterations,)``, in seconds.
        turns: which file and iteration each was, ``(iterations, 2)``: times of one turn pair up.
        hottest_bytes: through the busiest rank; NaN if nobody can know.
        bound_bytes: the least that any all-reduce moves through its busiest rank.
        wrong: elements with a wrong sum; NaN if not checked.
    """

    exchange: str
    ranks: int
    size: int
    setting: str
    slowest_s: NDArray[np.float64]
    turns: NDArray[np.int64]
    hottest_bytes: float = math.nan
    bound_bytes: float = math.nan
    wrong: float = math.nan

    def time_us(self) -> dict[str, float]:
        """Minimum, median, 99th percentile and maximum in microseconds."""
        low, middle, p99, high = 1e6 * np.percentile(self.slowest_s, [0, 50, 99, 100])
        return {"min": float(low), "median": float(middle), "p99": float(p99), "max": float(high)}

    def median_us(self) -> Estimate:
        """The median in microseconds, with its interval."""
        return median(self.slowest_s).scaled(1e6)

    def over(self, other: Timing) -> Estimate:
        """This exchange's time over the other's, of the turns that they have in common."""
        own, others = (
            {tuple(turn): at for at, turn in enumerate(one.turns.tolist())} for one in (self, other)
        )
        shared = [turn for turn in own if turn in others]
        return paired_ratio(
            self.slowest_s[[own[turn] for turn in shared]],
            other.slowest_s[[others[turn] for turn in shared]],
        )


@dataclass(frozen=True)
class Training:
    """One training run.

    Attributes:
        label: tells it from the other runs of the report.
        task: model, data, global batch and so on, which make runs comparable.
        evaluations: step, epoch, time_s, top1, top5 and loss, ``(evaluations,)`` each.
        phase_s: mean seconds of each phase of a step, over workers and steps.
        steps: every step's times.
        facts: all that `summary` tells of the file.
    """

    file: str
    label: str
    exchange: str
    ranks: int
    status: str
    task: dict[str, Any]
    evaluations: dict[str, NDArray[np.float64]]
    phase_s: dict[str, float]
    steps: Steps
    facts: dict[str, Any]

    def step_s(self) -> float:
        """Seconds of a step."""
        return sum(self.phase_s.values())


@dataclass
class Report:
    """All that the run files hold, and what the reader must know about them.

    Attributes:
        files: as they were named.
        facts: what `summary` tells of each.
        timings, trainings: of sweeps and of training runs.
        experiments, computed: of reproductions that train, and by name of those that do not.
        notes: in words.
    """

    files: list[str] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    trainings: list[Training] = field(default_factory=list)
    experiments: list[Results] = field(default_factory=list)
    computed: dict[str, Outcome] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def most_ranks(self) -> list[Timing]:
        """The timings on the most ranks, by size."""
        most = max((timing.ranks for timing in self.timings), default=0)
        chosen = (timing for timing in self.timings if timing.ranks == most)
        return sorted(chosen, key=lambda timing: timing.size)

    def over_ranks(self, wanted: int | None) -> list[Timing]:
        """The timings at the one size nearest to `wanted` bytes (None: the largest), by ranks.

        Empty unless there are several numbers of ranks that share a size.
        """
        sizes = {
            ranks: {timing.size for timing in self.timings if timing.ranks == ranks}
            for ranks in {timing.ranks for timing in self.timings}
        }
        shared = set.intersection(*sizes.values()) if sizes else set()
        if len(sizes) < 2 or not shared:
            return []
        size = max(shared) if wanted is None else min(shared, key=lambda one: abs(one - wanted))
        chosen = (timing for timing in self.timings if timing.size == size)
        return sorted(chosen, key=lambda timing: timing.ranks)

    def exchanges(self) -> list[str]:
        """Every exchange by name and options, each once."""
        names = [timing.exchange for timing in self.timings]
        return list(dict.fromkeys(names + [run.exchange for run in self.trainings]))


def read_report(paths: Sequence[Path]) -> Report:
    """Read run files of any kinds.

    Raises:
        UserError: a file is no run file, is named twice, or nothing was recorded in any.
    """
    report = Report()
    found: list[Timing] = []
    for path in paths:
        if str(path) in report.files:
            raise UserError(f"{path} is named twice: name every run file once")
        report.files.append(str(path))
        run = summary(path)
        report.facts.append(run)
        if run["status"] != "completed":
            report.notes.append(f"{path.name}: {progress(run)}.")
        if math.isfinite(run.get("staleness_updates_mean", math.nan)):
            report.notes.append(
                f"{path.name}: gradients were {run['staleness_updates_mean']:.2f} updates stale on "
                f"average, {run['staleness_updates_largest']:.0f} at most."
            )
        with open_run(path) as file:
            if "sweep" in file:
                found += _timings(file, len(report.files))
            if "eval" in file:
                report.trainings.append(_training(path, file, run))
            drawn = "sweep" in file or "eval" in file
        if run["kind"] == "experiment":
            report.experiments.append(collected.read(path, str(run["experiment"])))
        elif run["kind"] == "reproduction":
            name = str(run["reproduction"])
            report.computed[name] = outcomes.read(path, name)
        elif not drawn:
            report.notes.append(
                f"{path.name}: of kind {run['kind']}, which a report does not draw."
            )
    report.timings = _pooled(found)
    trained = any(run.phase_s for run in report.trainings)
    reproduced = report.experiments or report.computed
    if not report.timings and not trained and not reproduced:
        raise UserError(f"nothing was recorded in {', '.join(report.files)}")
    report.trainings = _labelled(report.trainings)
    report.notes += _warnings(report)
    return report


def _timings(file: Any, number: int) -> list[Timing]:
    table, root = file["sweep"], attributes(file)
    devices = sorted({device.split(":")[0] for device in root["devices"]})
    known = [str(root[name]) for name in ("transport", "dtype") if name in root]
    setting = ", ".join([*known, *devices])
    seconds = table["seconds"][:]
    timings = []
    for row, size in enumerate(table["size_bytes"][:]):
        for column, exchange in enumerate(table["exchange"].asstr()[:]):
            slowest = seconds[row, column].max(axis=1)  # NaN until every rank's sample is there
            done = np.flatnonzero(np.isfinite(slowest))
            if len(done):
                timings.append(
                    Timing(
                        exchange=_named(exchange, root),
                        ranks=seconds.shape[3],
                        size=int(size),
                        setting=setting,
                        slowest_s=slowest[done],
                        turns=np.stack([np.full_like(done, number), done], axis=1),
                        hottest_bytes=cell_value(table, "hottest_rank_bytes", row, column),
                        bound_bytes=cell_value(table, "bound_bytes", row, column),
                        wrong=float(table["wrong"][row, column]),
                    )
                )
    return timings


def _named(exchange: str, root: dict[str, Any]) -> str:
    """An exchange, and the form in which gradients travel where it is not their own."""
    wire = str(root["options"].get("wire", "float32"))
    return exchange if wire == "float32" else f"{exchange} {wire}"


def _pooled(found: Iterable[Timing]) -> list[Timing]:
    """Put the iterations of sweeps with the same setting together."""
    pools: dict[tuple[object, ...], list[Timing]] = {}
    for timing in found:
        key = (timing.setting, timing.ranks, timing.size, timing.exchange)
        pools.setdefault(key, []).append(timing)
    return [
        Timing(
            exchange=one.exchange,
            ranks=one.ranks,
            size=one.size,
            setting=one.setting,
            slowest_s=np.concatenate([timing.slowest_s for timing in pool]),
            turns=np.concatenate([timing.turns for timing in pool]),
            hottest_bytes=one.hottest_bytes,
            bound_bytes=one.bound_bytes,
            # Wrong in one sweep is wrong; not checked in one is not checked.
            wrong=sum(timing.wrong for timing in pool),
        )
        for pool in pools.values()
        for one in pool[:1]
    ]


def _training(path: Path, file: Any, facts: dict[str, Any]) -> Training:
    root = attributes(file)
    table = {name: file["eval"][name][:] for name in file["eval"] if name != "evaluation"}
    done = np.isfinite(table["top1"])
    timing = file["timing"]
    phases = timing["phase"].asstr()[:].tolist()
    seconds = timing["seconds"][:].astype(np.float64)
    own = seconds[:, workers(seconds, phases)]
    rows = own[np.isfinite(own).all(axis=2)]
    names = ("model", "data", "global_batch", "parameters", "recipe")
    return Training(
        file=str(path),
        label="",
        exchange=_named(str(root["exchange"]), root),
        ranks=int(root["ranks"]),
        status=str(root["status"]),
        task={name: root[name] for name in names if name in root}
        | {name: root["options"][name] for name in ("image_size", "lr") if name in root["options"]},
        evaluations={name: values[done] for name, values in table.items()},
        phase_s=dict(zip(phases, rows.mean(axis=0).tolist(), strict=True)) if len(rows) else {},
        steps=read_steps(file),
        facts=facts,
    )


def _labelled(runs: Sequence[Training]) -> list[Training]:
    """Name each run by exchange and ranks, and by its file where that is not enough."""
    plain = [f"{run.exchange}, {plural(run.ranks, 'rank')}" for run in runs]
    return [
        replace(run, label=label if plain.count(label) == 1 else f"{label} ({Path(run.file).stem})")
        for run, label in zip(runs, plain, strict=True)
    ]


def _warnings(report: Report) -> list[str]:
    """What makes the runs hard to compare."""
    told = []
    for name in dict.fromkeys(name for run in report.trainings for name in run.task):
        values = sorted({str(run.task.get(name, "unknown")) for run in report.trainings})
        if len(values) > 1:
            told.append(
                f"The trainings differ in {name.replace('_', ' ')}: {', '.join(values)}; "
                "not the exchange alone."
            )
    settings = sorted({timing.setting for timing in report.timings})
    if len(settings) > 1:
        told.append(
            f"The sweeps differ in transport, element type or device: {'; '.join(settings)}."
        )
    machines = set()
    crowded: dict[int, int] = {}
    for root in report.facts:
        if root["kind"] in ("experiment", "reproduction"):  # of any machine, or none
            continue
        machines.add(f"{root.get('cpu_model', 'unknown')}, {root.get('mpi_library', '')}")
        here = root["hosts"].count(root["hosts"][0])
        if here > int(root.get("cpu_count", here)):
            crowded[here] = int(root["cpu_count"])
    if len(machines) > 1:
        told.append(f"Several machines or MPI libraries: {'; '.join(sorted(machines))}.")
    if crowded:
        ranks = ", ".join(str(count) for count in sorted(crowded))
        cores = ", ".join(str(count) for count in sorted(set(crowded.values())))
        told.append(
            f"More ranks than cores ({ranks} on {cores}): times include waiting for a turn on one."
        )
    return told


def plural(count: int, noun: str) -> str:
    """``1 rank``, ``2 ranks``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def as_dict(report: Report, size: int | None) -> dict[str, Any]:
    """The numbers for JSON; times in microseconds or seconds, as the names say."""
    return {
        "files": report.files,
        "sweeps": [_timing_dict(timing) for timing in report.timings],
        "over_ranks": [_timing_dict(timing) for timing in report.over_ranks(size)],
        "trainings": [
            {
                "file": run.file,
                "label": run.label,
                "exchange": run.exchange,
                "ranks": run.ranks,
                "status": run.status,
                **run.task,
                "evaluations": {name: values.tolist() for name, values in run.evaluations.items()},
                "step_s": run.step_s() if run.phase_s else None,
                "phase_s": run.phase_s,
                "phase_share": {
                    name: seconds / run.step_s() for name, seconds in run.phase_s.items()
                },
            }
            for run in report.trainings
        ],
        "experiments": [
            {
                "name": results.name,
                "top1_percent": {name: results.scores(name).tolist() for name in results.variants},
            }
            for results in report.experiments
        ],
        "notes": report.notes,
    }


def _timing_dict(timing: Timing) -> dict[str, Any]:
    return {
        "exchange": timing.exchange,
        "ranks": timing.ranks,
        "size": timing.size,
        "setting": timing.setting,
        "iterations": len(timing.slowest_s),
        "time_us": timing.time_us(),
        "hottest_bytes": timing.hottest_bytes,
        "wrong": timing.wrong,
    }
