"""Tuning without ranks: what samples say, and the file that keeps it."""

import json
import math
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from commbench import tune
from commbench.errors import UserError
from commbench.registry import parse_exchange, parse_exchanges
from commbench.tune import (
    Setting,
    Tuned,
    candidates,
    decide,
    keep,
    look_up,
    merge,
    read,
    require_same_workers,
)

HERE = Setting("node1", "MPICH 5.0.2", 4, 2, "cpu", "float32", "shared-memory")
TUNED = Tuned(
    "native:32767:ring:32K:native",
    [4096, 32768],
    ["native", "ring"],
    [1e-5, 2e-5],
    [1e-5, 3e-5],
    20,
    12,
    {"ring": [[0.9, 1.0, 1.1], [0.0, 0.7, math.inf]]},
)
SIZES = [4096, 32768, 262144, 2097152]


def decided(
    names: list[str], slowest: np.ndarray, sizes: list[int] | None = None, ranks: int = 2
) -> Tuned:
    """Decide on ``(sizes, exchanges, rounds)``; another rank each round is the slowest one."""
    seconds = np.stack([slowest / 2] * ranks, axis=-1)
    for turn in range(slowest.shape[2]):
        seconds[:, :, turn, turn % ranks] = slowest[:, :, turn]
    with h5py.File("sweep.h5", "w", driver="core", backing_store=False) as file:
        file["exchange"] = names
        file["size_bytes"] = (sizes or SIZES)[: len(slowest)]
        file["seconds"] = seconds
        return decide(file)


def noise(seed: int, *shape: int) -> np.ndarray:
    """What a busy machine adds: drift that all of a round share, jitter, and now and then a stall.

    Args:
        seed: of the generator.
        shape: ``(sizes, exchanges, rounds)``.
    """
    random = np.random.default_rng(seed)
    drift = np.exp(0.3 * np.sin(np.arange(shape[2]) / 3 + random.uniform(0, 6, (shape[0], 1, 1))))
    jitter = random.lognormal(0, 0.1, shape)
    return drift * jitter * np.where(random.random(shape) < 0.03, 5, 1)


def test_a_merely_noisy_winner_is_not_taken() -> None:
    names = ["native", *(f"other{number}" for number in range(11))]
    lucky = wrong = 0
    runs = 200
    for seed in range(runs):
        times = noise(seed, 4, len(names), 20)  # all the same but for the noise
        lucky += bool((np.median(times, axis=2).argmin(axis=1) != 0).any())
        wrong += decided(names, times).exchange != "native"
    assert lucky > 0.95 * runs  # the lowest median is nearly always another's
    assert wrong <= 0.05 * runs


@pytest.mark.parametrize(("speed", "rounds"), [(0.7, 20), (0.9, 100)])
def test_a_clear_winner_is_taken(speed: float, rounds: int) -> None:
    names = ["tree", "native", "ring", "torus"]
    taken = 0
    for seed in range(20):
        times = noise(seed, 3, 4, rounds) * np.array([1.3, 1, speed, 1])[:, np.newaxis]
        tuned = decided(names, times)
        taken += tuned.fastest == ["ring"] * 3
        if tuned.fastest == ["ring"] * 3:
            assert tuned.exchange == "native:4095:ring:256K:native"
            for low, median, high in tuned.against_native["ring"]:
                assert 0.5 < low < median < high < 1
    assert taken >= 18


def test_too_few_rounds_show_nothing() -> None:
    times = np.ones((1, 3, 8)) * np.array([1, 0.1, 0.5])[:, np.newaxis]
    few = decided(["native", "tree", "ring"], times[:, :, :6])
    assert (few.exchange, few.rounds, few.rounds_needed) == ("native", 6, 7)
    assert few.against_native["tree"] == [[0, 0.1, math.inf]]
    assert decided(["native", "tree", "ring"], times[:, :, :7]).fastest == ["tree"]


def test_the_time_is_that_of_the_slowest_rank() -> None:
    times = np.ones((1, 2, 12)) * np.array([1, 0.6])[:, np.newaxis]
    tuned = decided(["native", "ring"], times, ranks=3)
    assert (tuned.median_s, tuned.native_s) == ([0.6], [1.0])


def test_between_two_sizes_it_must_be_faster_at_both() -> None:
    # Over native's: the tree wins at 4K and 32K, the ring at 32K, 256K and 2M.
    ratios = [[1, 0.5, 1.2], [1, 0.7, 0.9], [1, 1.5, 0.5], [1, 1.5, 0.5]]
    times = np.ones((4, 3, 30)) * np.array(ratios)[:, :, np.newaxis]
    tuned = decided(["native", "tree", "ring"], times)
    assert tuned.fastest == ["tree", "tree", "ring", "ring"]
    # From 32K on the tree is not known to be faster at 256K, but the ring is at both.
    assert tuned.exchange == "native:4095:tree:32K:ring:2M:native"
    choice = parse_exchange(tuned.exchange)
    for size, name in ((100, "native"), (4096, "tree"), (32768, "tree"), (32772, "ring")):
        assert choice.for_bytes(size, 4).spec == name
    assert choice.for_bytes((2 << 20) + 4, 4).spec == "native"


def test_two_winners_without_common_ground_leave_native_between_them() -> None:
    ratios = [[1, 0.5, 1.2], [1, 1.2, 0.5]]
    times = np.ones((2, 3, 30)) * np.array(ratios)[:, :, np.newaxis]
    tuned = decided(["native", "tree", "ring"], times)
    assert tuned.exchange == "native:4095:tree:4K:native:32767:ring:32K:native"


def test_without_native_the_lowest_median_wins_and_nothing_is_compared() -> None:
    times = np.array([[[3.0, 3, 3], [2, 2, 9]], [[3, 3, 3], [4, 4, 4]]])
    tuned = decided(["tree", "ring"], times)
    assert tuned.fastest == ["ring", "tree"]
    assert tuned.against_native == {}
    # Between the two, the lower product of both medians: 3 * 3 against 2 * 4.
    assert tuned.exchange == "ring:32767:tree"
    assert all(math.isnan(value) for value in tuned.native_s)


@pytest.mark.parametrize(
    ("steps", "spec"),
    [
        ([(7, "native")], "native"),
        (
            [(4095, "native"), (4096, "tree"), (9000, "tree"), (9001, "ring")],
            "native:4095:tree:9000:ring",
        ),
        ([(-1, "native"), (0, "tree"), (3, "tree")], "tree"),
    ],
)
def test_neighbours_merge_into_a_choice_by_size(steps: list[tuple[int, str]], spec: str) -> None:
    assert merge(steps) == spec
    assert parse_exchange(spec).spec == spec


def test_candidates_leave_out_what_cannot_be_chosen_by_size() -> None:
    names = [choice.name for choice in candidates(parse_exchanges("all"), 6, every=True)]
    assert {"native", "tree", "ring"} < set(names)
    assert not {"none", "hybrid", "halving-doubling"} & set(names)
    with pytest.raises(UserError, match="--exchange none, tree:4K:ring: tune finds"):
        candidates(parse_exchanges("none,ring,tree:4K:ring"), 4, every=False)
    with pytest.raises(UserError, match="powers of two"):
        candidates(parse_exchanges("halving-doubling"), 6, every=False)
    with pytest.raises(UserError, match="cannot mix exchanges with a dedicated server"):
        require_same_workers(parse_exchanges("tree,parameter-server@server=dedicated"), 4)


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
    assert look_up(file, HERE) == TUNED.exchange
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


def test_the_file_holds_the_intervals(tmp_path: Path) -> None:
    file = tmp_path / "tuning.json"
    keep(file, HERE, TUNED, Path("a.h5"))
    (entry,) = read(file)
    assert entry["against_native"] == {"ring": [[0.9, 1.0, 1.1], [0.0, 0.7, None]]}
    assert (entry["rounds"], entry["risk"]) == (20, 0.05)
    assert entry["native_s"] == [1e-5, 3e-5]


def test_answers_of_the_first_version_had_no_intervals_and_are_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "tuning.json"
    file.write_text(json.dumps({"format": "commbench tuning", "version": 1, "entries": [{}]}))
    with pytest.raises(UserError, match="run mpirun -n 4 commbench tune first"):
        look_up(file, HERE)
    keep(file, HERE, TUNED, Path("a.h5"))
    assert look_up(file, HERE) == TUNED.exchange


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
