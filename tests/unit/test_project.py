"""What holds for the project as a whole: light imports, registered exchanges, short files."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ["torch", "cupy", "matplotlib", "mpi4py", "xarray"]
MODULES = sorted(
    path.relative_to(ROOT)
    for folder in ["commbench", "topologies", "workloads", "tests", "benchmarks", "examples"]
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.fixture(scope="module")
def options() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


@pytest.mark.parametrize(
    "statement",
    ["import commbench", "from commbench.cli import main; main()"],
    ids=["import", "help"],
)
def test_loads_nothing_heavy(statement: str) -> None:
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('loaded:', [m for m in {HEAVY} if m in sys.modules]))\n"
        f"sys.argv = ['commbench', '--help']\n{statement}"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "loaded: []"


def test_the_exchanges_alone_need_no_torch() -> None:
    # 128 ranks would load it 128 times: seconds and memory that a sweep has no use for.
    code = "import sys, commbench.sweep, commbench.tune; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_topology_file_is_an_entry_point_of_its_name(
    options: configparser.ConfigParser,
) -> None:
    lines = options["options.entry_points"]["commbench.topologies"].strip().splitlines()
    registered = dict(re.split(r"\s*=\s*", line) for line in lines)
    files = {path.stem for path in (ROOT / "topologies").glob("*.py")} - {"__init__"}
    assert registered == {name.replace("_", "-"): f"commbench.topologies.{name}" for name in files}


def test_every_package_is_listed(options: configparser.ConfigParser) -> None:
    listed = options["options"]["packages"].split()
    folders = [path.parent.parts for path in MODULES if path.name == "__init__.py"]
    inside = [".".join(parts) for parts in folders if parts[0] == "commbench"]
    mapped = [
        ".".join(["commbench", *parts])
        for parts in folders
        if parts[0] in ("topologies", "workloads")
    ]
    assert sorted(listed) == sorted(inside + mapped)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_modules_are_short(path: Path) -> None:
    lines = len((ROOT / path).read_text().splitlines())
    assert lines < 400, f"{path} has {lines} lines: split it"


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_documents_name_targets_that_exist(document: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = set(
        re.findall(r"(?:^|[`$] ?)make ([a-z]+)", (ROOT / document).read_text(), re.MULTILINE)
    )
    assert named <= targets


def test_every_constraint_is_one_exact_version() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []
    assert len({pin.split("==")[0].lower() for pin in pins}) == len(pins)
