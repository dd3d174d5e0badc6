"""The exchange that CONTRIBUTING.md adds in three steps, built and run as its text says."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from commbench.proof import prove
from commbench.registry import parse_exchange
from mpirun import run

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120


class Example(NamedTuple):
    """The code blocks of the text."""

    files: dict[str, str]
    commands: list[str]


class Installed(NamedTuple):
    """Where the example is, and the commands that the text gives after its installation."""

    folder: Path
    commands: list[str]


def read_example() -> Example:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.split("## Add an exchange in three steps\n")[1]
    files = {}
    commands = []
    for language, name, body in re.findall(r"```(\w+) ?(\S*)\n(.*?)```", section, re.DOTALL):
        if name:
            files[name] = body
        else:
            assert language == "sh", f"a block is neither a named file nor commands: {body}"
            commands += body.splitlines()
    return Example(files, commands)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    example = read_example()
    source = tmp_path_factory.mktemp("source")
    target = tmp_path_factory.mktemp("target")
    for name, body in example.files.items():
        (source / name).write_text(body)
    install, *commands = example.commands
    assert install == "pip install ."
    offline = f"--quiet --no-build-isolation --no-deps --no-index --target {target} {source}"
    run(["sh", "-c", install.replace(".", offline)], TIMEOUT_S)
    return Installed(target, commands)


def test_schedules_are_proved_and_cost_what_they_say(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(installed.folder)
    star = parse_exchange("star")
    for size in range(1, 10):
        counts = prove(star.schedules(size))
        assert counts.messages == 2 * (size - 1)


@pytest.mark.parametrize("program", ["commbench verify", "mpirun -n 3 commbench sweep"])
def test_command(installed: Installed, program: str) -> None:
    (command,) = [line for line in installed.commands if line.startswith(program)]
    result = run(["sh", "-c", command], TIMEOUT_S, {"PYTHONPATH": str(installed.folder)})
    assert "star" in result.stdout


def test_every_command_is_tested(installed: Installed) -> None:
    assert len(installed.commands) == 2
