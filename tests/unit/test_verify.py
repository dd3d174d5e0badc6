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
