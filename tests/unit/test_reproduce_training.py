"""Reproductions that train: their commands, their committed results, what is said of them."""

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from commbench.cli.reproduce import command
from commbench.cli.train import command as train
from commbench.experiments import collected
from commbench.reproduce import load_reproduction, reproduction_names
from commbench.workloads.models import parse_model
from commbench.workloads.recipes import load_recipe

ROOT = Path(__file__).parents[2]
NAMES = [name for name in reproduction_names() if hasattr(load_reproduction(name), "experiment")]


def committed(name: str) -> Path:
    return ROOT / "results" / "reproduce" / f"{name}.h5"


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_every_training_can_be_started(name: str, quick: bool) -> None:
    experiment = load_reproduction(name).experiment(quick)
    assert experiment.name == name
    assert len(experiment.seeds) == (1 if quick else 3)
    for variant in experiment.variants:
        options = train.make_context("train", variant.arguments()).params
        parse_model(options["model"])
        plan = load_recipe(options["recipe"]).plan(options["batch"], 40, options["lr"])
        assert plan.lr(20) > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_results_are_those_of_the_experiment(name: str) -> None:
    results = collected.read(committed(name), name)
    experiment = load_reproduction(name).experiment(quick=False)
    assert not results.quick
    made = [(run.variant, run.seed) for run in results.runs]
    assert made == [(v.name, seed) for v in experiment.variants for seed in experiment.seeds]
    arguments = {variant.name: " ".join(variant.arguments()) for variant in experiment.variants}
    assert all(arguments[run.variant] in run.command for run in results.runs)


@pytest.mark.parametrize("name", NAMES)
def test_the_document_says_what_was_measured(name: str) -> None:
    text = (ROOT / "docs" / "LARGE-BATCH.md").read_text()
    found = re.search(rf"^## [^\n]*`{name}`.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    section = " ".join(found[0].split())
    outcome = load_reproduction(name).judge(collected.read(committed(name), name))
    assert outcome.findings
    for cell in outcome.cells:
        told = [
            (f"{cell.ours:.{digits}f}", f"{cell.low:.{digits}f} to {cell.high:.{digits}f}")
            for digits in (1, 2)
        ]
        assert any(mean in section and seeds in section for mean, seeds in told)
    shows, does_not = section.split("Does not show:")
    for finding in outcome.findings:
        told = " ".join(f"{finding.claim}: {finding.measured}".split())
        assert told in (shows if finding.shows else does_not)
        assert finding.expected or finding.why


@pytest.mark.parametrize("name", NAMES)
def test_they_are_drawn_and_judged_again(name: str, tmp_path: Path) -> None:
    file = shutil.copy(committed(name), tmp_path)
    result = CliRunner().invoke(command, [name, str(file), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["passed"] is True
    assert (tmp_path / f"{name}.png").stat().st_size > 50_000
    assert "<svg" in (tmp_path / f"{name}.svg").read_text()
