"""FireCaffe's ladder of rates, mixed precision and staleness: committed results and commands."""

from pathlib import Path

import pytest

from commbench.cli import commands
from commbench.experiments import collected
from commbench.figures import sheet
from commbench.reproduce import load_reproduction
from commbench.workloads.models import parse_model
from commbench.workloads.recipes import load_recipe

NAMES = ("async-staleness", "firecaffe-lr", "mixed-precision")
RESULTS = Path(__file__).parents[2] / "results" / "reproduce"


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_every_variant_is_a_command_line(name: str, quick: bool) -> None:
    experiment = load_reproduction(name).experiment(quick)
    assert experiment.name == name
    assert len(experiment.seeds) == (1 if quick else 3)
    train = commands.commands["train"]
    for variant in experiment.variants:
        train.make_context("train", variant.arguments())
        parse_model(str(variant.options["model"]))
        load_recipe(str(variant.options["recipe"]))


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_results_are_those_of_the_experiment(name: str) -> None:
    module = load_reproduction(name)
    results = collected.read(RESULTS / f"{name}.h5", name)
    experiment = module.experiment(False)
    assert not results.quick
    made = [(run.variant, run.seed) for run in results.runs]
    assert made == [(v.name, seed) for v in experiment.variants for seed in experiment.seeds]
    for run in results.runs:
        variant = next(v for v in experiment.variants if v.name == run.variant)
        assert " ".join(variant.arguments()) in run.command


@pytest.mark.parametrize("name", NAMES)
def test_they_are_drawn_and_judged_as_documented(name: str, tmp_path: Path) -> None:
    module = load_reproduction(name)
    results = collected.read(RESULTS / f"{name}.h5", name)
    outcome = module.judge(results)
    assert outcome.passed
    document = (RESULTS.parents[1] / "docs" / "LARGE-BATCH.md").read_text()
    section = " ".join(document.split(f": `{name}`")[1].split("\n## ")[0].split())
    shows, not_shown = section.split("Does not show:")
    for finding in outcome.findings:
        assert f"{finding.claim}: {finding.measured}" in (shows if finding.shows else not_shown)
    sheet.write_row(module.panels(results), tmp_path / "figure.png")
