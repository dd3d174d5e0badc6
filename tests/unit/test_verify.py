import json
import sys
from fractions import Fraction
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest
from click.testing import CliRunner

from commbench import registry
from commbench.cli.verify import command
from commbench.schedule import ClosedForm
from commbench.topologies import tree


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def plug_in(monkeypatch: pytest.MonkeyPatch, **members: object) -> None:
    module = ModuleType("toy_topology")
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, "toy_topology", module)
    entries = [EntryPoint("toy", "toy_topology", registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)


def test_counts_and_formula_are_printed_for_every_size() -> None:
    code, text = run("--exchange", "tree", "--ranks", "8", "--ranks", "5", "--count", "100")
    assert code == 0
    assert text.count("ok") == 2
    # 3 x 400 B in and out of the root, of 8 ranks and of 5; count and formula.
    assert text.count("1,200") == 8


def test_json() -> None:
    code, text = run("--exchange", "ring,none", "--ranks", "4", "--count", "8", "--json")
    ring, none = json.loads(text)
    assert code == 0
    assert ring["counted"] == ring["formula"]
    assert ring["counted"]["rounds"] == 6
    assert ring["counted"]["most_sent_bytes"] == 48
    assert "floor" in none["note"]


def test_a_wrong_schedule_fails_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, schedule=lambda rank, size: tree.schedule(min(rank, 1), size))
    code, text = run("--exchange", "toy", "--ranks", "4")
    assert code == 1
    assert "WRONG" in text
    assert "wrong peer" in text


def test_a_formula_that_drifted_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap = ClosedForm(2, 4, Fraction(1), Fraction(1), Fraction(4))
    plug_in(monkeypatch, schedule=tree.schedule, closed_form=lambda size: cheap)
    code, text = run("--exchange", "toy", "--ranks", "3")
    assert code == 1
    assert "the formula says" in text


def test_ranges_of_ranks() -> None:
    code, text = run("--exchange", "tree", "--ranks", "1-3,8", "--ranks", "2,5", "--json")
    assert code == 0
    assert [verdict["ranks"] for verdict in json.loads(text)] == [1, 2, 3, 8, 5]


@pytest.mark.parametrize("ranks", ["0", "0-3", "8-4", "-3", "3-", "1,,2", "many", "1-2-3", ""])
def test_impossible_numbers_of_ranks_are_told(ranks: str) -> None:
    code, text = run("--exchange", "tree", "--ranks", ranks)
    assert code == 2
    assert "--ranks" in text


def test_all_leaves_out_what_does_not_fit_and_says_so() -> None:
    code, text = run("--exchange", "all", "--ranks", "2-4")
    assert code == 0
    assert text.count("left out") == 2
    assert text.count("left out: --exchange ps-async: an asynchronous exchange") == 1
    assert "left out: --exchange halving-doubling on 3 ranks: works on powers of two" in text
