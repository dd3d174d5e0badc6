"""README's figure is what the runs that come along give."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from commbench.cli.compare import command as compare
from commbench.cli.report import command as report

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "results" / "reference"
RUNS = sorted(str(path) for path in FOLDER.glob("*.h5"))


def texts(figure: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", figure.read_text())


def lines(figure: Path) -> list[list[float]]:
    """The points of every path, rounded: another version may draw the last digit otherwise."""
    drawn = re.findall(r'<path d="([^"]*)"', figure.read_text())
    return [[round(float(n)) for n in re.findall(r"-?\d+\.?\d*", path)] for path in drawn]


def test_the_figure_of_the_readme_is_drawn_from_them(tmp_path: Path) -> None:
    again = tmp_path / "comparison.svg"
    result = CliRunner().invoke(report, [*RUNS, "--output", str(again)], catch_exceptions=False)
    assert result.exit_code == 0
    kept = FOLDER / "comparison.svg"
    assert texts(again) == texts(kept)
    assert lines(again) == lines(kept)


def test_make_figures_draws_it() -> None:
    recipe = re.search(r"^figures:.*\n((?:\t.*\n)*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    assert "report results/reference/*.h5 --output results/reference/comparison" in recipe[1]
    [picture] = re.findall(r"!\[[^]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")
    assert picture == "results/reference/comparison.png"


def test_the_page_begins_with_the_answer(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    CliRunner().invoke(report, [*RUNS, "--output", str(page)], catch_exceptions=False)
    headline = re.search(r"<h1>([^<]*)</h1>", page.read_text())
    assert headline is not None
    assert "times as fast as parameter-server on 8 ranks, 32 MiB" in headline[1]


@pytest.mark.parametrize("name", ["tree", "parameter-server"])
def test_the_trainings_can_be_compared(name: str) -> None:
    files = [str(FOLDER / f"train-{one}.h5") for one in ("tree", "parameter-server")]
    arguments = [*files, "--baseline", str(FOLDER / f"train-{name}.h5")]
    result = CliRunner().invoke(compare, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "final top-1 of the other" in result.stdout
