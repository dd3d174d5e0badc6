"""Experiments: command lines, what counts as an effect, one file for all results, going on."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from commbench import reproduce
from commbench.cli.reproduce import command
from commbench.errors import UserError
from commbench.experiments import (
    Experiment,
    Finding,
    Results,
    Run,
    Variant,
    beats,
    collected,
    holds,
    running,
)
from commbench.experiments.running import complete
from commbench.reproduce import Outcome, score_cells

TINY = {"model": "lstm-mnist", "width": 0.1, "steps": 2, "batch": 8}


def a_run(variant: str = "one", seed: int = 1, top1: float = 0.5, *, diverged: bool = False) -> Run:
    evaluations = 1 if diverged else 2
    return Run(
        variant=variant,
        seed=seed,
        command=f"commbench train --seed {seed}",
        diverged=diverged,
        chance=0.1,
        epochs=np.arange(1.0, evaluations + 1),
        top1=np.linspace(0.2, top1, evaluations),
        test_loss=np.full(evaluations, 1.5),
        train_loss=np.full(evaluations, 1.25),
        train_s=60.0,
        images_per_s=100.0,
        facts={} if diverged else {"base_lr": 0.1 * seed},
    )


RESULTS = Results(
    "some-figure",
    False,
    (a_run(), a_run(seed=2, top1=0.6), a_run("two", diverged=True)),
)


def test_options_become_a_command_line() -> None:
    variant = Variant("v", {"evaluate_every": 0.5, "recipe_lr": True, "model": "nin"})
    assert variant.arguments() == ["--evaluate-every", "0.5", "--recipe-lr", "--model", "nin"]


def test_a_run_that_diverged_scores_as_guessing() -> None:
    assert RESULTS.scores("one").tolist() == [50.0, 60.0]
    assert RESULTS.scores("two").tolist() == [10.0]
    assert RESULTS.clock_minutes() == 3
    with pytest.raises(KeyError):
        RESULTS.scores("three")
    first, second = score_cells(RESULTS)
    assert (first.ours, first.low, first.high, first.note) == (55.0, 50.0, 60.0, "")
    assert second.note == "1 of 1 diverged"


def test_what_counts_as_ahead_and_as_level() -> None:
    high, low, mixed = np.array([80.0, 81, 82]), np.array([70.0, 71, 72]), np.array([60.0, 70, 81])
    assert beats(high, low, 2)
    assert not beats(high, low, 11)
    assert not beats(high, mixed, 2)  # one seed of the other is as good
    assert holds(low, high, 10)
    assert not holds(low, high, 9)
    assert holds(high, low, 0)
    assert Finding("c", "m", shows=False, expected=False).passed
    assert not Finding("c", "m", shows=False).passed


def test_all_results_go_into_one_file_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "some-figure.h5"
    collected.write(RESULTS, path)
    collected.write(RESULTS, path)  # in place of the first
    back = collected.read(path, "some-figure")
    assert (back.name, back.quick, back.variants) == ("some-figure", False, ["one", "two"])
    for ours, theirs in zip(RESULTS.runs, back.runs, strict=True):
        for name in ("epochs", "top1", "test_loss", "train_loss"):
            assert getattr(ours, name).tolist() == getattr(theirs, name).tolist()
        empty = {name: np.empty(0) for name in ("epochs", "top1", "test_loss", "train_loss")}
        assert repr(replace(ours, **empty)) == repr(replace(theirs, **empty))
    with pytest.raises(UserError, match="holds a run of some-figure: give one of reproduce other"):
        collected.read(path, "other")


def test_what_is_missing_is_trained_and_what_is_there_is_not(tmp_path: Path) -> None:
    experiment = Experiment("e", (Variant("a", TINY), Variant("b", {**TINY, "batch": 16})), (1,))
    lines: list[str] = []
    results = complete(experiment, tmp_path / "runs", quick=True, say=lines.append)
    assert [run.variant for run in results.runs] == ["a", "b"]
    assert all(len(run.top1) == 1 for run in results.runs)
    assert sorted(line.split("] ")[1][0] for line in lines) == ["a", "b"]

    first = tmp_path / "runs" / "a-seed1.h5"
    with h5py.File(first, "r+") as file:
        file.attrs["status"] = "running"  # as one that was killed
    kept = (tmp_path / "runs" / "b-seed1.h5").stat().st_mtime_ns
    lines.clear()
    again = complete(experiment, tmp_path / "runs", quick=True, say=lines.append)
    assert len(lines) == 1
    assert (tmp_path / "runs" / "b-seed1.h5").stat().st_mtime_ns == kept
    assert again.runs[0].top1.tolist() == results.runs[0].top1.tolist()

    other = Experiment("e", (Variant("a", {**TINY, "batch": 32}),), (1,))
    with pytest.raises(UserError, match=r"a-seed1\.h5 was made with other options \(8\)"):
        complete(other, tmp_path / "runs", quick=True, say=lines.append)


def test_sigterm_ends_what_was_started(tmp_path: Path) -> None:
    started = tmp_path / "started"
    code = f"import os, time; print(os.getpid(), file=open({str(started)!r}, 'w'), flush=True)"
    code += f"; os.kill({os.getpid()}, 15); time.sleep(30)"
    task = running._Task(Variant("a", TINY), 1, tmp_path / "a.h5", [sys.executable, "-c", code])
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # or this process would just end
    try:
        with pytest.raises(SystemExit) as end:
            running._train([task], 0.1, 1, print)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert end.value.code == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


def test_a_training_that_fails_is_told_with_its_command(tmp_path: Path) -> None:
    bad = Experiment("e", (Variant("a", {"model": "nosuch"}),), (1,))
    with pytest.raises(
        UserError, match=r"--model nosuch .* failed: commbench: error: unknown model"
    ):
        complete(bad, tmp_path, quick=True, say=lambda _line: None)


def test_an_experiment_does_not_run_under_mpirun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PMI_RANK", "0")
    with pytest.raises(UserError, match="run it without mpirun"):
        complete(Experiment("e", ()), tmp_path, quick=True, say=lambda _line: None)


def judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, results: Results) -> tuple[int, dict]:
    """Exit status and JSON of a reproduction whose one expected effect does not show."""
    path = tmp_path / f"{results.name}.h5"
    collected.write(results, path)
    finding = Finding("a claim", "40 against 50 %", shows=False)
    module = SimpleNamespace(
        experiment=None,
        panels=lambda back: [lambda axes: axes.plot(back.scores("one"))],
        judge=lambda back: Outcome("T", "paper", score_cells(back), findings=(finding,)),
    )
    monkeypatch.setattr(reproduce, "load_reproduction", lambda _name: module)
    result = CliRunner().invoke(command, [results.name, str(path), "--json"])
    assert path.with_suffix(".png").stat().st_size > 5000
    return result.exit_code, json.loads(result.stdout)


def test_an_effect_that_is_missing_fails_but_not_in_a_short_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, told = judged(monkeypatch, tmp_path, RESULTS)
    assert (status, told["passed"], told["findings"][0]["passed"]) == (1, False, False)
    status, told = judged(monkeypatch, tmp_path, replace(RESULTS, name="short", quick=True))
    assert (status, told["passed"]) == (0, True)
    assert "nothing is judged" in told["notes"][-1]


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    from commbench.figures.sheet import write_row
    from commbench.figures.spread import draw_curves, draw_sweep

    series = {"one": {128: RESULTS.scores("one"), 256: RESULTS.scores("one") - 1}}
    curves = {"one": [(run.epochs, run.top1) for run in RESULTS.runs]}
    write_row(
        [
            lambda axes: draw_sweep(axes, series, title="T", x="batch"),
            lambda axes: draw_curves(axes, curves, title="U", y="top-1"),
        ],
        tmp_path / "figure.svg",
    )
    text = (tmp_path / "figure.svg").read_text()
    assert all(word in text for word in (">256<", ">epochs<", ">batch<", ">T<", ">U<"))


def test_python_m_commbench_is_commbench() -> None:
    told = subprocess.check_output(
        [sys.executable, "-m", "commbench", "--version"], text=True, timeout=60
    )
    assert told.startswith("commbench, version")
