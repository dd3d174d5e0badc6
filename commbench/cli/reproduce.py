"""`commbench reproduce`: the papers' tables and figures made again, ours beside theirs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from commbench.cli.outcome import as_dict, in_bands, show
from commbench.errors import UserError

if TYPE_CHECKING:
    from commbench.reproduce import Outcome


@click.command("reproduce")
@click.argument("name")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="Train a shorter version of NAME, to try it out.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("results/reproduce"),
    show_default=True,
    help="Where NAME.h5 (all its results), NAME.png, NAME.svg and NAME/ (the trainings) go.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def command(name: str, file: Path | None, quick: bool, folder: Path, as_json: bool) -> None:
    """Make a table or figure of a paper again.

    \b
      commbench reproduce list
      commbench reproduce firecaffe-table1
      commbench reproduce legw-lstm
      commbench reproduce legw-lstm results/reproduce/legw-lstm.h5
      commbench reproduce all --quick

    Prints our numbers beside those in print. A NAME that trains does so first, several runs side by
    side; interrupted, it goes on with those that are missing. With the FILE of earlier results it
    computes and trains nothing, and draws beside that. One that measures this machine keeps what it
    measured in NAME/ and does not measure it again. A number is judged by a stated band, but for
    those where the paper contradicts itself, which are marked; an effect, by whether it shows with
    every seed. Exits with 1 if one does not hold. `all` makes everything and ends with a summary.
    """
    from commbench.reproduce import load_reproduction, reproduction_names

    if name in ("list", "all") and file:
        raise UserError(f"`commbench reproduce {name}` takes no file: drop {file}")
    if name == "list":
        if quick:
            raise UserError("`commbench reproduce list` makes nothing: drop --quick")
        _list(as_json)
        return
    if name == "all":
        if not _make_all(reproduction_names(), quick, folder, as_json):
            sys.exit(1)
        return
    module = load_reproduction(name)
    if quick and not _takes_long(module):
        raise UserError(f"{name} is computed in seconds: drop --quick")
    outcome = _make(module, name, file, quick=quick, folder=folder)
    if as_json:
        click.echo(json.dumps(as_dict(name, outcome), indent=2))
    else:
        show(outcome)
    if not outcome.passed:
        sys.exit(1)


def _list(as_json: bool) -> None:
    from commbench.reproduce import load_reproduction, reproduction_names

    told = {}
    for name in reproduction_names():
        module = load_reproduction(name)
        told[name] = {"what": (module.__doc__ or "").split("\n")[0], "needs": module.NEEDS}
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    for name, entry in told.items():
        click.echo(f"{name}\n  {entry['what']}\n  needs {entry['needs']}")


def _takes_long(module: ModuleType) -> bool:
    """Whether it trains or measures, and so has a shorter version."""
    return hasattr(module, "experiment") or hasattr(module, "measure")


def _make_all(names: Sequence[str], quick: bool, folder: Path, as_json: bool) -> bool:
    """Make one after the other; what fails does not keep the others from being made."""
    from commbench.reproduce import load_reproduction

    told: list[dict[str, Any]] = []
    for name in names:
        click.echo(f"{name} ...", err=True)
        start = time.monotonic()
        try:
            outcome = _make(load_reproduction(name), name, None, quick=quick, folder=folder)
        except UserError as error:
            facts = {"passed": False, "told": str(error)}
        else:
            shown = [finding for finding in outcome.findings if finding.expected]
            right = sum(finding.shows for finding in shown)
            effects = f"{right} of {len(shown)} expected effects show" if shown else ""
            said = "; ".join(filter(None, (in_bands(outcome), effects))) or "nothing is judged"
            facts = {"passed": outcome.passed, "told": said}
        told.append({"name": name, **facts, "seconds": round(time.monotonic() - start, 1)})
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        for one in told:
            word = "ok" if one["passed"] else "FAILED"
            click.echo(f"{one['name']:24} {word:6} {one['seconds']:8.1f} s  {one['told']}")
    return all(one["passed"] for one in told)


def _make(
    module: ModuleType, name: str, file: Path | None, *, quick: bool, folder: Path
) -> Outcome:
    """Train or compute it, or read it from a file; write its numbers and draw it."""
    outcome: Outcome
    if _takes_long(module):
        results = _results(module, name, file, quick, folder)
        outcome = _tolerant(module.judge(results)) if results.quick else module.judge(results)
        stem = folder / f"{name}{'-quick' if quick else ''}"
        _draw(module.panels(results), file.with_suffix("") if file else stem)
        return outcome
    if file and not hasattr(module, "panels"):
        raise UserError(f"{name} keeps no file: drop {file}")
    from commbench.experiments import outcomes
    from commbench.record.paths import make_folder

    outcome = outcomes.read(file, name) if file else module.run()
    if hasattr(module, "panels"):
        stem = file.with_suffix("") if file else folder / name
        if not file:
            make_folder(folder)
            outcomes.write(outcome, name, folder / f"{name}.h5")
        _draw(module.panels(outcome), stem)
    return outcome


def _results(module: ModuleType, name: str, file: Path | None, quick: bool, folder: Path) -> Any:
    """The results in the file; without one, trains or measures what is missing."""
    from commbench.experiments import collected
    from commbench.experiments.running import complete

    stem = f"{name}-quick" if quick else name
    if hasattr(module, "measure"):
        if file is not None:
            raise UserError(f"{name} measures this machine and reads no results: drop {file}")
        return module.measure(quick, folder / stem, _say)
    if file is not None:
        if quick:
            raise UserError("--quick trains, and a file has its results: drop one of the two")
        return collected.read(file, name)
    results = complete(
        module.experiment(quick),
        folder / stem,
        quick=quick,
        say=_say,
    )
    collected.write(results, folder / f"{stem}.h5")
    return results


def _say(line: str) -> None:
    click.echo(line, err=True)


def _tolerant(outcome: Outcome) -> Outcome:
    """The outcome of a shortened experiment, which tells what shows and judges nothing."""
    from dataclasses import replace

    findings = tuple(replace(finding, expected=False) for finding in outcome.findings)
    return replace(
        outcome,
        cells=tuple(replace(cell, band=None) for cell in outcome.cells),
        findings=findings,
        notes=(*outcome.notes, "Shortened (--quick): nothing is judged."),
    )


def _draw(panels: Sequence[Callable[[Any], None]], stem: Path) -> None:
    from commbench.figures import sheet

    for suffix in sheet.SUFFIXES:
        sheet.write_row(panels, stem.with_suffix(suffix))
    click.echo(f"figure: {stem.with_suffix('.png')}", err=True)
