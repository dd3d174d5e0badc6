"""The trainings of goyal-warmup and lars-ablation, and what their committed results came to."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from commbench.cli.reproduce import command
from commbench.cli.train import command as train
from commbench.experiments import Finding, collected
from commbench.figures import sheet
from commbench.reproduce import Outcome, load_reproduction
from commbench.workloads.models import parse_model
from commbench.workloads.recipes import load_recipe

ROOT = Path(__file__).parents[2]
NAMES = ("goyal-warmup", "lars-ablation")


def judged(name: str) -> Outcome:
    results = collected.read(ROOT / "results/reproduce" / f"{name}.h5", name)
    assert not results.quick
    wanted = load_reproduction(name).experiment(quick=False)
    assert results.variants == [variant.name for variant in wanted.variants]
    assert [run.seed for run in results.of(results.variants[0])] == list(wanted.seeds)
    return load_reproduction(name).judge(results)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("quick", [True, False])
def test_every_training_can_be_started(name: str, quick: bool) -> None:
    experiment = load_reproduction(name).experiment(quick)
    assert len(experiment.seeds) == (1 if quick else 3)
    for variant in experiment.variants:
        options = train.make_context("train", variant.arguments()).params
        assert options["batch"] % options["accumulate"] == 0
        parse_model(options["model"])
        recipe = load_recipe(options["recipe"])
        assert recipe.plan(options["batch"], 40, options["lr"]).lr(20) > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_document_says_what_was_measured(name: str) -> None:
    text = (ROOT / "docs/LARGE-BATCH.md").read_text()
    section = re.search(rf"^## [^\n]*`{name}`.*?(?=^## |\Z)", text, re.M | re.S)
    assert section is not None
    for cell in judged(name).cells:
        row = f"| {cell.row} | {cell.ours:.1f} | {cell.low:.1f} to {cell.high:.1f} |"
        assert row in section[0]
    shown = section[0].partition("Does not show")
    for finding in judged(name).findings:
        assert finding.claim in shown[0 if finding.shows else 2].replace("\n  ", " ")


@pytest.mark.parametrize("name", NAMES)
def test_the_results_are_drawn_and_judged_again(name: str, tmp_path: Path) -> None:
    file = ROOT / "results/reproduce" / f"{name}.h5"
    result = CliRunner().invoke(command, [name, str(file), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["passed"] is True
    module = load_reproduction(name)
    sheet.write_row(module.panels(collected.read(file, name)), tmp_path / "figure.svg")
    assert "<svg" in (tmp_path / "figure.svg").read_text()


def test_what_was_not_expected_has_a_reason() -> None:
    findings: list[Finding] = [found for name in NAMES for found in judged(name).findings]
    assert all(found.why for found in findings if not found.expected)
