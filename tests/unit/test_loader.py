"""Batches made ahead by threads: the same ones, in order; what fails, and what takes too long."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from commbench.cli import commands
from commbench.errors import UserError
from commbench.workloads.data import load_data
from commbench.workloads.data.dataset import Dataset, Split, Whole
from commbench.workloads.data.loader import AHEAD, Loader, Request
from commbench.workloads.data.memory import Pool
from commbench.workloads.models.dropout import sample_keys
from commbench.workloads.task import Task
from pictures import CLASSES, image_net


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_net(tmp_path_factory.mktemp("loader") / "imagenet")


def load(path: Path, max_corrupt: int = 20, augment_on: str = "auto") -> Dataset:
    task = Task("images", classes=3, size=24)
    return load_data(
        str(path), folder=None, task=task, batch=8, seed=0, augmentation="fb-resnet",
        max_corrupt=max_corrupt, augment_on=augment_on,
    )  # fmt: skip


def requests(epochs: int = 2, size: int = 5) -> Iterator[Request]:
    for epoch in range(epochs):
        for start in range(0, 24, size):
            indices = np.arange(start, min(24, start + size))
            yield Request(indices, sample_keys(1, epoch, indices).numpy())


def everything(split: Split, threads: int) -> tuple[torch.Tensor, torch.Tensor]:
    with Loader(threads) as loader:
        batches = list(loader.batches(split, requests()))
    asked = np.concatenate([request.indices for request in requests()])
    assert (np.concatenate([batch.request.indices for batch in batches]) == asked).all()
    return torch.cat([b.inputs for b in batches]), torch.cat([b.targets for b in batches])


@pytest.mark.parametrize("augment_on", ["cpu", "device"])
def test_any_number_of_threads_gives_the_same_bits(folder: Path, augment_on: str) -> None:
    split = load(folder, augment_on=augment_on).train
    expected = [split.batch(request.indices, request.keys) for request in requests()]
    for threads in (0, 1, 3):
        inputs, targets = everything(split, threads)
        assert torch.equal(inputs, torch.cat([one[0] for one in expected]))
        assert torch.equal(targets, torch.cat([one[1] for one in expected]))


def test_augmenting_on_the_device_is_nearly_the_same(folder: Path) -> None:
    ours, theirs = (
        everything(load(folder, augment_on=where).train, 1)[0] for where in ("cpu", "device")
    )
    assert (ours - theirs).abs().max() < 0.1  # of a standard deviation


@pytest.mark.gpu
def test_batches_for_a_gpu_are_those_for_the_cpu(folder: Path) -> None:
    split = load(folder, augment_on="device").train
    expected, _ = everything(split, 0)
    with Loader(2, torch.device("cuda")) as loader:
        batches = list(loader.batches(split, requests()))
    assert all(batch.inputs.is_cuda and batch.targets.is_cuda for batch in batches)
    made = torch.cat([batch.inputs for batch in batches]).cpu()
    np.testing.assert_allclose(made, expected, atol=1e-3)


@pytest.mark.parametrize("kind", ["lmdb", "h5"])
def test_threads_share_an_open_file(folder: Path, kind: str) -> None:
    path = folder.parent / f"all.{kind}"
    result = CliRunner().invoke(commands, ["data", "pack", str(folder), str(path)])
    assert result.exception is None
    assert torch.equal(everything(load(path).train, 4)[0], everything(load(folder).train, 0)[0])


def test_memory_is_used_again_when_nobody_holds_it() -> None:
    pool = Pool()
    first, second = (torch.from_numpy(pool.take((3, 4))) for _ in range(2))
    part, places = first[1:], {first.data_ptr(), second.data_ptr()}
    assert len(places) == 2
    del first
    third = torch.from_numpy(pool.take((3, 4)))
    assert third.data_ptr() not in places  # a part is still held
    places.add(third.data_ptr())
    del part, second, third
    again = [torch.from_numpy(pool.take((size,))) for size in (12, 5, 1)]
    assert {one.data_ptr() for one in again} == places
    del again
    assert pool.take((2, 3, 5)).shape == (2, 3, 5)  # larger than any


def test_data_in_memory_is_loaded_alike() -> None:
    task = Task("images", classes=10, size=12)
    split = load_data("synthetic", folder=None, task=task, batch=8, seed=0).train
    assert torch.equal(everything(split, 2)[0], everything(split, 0)[0])


def test_threads_compute_alone_and_end() -> None:
    # Another test's threads may still be ending.
    before, own = set(threading.enumerate()), torch.get_num_threads()
    torch.set_num_threads(3)
    seen = []

    class Asking:
        def begin(self, indices: object, keys: object, device: torch.device) -> Whole:
            def ask() -> tuple[torch.Tensor, torch.Tensor]:
                seen.append((threading.current_thread().name, torch.get_num_threads()))
                return torch.zeros(1), torch.zeros(1)

            return Whole(ask, device)

    try:
        with Loader(2) as loader:
            assert len(set(threading.enumerate()) - before) == 2
            list(loader.batches(Asking(), requests()))  # type: ignore[arg-type]
            found = [torch.get_num_threads()]
            later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
            later.start()
            later.join()
        assert found == [3, 3]
        assert {threads for _, threads in seen} == {1}
        assert {name for name, _ in seen} <= {"loader-0", "loader-1"}
        for thread in threading.enumerate():
            if thread.name.startswith("loader-"):
                thread.join(30)
        assert set(threading.enumerate()) <= before
    finally:
        torch.set_num_threads(own)


def test_batches_are_begun_ahead_of_time() -> None:
    begun: list[int] = []

    class Noting:
        def begin(self, indices: np.ndarray, keys: object, device: torch.device) -> Whole:
            begun.append(int(indices[0]))
            return Whole(lambda: (torch.zeros(1), torch.zeros(1)), device)

    for threads, ahead in ((0, 0), (2, AHEAD)):
        begun.clear()
        with Loader(threads) as loader:
            batches = loader.batches(Noting(), requests(1))  # type: ignore[arg-type]
            next(batches)
            assert len(begun) == 1 + ahead


class Failing:
    """Makes two batches and fails in the third, or never ends."""

    def __init__(self, fail: object) -> None:
        self.fail = fail

    def begin(self, indices: np.ndarray, keys: object, device: torch.device) -> Whole:
        def make() -> tuple[torch.Tensor, torch.Tensor]:
            if indices[0] == 10:
                self.fail()  # type: ignore[operator]
            return torch.from_numpy(indices), torch.zeros(1)

        return Whole(make, device)


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_what_a_thread_raises_comes_out_in_its_turn(threads: int) -> None:
    def fail() -> None:
        raise RuntimeError("no such luck")

    with Loader(threads) as loader:
        batches = loader.batches(Failing(fail), requests())  # type: ignore[arg-type]
        assert [int(next(batches).inputs[0]) for _ in range(2)] == [0, 5]
        with pytest.raises(RuntimeError, match="no such luck") as raised:
            next(batches)
    # With the place where it happened.
    assert raised.traceback[-1].name == "fail"


def test_a_batch_that_does_not_come_is_not_waited_for_for_ever() -> None:
    end = threading.Event()
    with Loader(1, timeout_s=0.1) as loader:
        batches = loader.batches(Failing(end.wait), requests())  # type: ignore[arg-type]
        next(batches)
        next(batches)
        with pytest.raises(TimeoutError, match="batch of 1 parts"):
            next(batches)
        end.set()


@pytest.mark.parametrize("threads", [0, 2])
def test_corrupt_pictures_count_when_their_batch_comes(tmp_path: Path, threads: int) -> None:
    root = image_net(tmp_path / "imagenet")
    for number in (2, 5, 7):
        path = root / "train" / CLASSES[1] / f"{CLASSES[1]}_{number}.JPEG"
        path.write_bytes(path.read_bytes()[:200])
    data = load(root, max_corrupt=2)
    assert data.corrupt is not None
    counts = []
    with Loader(threads) as loader:
        batches = loader.batches(data.train, requests(1, 6))
        for _ in range(2):
            next(batches)
            counts.append(len(data.corrupt.names))
        with pytest.raises(UserError, match=f"3 corrupt pictures, the last train/{CLASSES[1]}/"):
            next(batches)
    assert counts == [0, 1]
