"""Journals: what TensorBoard and MLPerf's own checker read from them."""

import json
import sys
from pathlib import Path

import pytest
from mlperf_logging.compliance_checker import mlp_compliance
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from commbench.errors import UserError
from commbench.journals import Evaluation, Journals, Step, open_journals
from commbench.telemetry import PHASES

FACTS = {
    "name": "a-run",
    "model": "resnet50@variant=goyal",
    "ranks": 4,
    "hosts": ["here", "here", "there", "there"],
    "seed": 3,
    "global_batch": 64,
    "train_images": 128,
    "test_images": 32,
    "optimizer": "lars",
    "base_lr": 0.25,
    "weight_decay": 5e-5,
    "options": {"accumulate": 2},
}


def keep(journals: Journals) -> None:
    """A run of four steps, tested after each two; the last step is reported after the test."""
    journals.begin(FACTS)
    for step in (1, 2, 3, 4):
        if step == 4:
            evaluate(journals, 4)
        seconds = dict.fromkeys(PHASES, step * 0.001)
        journals.step(Step(step, 2.0 - 0.25 * step, 0.5 * step, 100.0 * step, seconds))
        if step == 2:
            evaluate(journals, 2)


def evaluate(journals: Journals, step: int) -> None:
    journals.evaluating(step, step / 2)
    accuracy = step / 8
    journals.evaluated(Evaluation(step, step / 2, accuracy, 0.9, 1.5, 250.0, last=step == 4))


def lines(path: Path) -> list[dict]:
    return [json.loads(line.removeprefix(":::MLLOG ")) for line in path.read_text().splitlines()]


def test_tensorboard_has_every_step_and_test(tmp_path: Path) -> None:
    with open_journals(tmp_path / "all", None) as journals:
        keep(journals)
    events = EventAccumulator(str(tmp_path / "all" / "a-run"))
    events.Reload()

    def scalars(tag: str) -> list[tuple[int, float]]:
        return [(event.step, event.value) for event in events.Scalars(tag)]

    assert scalars("train/loss") == [(1, 1.75), (2, 1.5), (3, 1.25), (4, 1.0)]
    assert scalars("train/learning_rate") == [(1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)]
    assert scalars("milliseconds/exchange") == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert scalars("test/top1") == [(2, 0.25), (4, 0.5)]


def test_mlperfs_checker_accepts_the_log(tmp_path: Path) -> None:
    path = tmp_path / "mlperf.log"
    with open_journals(None, path) as journals:
        keep(journals)
    checker = mlp_compliance.make_checker("training", "3.1.0", quiet=False, werror=False)
    assert checker.check_file(str(path), "training_3.1.0/common.yaml")
    told = {line["key"]: line for line in lines(path)}
    assert told["submission_benchmark"]["value"] == "resnet"
    assert told["global_batch_size"]["value"] == 64
    assert told["run_stop"]["metadata"]["status"] == "success"
    keys = [line["key"] for line in lines(path)]
    assert keys.count("block_start") == keys.count("block_stop") == keys.count("eval_stop") == 2


def test_a_run_that_fails_is_told_as_aborted(tmp_path: Path) -> None:
    journals = open_journals(None, tmp_path / "log")
    journals.begin(FACTS)
    journals.end("failed")
    assert lines(tmp_path / "log")[-1]["metadata"]["status"] == "aborted"


def test_nothing_is_written_before_the_run_begins(tmp_path: Path) -> None:
    with open_journals(tmp_path / "all", tmp_path / "log"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["all"]


def test_a_missing_library_is_told_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"pip install 'commbench\[tensorboard\]'"):
        open_journals(tmp_path, None)
    monkeypatch.setitem(sys.modules, "mlperf_logging.mllog", None)
    with pytest.raises(UserError, match=r"pip install 'commbench\[mlperf\]'"):
        open_journals(None, tmp_path / "log")


def test_an_earlier_log_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("precious")
    with pytest.raises(UserError, match="log exists"):
        open_journals(None, tmp_path / "log")
