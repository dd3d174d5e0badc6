"""Reproductions that are computed: their numbers, their files, and all of them at once."""

import json
import types
from pathlib import Path

import pytest
from click.testing import CliRunner

from commbench import reproduce
from commbench.cli.reproduce import command
from commbench.errors import UserError
from commbench.experiments import Finding, outcomes
from commbench.reproduce import (
    METHODS,
    Cell,
    Outcome,
    Series,
    load_reproduction,
    reproduction_names,
)

ROOT = Path(__file__).parents[2]
DRAWN = [
    name
    for name in reproduction_names()
    if hasattr(load_reproduction(name), "run") and hasattr(load_reproduction(name), "panels")
]
QUICK = ["byteps-spare-servers", "firecaffe-fig4", "jia-steps"]

SOME = Outcome(
    title="A figure",
    source="a paper",
    cells=(
        Cell("a row", "time (s)", 2.0, 2.1, 0.1, method="theory"),
        Cell("a row", "time (s)", 2.2, 2.1, note="told", low=2.0, high=2.4, method="simulated"),
    ),
    notes=("one", "two"),
    findings=(
        Finding("shows", "5 times", True),
        Finding("does not", "1 time", False, False, "too small"),
    ),
    series=(
        Series("a", (1.0, 2.0), (3.0, 4.0), "left"),
        Series("b", (1.0, 2.0, 3.0), (0.0, 1.0, 2.0), "right", "measured"),
    ),
)


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result.stdout


def committed(name: str) -> Path:
    return ROOT / "results" / "reproduce" / f"{name}.h5"


def test_an_outcome_is_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "some.h5"
    outcomes.write(SOME, "some", path)
    assert outcomes.read(path, "some") == SOME
    outcomes.write(SOME, "some", path)
    with pytest.raises(UserError, match="holds a run of some: give one of reproduce other"):
        outcomes.read(path, "other")
    with pytest.raises(UserError, match="holds a run of some"):
        outcomes.write(SOME, "other", path)


def test_an_outcome_may_have_little(tmp_path: Path) -> None:
    little = Outcome("A table", "a paper", (Cell("row", "column", 1.0),))
    outcomes.write(little, "little", tmp_path / "little.h5")
    assert outcomes.read(tmp_path / "little.h5", "little") == little


@pytest.mark.parametrize("name", DRAWN)
def test_the_committed_numbers_hold_and_are_drawn_again(name: str, tmp_path: Path) -> None:
    outcome = outcomes.read(committed(name), name)
    assert outcome.passed
    assert {cell.method for cell in outcome.cells} <= {"", *METHODS}
    assert {one.method for one in outcome.series} <= {"printed", *METHODS}
    module = load_reproduction(name)
    panels = {one.panel for one in outcome.series}
    assert len(module.panels(outcome)) == len(panels)
    for suffix in (".png", ".svg"):
        assert committed(name).with_suffix(suffix).stat().st_size > 10_000


@pytest.mark.parametrize("name", QUICK)
def test_the_committed_numbers_are_those_of_today(name: str, tmp_path: Path) -> None:
    told = json.loads(run(name, "--folder", str(tmp_path), "--json"))
    kept = outcomes.read(committed(name), name)
    # A machine may lack SimGrid, or the files of what was measured elsewhere.
    computed = [cell for cell in told["cells"] if cell["method"] in ("", "theory")]
    known = [cell for cell in kept.cells if cell.method in ("", "theory")]
    assert len(computed) == len(known)
    for mine, theirs in zip(computed, known, strict=True):
        assert (mine["row"], mine["column"]) == (theirs.row, theirs.column)
        assert mine["ours"] == pytest.approx(theirs.ours, rel=1e-6)
    assert outcomes.read(tmp_path / f"{name}.h5", name).passed
    assert "<svg" in (tmp_path / f"{name}.svg").read_text()
    # From the file alone the same figure comes.
    before = (tmp_path / f"{name}.svg").read_bytes()
    run(name, str(tmp_path / f"{name}.h5"), "--json")
    assert (tmp_path / f"{name}.svg").read_bytes() == before


def numbers(name: str, method: str = "theory") -> dict[tuple[str, str], dict[str, float]]:
    told = json.loads(run(name, "--json"))
    assert told["passed"] is True
    return {
        (cell["row"], cell["column"]): cell for cell in told["cells"] if cell["method"] == method
    }


def test_the_document_tells_of_each() -> None:
    text = (ROOT / "docs" / "THEORY.md").read_text()
    for name in reproduction_names():
        if hasattr(load_reproduction(name), "run") and name != "firecaffe-table1":
            assert f"`{name}`" in text
    for name in DRAWN:
        assert f"(../results/reproduce/{name}.png)" in text


def test_firecaffes_hours() -> None:
    nin, googlenet = numbers("firecaffe-table2"), numbers("firecaffe-table3")
    # Computed for these rows with the bandwidth alone: 11.2, 6.06, 3.48, 22.3 and 10.9.
    for table, row, hours in [
        (nin, "NiN, 32 GPUs, batch 256", 11.2),
        (nin, "NiN, 32 GPUs, batch 1024", 6.06),
        (nin, "NiN, 128 GPUs, batch 1024", 3.48),
        (googlenet, "GoogLeNet, 32 GPUs, batch 1024", 22.3),
        (googlenet, "GoogLeNet, 128 GPUs, batch 1024", 10.9),
    ]:
        assert table[row, "time (h)"]["ours"] == pytest.approx(hours, rel=0.02)
    assert googlenet["GoogLeNet, 32 GPUs, batch 1024", "speedup"]["passed"] is None


def test_what_resnet_50_sends() -> None:
    cells = numbers("you-table3", method="")
    assert cells["batch 32", "messages (millions)"]["ours"] == pytest.approx(3.603282)
    assert cells["batch 32768", "messages"]["ours"] == pytest.approx(3519, abs=1)
    assert cells["batch 32", "moved (TB)"]["ours"] == pytest.approx(368.4, rel=1e-3)
    slips = [key for key, cell in cells.items() if cell["passed"] is None]
    assert slips == [("batch 32768", "messages"), ("batch 32768", "moved (GB)")]


def test_a_method_is_a_column_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.SimpleNamespace(run=lambda: SOME)
    monkeypatch.setattr(reproduce, "load_reproduction", lambda _: module)
    text = run("some")
    lines = [line.split() for line in text.splitlines()]
    assert ["a", "row", "time", "(s)", "theory", "2"] in [line[:6] for line in lines]
    assert ["time", "(s)", "simulated", "2.2"] in [line[:4] for line in lines]
    with pytest.raises(UserError, match=r"keeps no file: drop x\.h5"):
        run("some", "x.h5")


def test_all_are_made_and_one_that_fails_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wrong = Outcome("A figure", "a paper", (Cell("row", "column", 2.0, 1.0, 0.1),))

    def unreadable() -> Outcome:
        raise UserError("no such thing")

    made = {"bad": lambda: wrong, "good": lambda: SOME, "lost": unreadable}
    monkeypatch.setattr(reproduce, "reproduction_names", lambda: sorted(made))
    monkeypatch.setattr(
        reproduce, "load_reproduction", lambda name: types.SimpleNamespace(run=made[name])
    )
    text = run("all", "--quick", "--folder", str(tmp_path), status=1)
    lines = [line.split() for line in text.splitlines()]
    assert [line[:2] for line in lines] == [["bad", "FAILED"], ["good", "ok"], ["lost", "FAILED"]]
    assert "0 of 1 numbers in their band" in text
    assert "1 of 1 numbers in their band; 1 of 1 expected effects show" in text
    assert "no such thing" in text
    made = {"good": lambda: SOME}
    told = json.loads(run("all", "--folder", str(tmp_path), "--json"))
    assert [one["name"] for one in told] == ["good"]
