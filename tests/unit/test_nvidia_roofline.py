"""What `commbench reproduce nvidia-roofline` measures, makes of it, and keeps."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from commbench import reproduce
from commbench.cli.reproduce import command
from commbench.pipeline import measure as measuring
from commbench.pipeline.roofline import Rate, Roofline
from commbench.reproduce import Outcome, nvidia_roofline
from commbench.reproduce.nvidia_roofline import CASES, Measured
from commbench.workloads.data.files import open_pictures


def roofline(decode: float, whole: float, train: float) -> Roofline:
    inputs = [
        Rate(stage, 0, rate, 0.0, np.inf, 100.0)
        for stage, rate in (("read", 9e3), ("decode", decode), ("augment", 3e3), ("input", whole))
    ]
    training = [Rate("train", batch, train + batch, 0.0, np.inf, 1.0) for batch in (2, 4)]
    return Roofline({}, inputs, training)


def measured(**changes: Roofline) -> Measured:
    rooflines = {
        "resnet50": roofline(800.0, 600.0, 30.0),
        "alexnet": roofline(800.0, 600.0, 3000.0),
        "352": roofline(1000.0, 700.0, 90.0),
        "480": roofline(540.0, 450.0, 90.0),
    }
    return Measured(False, {**rooflines, **changes})


def findings(outcome: Outcome) -> dict[str, bool]:
    return {finding.claim.partition(",")[0]: finding.shows for finding in outcome.findings}


def test_what_bounds_each_model_is_judged() -> None:
    outcome = nvidia_roofline.judge(measured())
    assert outcome.passed
    told = findings(outcome)
    assert told["ResNet-50 is bound by training"]
    assert told["AlexNet is bound by its input"]
    assert not told["files are read no faster than they are decoded"]
    judged = {(cell.row, cell.column) for cell in outcome.cells if cell.passed is not None}
    assert judged == {("352 px over 480 px", "decode, ratio")}
    # The deck's absolute rates are told beside ours.
    printed = {(cell.row, cell.column): cell.printed for cell in outcome.cells}
    assert printed["ResNet-50", "train (images/s)"] == 6000
    assert len(nvidia_roofline.panels(measured())) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"resnet50": roofline(800.0, 31.0, 30.0)},
        {"alexnet": roofline(800.0, 600.0, 90.0)},
        {"480": roofline(990.0, 450.0, 90.0)},
    ],
)
def test_another_outcome_fails(changes: dict[str, Roofline]) -> None:
    assert not nvidia_roofline.judge(measured(**changes)).passed


def test_only_what_is_missing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def measure(settings: measuring.PipelineSettings) -> None:
        assert settings.output is not None
        seen.append(settings.output.stem)
        open_pictures(Path(settings.data or ""))
        settings.output.write_text("a run file")

    monkeypatch.setattr(measuring, "measure", measure)
    monkeypatch.setattr(nvidia_roofline, "_complete", lambda path: path.exists())
    monkeypatch.setattr("commbench.pipeline.roofline.read_roofline", lambda path: path.stem)
    monkeypatch.setattr(nvidia_roofline, "_make_pictures", small(nvidia_roofline._make_pictures))
    said: list[str] = []
    (tmp_path / "480.h5").write_text("an earlier one")
    found = nvidia_roofline.measure(True, tmp_path, said.append)
    assert seen == [name for name in CASES if name != "480"]
    assert found.rooflines == {name: name for name in CASES}
    assert said[0] == "making pictures"
    nvidia_roofline.measure(True, tmp_path, said.append)
    assert len(seen) == len(CASES) - 1


def small(make: object) -> object:
    return lambda scratch, count: make(scratch, 8)  # type: ignore[operator]


def test_the_command_measures_judges_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def measure(quick: bool, folder: Path, say: object) -> Measured:
        asked.append((quick, folder))
        return Measured(quick, measured(alexnet=roofline(800.0, 600.0, 90.0)).rooflines)

    module = SimpleNamespace(
        measure=measure, judge=nvidia_roofline.judge, panels=lambda _: [lambda axes: axes.grid()]
    )
    monkeypatch.setattr(reproduce, "load_reproduction", lambda _: module)
    arguments = ["fake", "--folder", str(tmp_path)]
    assert CliRunner().invoke(command, arguments).exit_code == 1
    result = CliRunner().invoke(command, [*arguments, "--quick"])
    assert result.exit_code == 0, result.output
    assert "Shortened (--quick): nothing is judged" in result.output
    assert asked == [(False, tmp_path / "fake"), (True, tmp_path / "fake-quick")]
    assert (tmp_path / "fake.png").exists()
    refused = CliRunner().invoke(command, ["fake", "results.h5"])
    assert "measures this machine" in str(refused.exception)
