"""Tuning without ranks: what samples say, and the file that keeps it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from commbench import tune
from commbench.errors import UserError
from commbench.registry import parse_exchange, parse_exchanges
from commbench.tune import Setting, Tuned, candidates, keep, look_up, merge, pick, read

HERE = Setting("node1", "MPICH 5.0.2", 4, 2, "cpu", "float32", "shared-memory")
TUNED = Tuned("native:4K:ring", [4096, 32768], ["native", "ring"], [1e-5, 2e-5], [1e-5, 3e-5])


def samples(*exchanges: list[float]) -> np.ndarray:
    """``(1, exchanges, iterations, 2)``: one size, the second rank always the slower one."""
    slowest = np.array([exchanges], np.float64)
    return np.stack([slowest / 2, slowest], axis=-1)


def test_the_lowest_median_of_the_slowest_rank_wins() -> None:
    assert pick(["tree", "ring"], samples([3, 3, 3], [2, 2, 9])) == [1]
    late = samples([3, 3, 3], [2, 2, 2])
    late[0, 1, :, 0] = 4  # the first rank of the second exchange
    assert pick(["tree", "ring"], late) == [0]


def test_native_stays_unless_another_is_clearly_faster() -> None:
    names = ["native", "tree", "ring"]
    assert pick(names, samples([2, 2, 2], [1, 1, 1], [3, 3, 3])) == [1]
    assert pick(names, samples([2, 2, 2], [2, 2, 2], [3, 3, 3])) == [0]
    # Its median is lower, 2.9 against 3, but in three turns of five it was slower than native.
    drifting = [1.1, 2.1, 2.9, 2.9, 9.1]
    assert pick(names, samples([1, 2, 3, 9, 9], drifting, [20] * 5)) == [0]
    # Then the next best is taken, if that one is faster both ways.
    assert pick(names, samples([1, 2, 3.2, 9, 9], drifting, [0.9, 1.9, 3.0, 8, 8])) == [2]


def test_each_size_is_picked_on_its_own() -> None:
    both = np.concatenate([samples([1, 1], [2, 2]), samples([5, 5], [4, 4])])
    assert pick(["native", "ring"], both) == [0, 1]


@pytest.mark.parametrize(
    ("fastest", "spec"),
    [
        (["native"] * 4, "native"),
        (["native", "native", "tree", "ring"], "native:32K:tree:256K:ring"),
        (["tree", "ring", "tree", "tree"], "tree:4K:ring:32K:tree"),
        (["ring@segments=2", *["ring"] * 3], "ring@segments=2:4K:ring"),
    ],
)
def test_neighbours_merge_into_a_choice_by_size(fastest: list[str], spec: str) -> None:
    sizes = [4096, 32768, 262144, 2097152]
    assert merge(sizes, fastest) == spec
    choice = parse_exchange(spec)
    assert [choice.for_bytes(size, 4).spec for size in sizes] == fastest


def test_candidates_leave_out_what_cannot_be_chosen_by_size() -> None:
    names = [choice.name for choice in candidates(parse_exchanges("all"), 6, every=True)]
    assert {"native", "tree", "ring"} < set(names)
    assert not {"none", "hybrid", "halving-doubling"} & set(names)
    with pytest.raises(UserError, match="--exchange none, tree:4K:ring: tune finds"):
        candidates(parse_exchanges("none,ring,tree:4K:ring"), 4, every=False)
    with pytest.raises(UserError, match="powers of two"):
        candidates(parse_exchanges("halving-doubling"), 6, every=False)
    with pytest.raises(UserError, match="cannot mix exchanges with a dedicated server"):
        candidates(parse_exchanges("tree,parameter-server@server=dedicated"), 4, every=False)


def test_the_file_keeps_other_settings_and_replaces_its_own(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "tuning.json"
    others = [
        replace(HERE, **{name: value})  # type: ignore[arg-type]
        for name, value in {
            "host": "node2",
            "mpi": "Open MPI 5.0.8",
            "ranks": 8,
            "ranks_per_node": 4,
            "device": "cuda",
            "dtype": "float16",
            "transport": "mpi",
        }.items()
    ]
    assert len(others) == len(vars(HERE))
    for setting in (HERE, *others):
        keep(file, setting, replace(TUNED, exchange=f"tree:{len(read(file))}:ring"), Path("a.h5"))
    keep(file, HERE, TUNED, Path("b.h5"))
    assert look_up(file, HERE) == "native:4K:ring"
    assert [look_up(file, setting) for setting in others] == [f"tree:{n}:ring" for n in range(1, 8)]
    assert len(read(file)) == 8
    assert [path.name for path in file.parent.iterdir()] == ["tuning.json"]


def test_an_unknown_setting_says_what_to_run(tmp_path: Path) -> None:
    file = tmp_path / "tuning.json"
    with pytest.raises(UserError, match="run mpirun -n 4 commbench tune first"):
        look_up(file, HERE)
    keep(file, replace(HERE, ranks=2), TUNED, Path("a.h5"))
    with pytest.raises(UserError, match="run mpirun -n 4 commbench tune first"):
        look_up(file, HERE)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "cannot read .* as a tuning file"),
        ("[]", "is not a tuning file"),
        ('{"format": "other"}', "is not a tuning file"),
        (json.dumps({"format": "commbench tuning", "version": 9, "entries": []}), "newer"),
    ],
)
def test_a_file_of_another_kind_is_refused_and_left(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "tuning.json"
    file.write_text(text)
    for action in (lambda: look_up(file, HERE), lambda: keep(file, HERE, TUNED, Path("a.h5"))):
        with pytest.raises(UserError, match=told):
            action()
    assert file.read_text() == text


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tuning.json"
    keep(file, HERE, TUNED, Path("a.h5"))
    before = file.read_text()

    def full(part: Path, name: Path) -> None:
        assert json.loads(part.read_text())["entries"]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tune.os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        keep(file, HERE, replace(TUNED, exchange="tree"), Path("b.h5"))
    assert file.read_text() == before
    assert list(tmp_path.iterdir()) == [file]


def test_the_default_file_follows_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert tune.default_file() == Path("/cache/commbench/tuning.json")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert tune.default_file() == Path("/home/me/.cache/commbench/tuning.json")
