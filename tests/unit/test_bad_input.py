"""Bad input is told in one line: numbers that are none or too large, files that are damaged."""

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from commbench.cli import main
from commbench.errors import UserError
from commbench.memory import require_room, told_of_memory
from commbench.record import RunFile, open_run, summary, sweep_groups
from commbench.sweep import step_sizes
from commbench.transport.link import Link
from commbench.tune import read, require_writable
from commbench.units import Bytes, Window, seconds_given


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("train --epochs nan", "'--epochs': nan is not a finite number"),
        ("train --evaluate-every inf", "'--evaluate-every': inf is not a finite number"),
        ("train --timeout nan", "'--timeout': nan is not a finite number"),
        ("train --seed 99999999999999999999", "'--seed'"),
        ("train --threads 100000", "'--threads'"),
        ("train --loaders 100000", "'--loaders'"),
        ("train --trace-steps ²:³", "--trace-steps ²:³"),
        ("sweep -f nan", "'--stepfactor': nan is not a finite number"),
        ("sweep -b 99999999999999999999", "is more than any machine can address"),
        ("sweep -b 1 -e 1G -i 1", "more than 10,000 sizes"),
        ("sweep -b 1 -e 1G -f 1.000001", "more than 10,000 sizes"),
        ("verify --exchange ring --ranks 1-99999", "more than 10,000 numbers"),
        ("verify --exchange ring --ranks 99999999999", "not of the form"),
        ("advise --model nin --cluster local --ranks 2 --images-per-s inf", "not a finite number"),
        ("emulate --racks 2 --oversubscription nan", "not a finite number"),
        ("emulate --ranks ²", "--ranks ²"),
        ("train --bogus", "No such option"),
        ("report", "Missing argument"),
    ],
)
def test_one_line(
    line: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["commbench", *line.split()])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("commbench: error: ")
    assert told in errors
    assert errors.count("\n") == 1


def test_numbers_too_long_to_convert() -> None:
    with pytest.raises(ValueError, match="more than any machine"):
        Bytes("9" * 400)
    with pytest.raises(UserError, match="--trace-steps"):
        Window.parse(f"1:{'9' * 5000}")
    with pytest.raises(UserError, match="is not a speed"):
        Link.parse(f"{'9' * 400}gbit")


@pytest.mark.parametrize("text", ["x", "nan", "-1", "inf"])
def test_seconds_in_the_environment(text: str) -> None:
    with pytest.raises(UserError, match=f"NAME={text}: give a number of seconds"):
        seconds_given("NAME", text)
    assert seconds_given("NAME", "0.5") == 0.5


def test_sizes_may_be_many_but_not_too_many() -> None:
    assert len(step_sizes(1, 10_000, None, 1)) == 10_000
    with pytest.raises(UserError, match="more than 10,000 sizes"):
        step_sizes(1, 10_001, None, 1)


def test_memory() -> None:
    require_room("--maxbytes", 1 << 20, 2)
    with pytest.raises(UserError, match="--maxbytes 1152921504606846976: two such buffers"):
        require_room("--maxbytes", 1 << 60, 2)
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 55)
    assert told_of_memory(caught.value).startswith("out of memory: Unable to allocate")
    torchs = "[enforce fail at x.cpp:1] err == 0. DefaultCPUAllocator: can't allocate memory: you"
    assert told_of_memory(RuntimeError(torchs)).startswith("out of memory: can't allocate memory")
    assert told_of_memory(RuntimeError("another")) == told_of_memory(ValueError("x")) == ""


def test_damaged_run_files_are_told_as_such(tmp_path: Path) -> None:
    sound = tmp_path / "sound.h5"
    groups = sweep_groups(
        sizes_bytes=[4, 8],
        exchanges=["ring"],
        iterations=2,
        ranks=2,
        hottest_rank_bytes=[[4.0], [8.0]],
        bound_bytes=[[4.0], [8.0]],
        algorithms=[["ring"], ["ring"]],
    )
    RunFile.create(
        sound, kind="sweep", options={}, seed=0, hosts=["a"], devices=["cpu"], groups=groups
    ).finish()
    data, refused = sound.read_bytes(), 0
    for seed in range(60):
        dice, damaged = random.Random(seed), bytearray(data)
        for _ in range(10):
            damaged[dice.randrange(len(data))] ^= 1 + dice.randrange(255)
        path = tmp_path / f"{seed}.h5"
        path.write_bytes(damaged)
        try:
            summary(path)
        except UserError:
            refused += 1
    assert refused > 20


def test_what_others_raise_while_a_file_is_open_is_not_its_damage(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    RunFile.create(
        path, kind="x", options={}, seed=0, hosts=["a"], devices=["cpu"], groups=[]
    ).finish()
    with pytest.raises(KeyError, match="mine"), open_run(path):
        raise KeyError("mine")
    with pytest.raises(UserError, match="no whole run file"), open_run(path) as file:
        file["nothing"]


@pytest.mark.parametrize("entries", [3, [3], [{"exchange": "ring"}]])
def test_damaged_tuning_files(tmp_path: Path, entries: object) -> None:
    file = tmp_path / "tuning.json"
    file.write_text(json.dumps({"format": "commbench tuning", "version": 2, "entries": entries}))
    with pytest.raises(UserError, match="damaged tuning file"):
        read(file)
    file.write_text(json.dumps({"format": "commbench tuning"}))
    with pytest.raises(UserError, match="damaged tuning file"):
        read(file)


def test_a_tuning_file_that_cannot_be_written_is_refused_before(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "tuning.json")
    with pytest.raises(UserError, match="cannot make the folder"):
        require_writable(Path("/proc/nowhere/tuning.json"))
