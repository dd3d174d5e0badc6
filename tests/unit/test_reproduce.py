"""`commbench reproduce`, and what it makes of FireCaffe's Table 1."""

import json
import types

import pytest
from click.testing import CliRunner

from commbench import reproduce
from commbench.cli.reproduce import command
from commbench.errors import UserError
from commbench.reproduce import Cell, Outcome


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == status
    return result.stdout


def test_the_list_tells_what_each_needs() -> None:
    told = json.loads(run("list", "--json"))
    assert set(told) == set(reproduce.reproduction_names())
    assert "Table 1 of FireCaffe" in told["firecaffe-table1"]["what"]
    assert "firecaffe-table1" in run("list")


def test_firecaffes_table_1() -> None:
    told = json.loads(run("firecaffe-table1", "--json"))
    cells = {(cell["row"], cell["column"]): cell for cell in told["cells"]}
    # Counted by hand from the layer tables, in MB and TFLOP.
    for (row, column), ours in {
        ("NiN", "|D| (MB)"): 5792.7,
        ("NiN", "|W| (MB)"): 30.38,
        ("NiN", "TFLOPS"): 6.760,
        ("AlexNet", "|D| (MB)"): 1683.4,
        ("AlexNet", "|W| (MB)"): 249.51,
        ("AlexNet", "TFLOPS"): 6.952,
        ("GoogLeNet", "|D| (MB)"): 19101.6,
        ("GoogLeNet", "|W| (MB)"): 53.51,
        ("GoogLeNet", "TFLOPS"): 9.724,
        ("VGG-19", "|D| (MB)"): 42679.1,
        ("VGG-19", "|W| (MB)"): 574.67,
        ("VGG-19", "TFLOPS"): 120.619,
        ("MSFT-Speech", "|D| / |W|"): 0.49,
    }.items():
        assert cells[row, column]["ours"] == pytest.approx(ours, rel=1e-3)
        assert cells[row, column]["passed"] is True
    unjudged = {key for key, cell in cells.items() if cell["passed"] is None}
    assert unjudged == {
        ("AlexNet", "|D| / |W|"),
        ("VGG-19", "|D| / |W|"),
        ("MSFT-Speech", "TFLOPS"),
    }
    assert all("contradicts itself" in cells[key]["note"] for key in unjudged)
    assert len(cells) == 20
    assert told["passed"] is True


def test_the_table_in_words() -> None:
    text = run("firecaffe-table1")
    lines = [line.split() for line in text.splitlines()]
    assert ["AlexNet", "|D|", "(MB)", "1,683.4", "1,680", "+0.2%", "1.5%", "ok"] in lines
    assert "contradicts itself: 1680 / 249 = 6.75" in text
    assert "17 of 17 numbers in their band" in text


def fake(monkeypatch: pytest.MonkeyPatch, ours: float) -> None:
    """A reproduction that judges one number."""
    cells = (Cell("row", "column", ours, printed=2.0, band=0.1),)
    module = types.SimpleNamespace(run=lambda: Outcome("A figure", "a paper", cells))
    monkeypatch.setattr(reproduce, "load_reproduction", lambda _name: module)


def test_a_number_outside_its_band_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, ours=2.19)
    assert "1 of 1 numbers in their band" in run("fake")
    fake(monkeypatch, ours=2.21)
    assert "OUTSIDE" in run("fake", status=1)
    assert json.loads(run("fake", "--json", status=1))["passed"] is False


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fig4"], "unknown reproduction 'fig4': choose from .*firecaffe-table1"),
        (["firecaffe-table1", "run.h5"], r"keeps no file: drop run\.h5"),
        (["firecaffe-table1", "--quick"], "computed in seconds: drop --quick"),
        (["list", "run.h5"], "takes no file"),
        (["list", "--quick"], "makes nothing"),
        (["all", "run.h5"], "takes no file"),
        (["legw-lstm", "run.h5"], r"run\.h5: no such file"),
        (["legw-lstm", "run.h5", "--quick"], "drop one of the two"),
    ],
)
def test_bad_requests_are_one_line(arguments: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value)
