"""Every command of the README and the demo, as written; only shorter, through the environment."""

import re
from pathlib import Path

import h5py
import pytest

from mpirun import run

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 240
SHORT = {
    "COMMBENCH_TRAIN_STEPS": "2",
    "COMMBENCH_TRAIN_IMAGE_SIZE": "39",
    "COMMBENCH_PIPELINE_IMAGE_SIZE": "39",
    "COMMBENCH_PIPELINE_WIDTH": "0.25",
    "COMMBENCH_SWEEP_ITERS": "2",
    "COMMBENCH_SWEEP_WARMUP_ITERS": "1",
    "COMMBENCH_TUNE_ITERS": "2",
    "COMMBENCH_TUNE_WARMUP_ITERS": "1",
}


def commands(page: str) -> list[str]:
    """The lines of the ``sh`` blocks, in order, without their comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def test_the_readme_has_its_commands() -> None:
    told = commands("README.md")
    assert told[0] == "mpirun -n 4 commbench train --model nin --exchange tree"
    assert {"make demo", "make test"} < set(told)


def test_every_readme_command_works(tmp_path: Path) -> None:
    for line in commands("README.md"):
        if line.startswith("make "):
            run(["make", "--dry-run", "-C", str(ROOT), line.split()[1]], TIMEOUT_S)
        elif line != ". .venv/bin/activate":  # the tests run in an activated environment
            run(["sh", "-c", f"cd {tmp_path} && {line}"], TIMEOUT_S, SHORT)
    files = sorted(path.name for path in (tmp_path / "results").glob("*.h5"))
    told = " ".join(commands("README.md"))
    for verb in ("train", "sweep", "tune"):
        runs = len(re.findall(rf"mpirun \S+ \d+ commbench {verb}\b", told))
        assert sum(f"-{verb}-" in name for name in files) == runs > 0, verb
    assert (tmp_path / "results" / "comparison.png").stat().st_size > 20_000
    assert (tmp_path / "results" / "report.html").stat().st_size > 1_000_000


def test_the_demo_trains_sweeps_draws_and_says_where_to_look(tmp_path: Path) -> None:
    script = ROOT / "examples" / "demo.sh"
    result = run(["sh", "-c", f"cd {tmp_path} && sh {script}"], 2 * TIMEOUT_S, SHORT)
    (folder,) = (tmp_path / "results").iterdir()
    figure = folder / "parameter-server-against-tree.png"
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert str(figure.relative_to(tmp_path)) in result.stdout.splitlines()[-4]
    assert str((folder / "report.html").relative_to(tmp_path)) in result.stdout.splitlines()[-3]
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    for exchange in ("tree", "parameter-server"):
        with h5py.File(folder / f"train-{exchange}.h5") as file:
            assert file.attrs["exchange"] == exchange
            assert file.attrs["status"] == "completed"
    for ranks in (2, 4, 8):
        with h5py.File(folder / f"sweep-n{ranks}.h5") as file:
            assert file.attrs["wrong"] == 0


@pytest.mark.parametrize(
    "page",
    [
        *("README.md", "CONTRIBUTING.md", "CHANGELOG.md"),
        *("docs/ARCHITECTURE.md", "docs/RECIPES.md", "docs/REPORT.md", "docs/SIMULATION.md"),
        "docs/EMULATION.md",
    ],
)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text()):
        assert (ROOT / page).parent.joinpath(target).exists(), target
