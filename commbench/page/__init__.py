"""The report as one HTML page that needs nothing else: no network, no file beside it.

`answer` says what the runs say, the files named `charts` turn them into data for plotly.js, which
is embedded, `tables` and `provenance` into tables; templates/ and static/ make a page of it all.
Text out of run files is escaped by Jinja, or by JSON; and the page's own security policy lets a
browser run no script but those that the page was made with, and ask no server for anything.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from commbench import __version__
from commbench.errors import UserError
from commbench.experiments import Results
from commbench.figures.sheet import default_title
from commbench.figures.style import Look, looks
from commbench.page import experiment_charts, provenance, sweep_charts, tables, training_charts
from commbench.page.answer import answers
from commbench.page.charts import Chart
from commbench.page.paint import exchange_key, palette
from commbench.record.reader import to_json
from commbench.report import Report, plural
from commbench.reproduce import Cell as NumberCell
from commbench.reproduce import Outcome, load_reproduction


@dataclass(frozen=True)
class Reproduction:
    """A reproduction on the page.

    Attributes:
        name: as `commbench reproduce` has it.
        outcome: with its findings.
        charts: of its panels.
        numbers: accuracy of each variant; of one that is computed, its numbers beside the paper's.
    """

    name: str
    outcome: Outcome
    charts: list[Chart]
    numbers: tables.Table


def write(report: Report, path: Path, title: str | None, size: int | None) -> None:
    """Make the page, whole or not at all.

    Args:
        report: the runs.
        path: of the page; one that is there is replaced.
        title: of the page; by default model, data and exchanges.
        size: of the buffers of the chart over ranks that is shown first.

    Raises:
        UserError: the file cannot be written.
    """
    text = render(report, title, size)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def render(report: Report, title: str | None, size: int | None) -> str:
    """The page as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    look = looks(report.exchanges())
    reproductions = [
        *(_trained(results) for results in report.experiments),
        *(_computed(name, outcome) for name, outcome in report.computed.items()),
    ]
    of_trainings = training_charts.charts(report.trainings, look)
    of_sweeps = sweep_charts.charts(report, size, look)
    every = [*of_trainings, *of_sweeps, *(c for one in reproductions for c in one.charts)]
    told = answers(report, [one.outcome for one in reproductions])
    script = (files("commbench.page") / "static/page.js").read_text(encoding="utf-8")
    plotly = get_plotlyjs()
    environment = Environment(
        loader=PackageLoader("commbench.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        title=title or (default_title(report) if report.exchanges() else "Reproductions"),
        answers=told,
        exchanges=_chips(report, look),
        training_charts=of_trainings,
        training_tables=list(tables.training_tables(report.trainings)),
        sweep_charts=of_sweeps,
        sweep_tables=list(tables.sweep_tables(report)),
        reproductions=reproductions,
        notes=report.notes,
        files=provenance.files(report.facts),
        unlike=provenance.unlike(report.facts),
        counted=plural(len(report.files), "run file"),
        version=__version__,
        style=(files("commbench.page") / "static/page.css").read_text(encoding="utf-8"),
        script=script,
        plotly=plotly,
        # As a browser computes them, of exactly what stands between the tags.
        script_hashes=[_hash(plotly), _hash(script)],
        data=_data(report, look, every),
    )


def _trained(results: Results) -> Reproduction:
    module = load_reproduction(results.name)
    outcome: Outcome = module.judge(results)
    seeds = plural(len({run.seed for run in results.runs}), "seed")
    return Reproduction(
        name=results.name,
        outcome=outcome,
        charts=experiment_charts.charts(results.name, module.panels(results), results),
        numbers=tables.Table(
            f"scores-{results.name}",
            "Accuracy of every variant",
            f"Top-1 at the end in percent: mean and range over {seeds}.",
            ["variant"],
            ["mean", "lowest", "highest", "runs", "diverged", "training"],
            [_scores(results, variant) for variant in results.variants],
        ),
    )


def _computed(name: str, outcome: Outcome) -> Reproduction:
    module = load_reproduction(name)
    panels = module.panels(outcome) if hasattr(module, "panels") else []
    return Reproduction(
        name=name,
        outcome=outcome,
        charts=experiment_charts.charts(name, panels),
        numbers=tables.Table(
            f"scores-{name}",
            "Numbers",
            "Ours beside those in print; a deviation is judged by its band.",
            ["", "quantity", "how it was had"],
            ["ours", "in print", "deviation", "band", ""],
            [_number(cell) for cell in outcome.cells],
        ),
    )


def _number(cell: NumberCell) -> tables.Row:
    def shown(value: float | None, form: str) -> tables.Cell:
        return tables.Cell("-") if value is None else tables.Cell(f"{value:{form}}", value)

    verdict = "" if cell.passed is None else ("ok" if cell.passed else "OUTSIDE")
    return tables.Row(
        [
            *(tables.Cell(text) for text in (cell.row, cell.column, cell.method or "-")),
            shown(cell.ours, ",.5g"),
            shown(cell.printed, ",.5g"),
            shown(cell.deviation, "+.1%"),
            shown(cell.band, ".1%"),
            tables.Cell(f"{verdict} {cell.note}".strip() or "-"),
        ]
    )


def _scores(results: Results, variant: str) -> tables.Row:
    runs, scores = results.of(variant), results.scores(variant)
    diverged = sum(run.diverged for run in runs)
    minutes = sum(run.train_s for run in runs) / 60
    values = [tables.Cell(f"{v:.1f}", v) for v in (scores.mean(), scores.min(), scores.max())]
    counts = [tables.Cell(str(count), count) for count in (len(runs), diverged)]
    return tables.Row(
        [tables.Cell(variant), *values, *counts, tables.Cell(f"{minutes:.1f} min", minutes)]
    )


def _chips(report: Report, look: Mapping[str, Look]) -> list[tuple[str, str]]:
    """The exchanges by which the page can be filtered, with the key of their colour."""
    return [(name, exchange_key(name)) for name in report.exchanges() if name in look]


def _data(report: Report, look: Mapping[str, Look], charts: list[Chart]) -> str:
    """What the script reads, safe within a script element."""
    phases = dict.fromkeys(name for run in report.trainings for name in run.phase_s)
    document = {
        "palette": palette(look, phases),
        "charts": [chart.data() for chart in charts],
    }
    # "</script" and "<!--" would end or change the element that holds it.
    return to_json(document, indent=None).replace("<", "\\u003c")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
