"""The HTML page of `commbench report`: what it says, that it needs nothing, that text is text."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h5py
import plotly.graph_objects
import pytest
from click.testing import CliRunner

import commbench
from commbench.cli.report import command
from commbench.errors import UserError
from commbench.experiments import outcomes
from commbench.figures.style import looks, on_dark
from commbench.page import render
from commbench.page.charts import plain, seconds_axis
from commbench.page.sweep_charts import reference
from commbench.report import read_report
from commbench.reproduce import load_reproduction
from run_samples import sweep_file, training_file

SPEEDS = {"none": 0.1, "native": 1.0, "parameter-server": 3.0, "tree": 1.5, "ring": 0.5}
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
COLLECTED = Path(commbench.__file__).parents[1] / "results" / "reproduce"


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text of the scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text.append(data)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        training_file(folder / "tree.h5", "tree", exchange_s=0.01),
        training_file(folder / "server.h5", "parameter-server", exchange_s=0.07),
        *(sweep_file(folder / f"n{ranks}.h5", SPEEDS, ranks=ranks) for ranks in (2, 4, 8)),
        COLLECTED / "mixed-precision.h5",
    ]


@pytest.fixture(scope="module")
def page(files: list[Path]) -> Elements:
    return Elements(render(read_report(files), None, None))


def data_of(page: Elements) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(page.scripts[0])
    return document


def test_it_begins_with_the_answer(page: Elements) -> None:
    text = " ".join(" ".join(page.text).split())
    assert "ring is 6.0 times as fast as parameter-server on 8 ranks, 1 MiB" in text
    assert "tree is 2.0 times as fast as parameter-server in training nin on 4 ranks" in text
    assert "2 of the 2 effects expected in 1 reproduction show" in text


def test_few_samples_tell_nothing(tmp_path: Path) -> None:
    many = sweep_file(tmp_path / "a.h5", {"tree": 2.0, "ring": 1.0}, ranks=4)
    few = sweep_file(tmp_path / "b.h5", {"tree": 2.0, "ring": 1.0}, ranks=8, iterations=3)
    assert "ring is 2.0 times as fast as tree on 4 ranks" in render(
        read_report([many, few]), None, None
    )
    told = render(read_report([few]), None, None)
    assert "Too few samples to tell ring from tree on 8 ranks" in told


def test_trainings_that_differ_in_more_are_not_set_side_by_side(tmp_path: Path) -> None:
    tree = training_file(tmp_path / "tree.h5", "tree")
    other = training_file(tmp_path / "ps.h5", "parameter-server", exchange_s=0.07, lr=0.5)
    told = render(read_report([tree, other]), None, None)
    assert "times as fast as" not in told
    assert "trains nin on 4 ranks to 70.0%" in told
    assert "--lr" in told


def test_it_holds_every_chart_and_plotly_accepts_them(page: Elements) -> None:
    charts = {chart["id"]: chart for chart in data_of(page)["charts"]}
    assert set(charts) == {
        *("accuracy", "steps", "phases", "headroom", "sizes", "ratios", "ranks"),
        *("experiment-mixed-precision-0", "experiment-mixed-precision-1"),
    }
    drawn = {
        attributes["id"] for tag, attributes in page.found if attributes.get("class") == "chart"
    }
    assert drawn == set(charts)
    for chart in charts.values():
        for view in chart["views"]:
            assert view["traces"]
            plotly.graph_objects.Figure(data=view["traces"], layout=view["layout"])
    names = {name: [view["name"] for view in chart["views"]] for name, chart in charts.items()}
    assert names["accuracy"] == ["over time", "over epochs", "test loss"]
    assert names["sizes"] == ["2 ranks", "4 ranks", "8 ranks"]
    assert names["ranks"] == ["4 KiB", "1 MiB"]
    assert charts["sizes"]["shown"] == 2


def test_charts_hold_the_numbers_of_the_files(page: Elements) -> None:
    charts = {chart["id"]: chart for chart in data_of(page)["charts"]}
    traces = {trace["name"]: trace for trace in charts["accuracy"]["views"][0]["traces"]}
    assert traces["tree, 4 ranks"]["x"] == pytest.approx([0.6, 1.2])
    assert traces["tree, 4 ranks"]["y"] == [50, 70]
    phases = {trace["name"]: trace["x"] for trace in charts["phases"]["views"][1]["traces"]}
    assert phases["exchange"] == pytest.approx([100 * 1 / 6, 100 * 7 / 12], rel=1e-4)
    ratios = {trace["name"]: trace for trace in charts["ratios"]["views"][2]["traces"]}
    assert set(ratios) == {"parameter-server", "tree", "ring"}
    assert ratios["tree"]["y"] == pytest.approx([1.5, 1.5], rel=0.01)


def test_exchanges_have_the_colours_of_the_figures(page: Elements) -> None:
    palette = data_of(page)["palette"]
    for name, look in looks(list(SPEEDS)).items():
        assert palette["light"][f"exchange {name}"] == look.colour
        assert palette["dark"][f"exchange {name}"] == on_dark(look.colour)
    for chart in data_of(page)["charts"]:
        for view in chart["views"]:
            assert {trace["meta"]["key"] for trace in view["traces"]} <= set(palette["light"])
    dark = [colour for key, colour in palette["dark"].items() if key.startswith("exchange")]
    assert len(set(dark)) == len(dark)


def test_it_needs_nothing_and_asks_nobody(page: Elements) -> None:
    for tag, attributes in page.found:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "img")
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    [policy] = [
        str(attributes["content"])
        for _, attributes in page.found
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "")
    allowed = re.findall(r"'(sha256-[^']+)'", policy)
    own = [
        f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
        for script in page.scripts[1:]
    ]
    assert allowed == own


def test_text_from_a_file_stays_text(tmp_path: Path) -> None:
    training = training_file(
        tmp_path / "train.h5", EVIL.replace("/", "-"), model=EVIL, data=EVIL, lr=EVIL
    )
    with h5py.File(training, "r+") as file:
        file.attrs.update({"command_line": EVIL, "option_evil": EVIL, "status": EVIL, "note": EVIL})
        file.attrs[f"version_{EVIL.replace('/', '-')}"] = EVIL
    sweep = sweep_file(tmp_path / "sweep.h5", {EVIL: 1.0, "tree": 2.0}, transport=EVIL)
    page = Elements(render(read_report([training, sweep]), f"A title {EVIL}", None))
    assert len(page.scripts) == 3
    assert [tag for tag, _ in page.found if tag == "img"] == []
    assert any(EVIL in text for text in page.text)
    names = {
        trace.get("name", "")
        for chart in data_of(page)["charts"]
        for view in chart["views"]
        for trace in view["traces"]
    }
    # plotly.js takes <a href> in a label for a link.
    assert not [name for name in names if "<" in name]


def test_labels_are_no_markup() -> None:
    assert plain("<a href='x'>a</a> & b") == "&lt;a href='x'&gt;a&lt;/a&gt; &amp; b"


def test_every_option_and_version_is_told(page: Elements, files: list[Path]) -> None:
    text = [one.strip() for one in page.text]
    for name in ("image_size", "git_revision", "cpu_model", "numpy", "mpi_library"):
        assert name in text
    assert any(str(files[0]) in one for one in text)
    assert "MPICH 5.0.2" in text


def test_tables_sort_by_the_number_and_not_its_text(page: Elements) -> None:
    values = [
        attributes["data-value"] for tag, attributes in page.found if "data-value" in attributes
    ]
    assert all(float(str(value)) == float(str(value)) for value in values)
    assert len(values) > 200


def test_only_what_there_is(tmp_path: Path) -> None:
    sweep = sweep_file(tmp_path / "sweep.h5", {"tree": 1.0}, ranks=2)
    charts = data_of(Elements(render(read_report([sweep]), None, None)))["charts"]
    assert [chart["id"] for chart in charts] == ["sizes"]
    training = training_file(tmp_path / "train.h5", "tree", top1=())
    ids = [
        c["id"] for c in data_of(Elements(render(read_report([training]), None, None)))["charts"]
    ]
    assert ids == ["steps", "phases", "headroom"]


def test_every_reproduction_has_a_page() -> None:
    collected = sorted(COLLECTED.glob("*.h5"))
    assert collected
    page = Elements(render(read_report(collected), None, None))
    ids = [chart["id"] for chart in data_of(page)["charts"]]
    for path in collected:
        assert f"experiment-{path.stem}-0" in ids
    for chart in data_of(page)["charts"]:
        for view in chart["views"]:
            plotly.graph_objects.Figure(data=view["traces"], layout=view["layout"])


def test_a_computed_reproduction_has_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "fig4.h5"
    outcomes.write(load_reproduction("firecaffe-fig4").run(), "firecaffe-fig4", path)
    page = Elements(render(read_report([path]), None, None))
    for chart in data_of(page)["charts"]:
        for view in chart["views"]:
            plotly.graph_objects.Figure(data=view["traces"], layout=view["layout"])
    ids = [chart["id"] for chart in data_of(page)["charts"]]
    assert ids == ["experiment-firecaffe-fig4-0", "experiment-firecaffe-fig4-1"]
    text = [one.strip() for one in page.text]
    assert {"256 ranks", "theory", "in print", "ok"} <= set(text)
    assert "Reproductions" in text


def test_a_file_that_nothing_is_drawn_from_is_told(tmp_path: Path) -> None:
    sweep = sweep_file(tmp_path / "sweep.h5", SPEEDS)
    models = COLLECTED.parent / "benchmarks" / "models.h5"
    notes = read_report([sweep, models]).notes
    assert "models.h5: of kind benchmark-models, which a report does not draw." in notes


def test_the_command_writes_a_page_and_says_so(tmp_path: Path) -> None:
    sweep = sweep_file(tmp_path / "sweep.h5", SPEEDS)
    path = tmp_path / "report.html"
    result = CliRunner().invoke(command, [str(sweep), "-o", str(path)], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == f"page: {path}"
    assert path.read_text().startswith("<!doctype html>")
    assert path.stat().st_size < 6_000_000


def test_a_figure_of_reproductions_alone_names_the_page(tmp_path: Path) -> None:
    arguments = [str(COLLECTED / "mixed-precision.h5"), "-o", str(tmp_path / "a.png")]
    with pytest.raises(UserError, match=r"name a page, .*a\.html"):
        CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert not list(tmp_path.iterdir())


def test_what_the_others_are_held_against() -> None:
    assert reference(["none", "ring", "native", "tree"]) == "native"
    assert reference(["ring", "parameter-server"]) == "parameter-server"
    assert reference(["none", "ring"]) == ""


def test_time_axes_have_ticks_within_and_beyond_a_decade() -> None:
    texts = seconds_axis("", [0.0011, 0.0093])["ticktext"]
    assert texts == ["1 ms", "1.5 ms", "2 ms", "3 ms", "5 ms", "7 ms"]
    assert seconds_axis("", [1e-5, 0.2])["ticktext"][:4] == ["10 µs", "20 µs", "50 µs", "100 µs"]
