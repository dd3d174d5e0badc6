"""Data sets, the idx format, and the order of samples."""

import gzip
import hashlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from commbench.errors import UserError
from commbench.workloads.data import data_names, fashion, load_data
from commbench.workloads.data.idx import decode_idx, encode_idx, read_idx
from commbench.workloads.data.order import epoch_order, global_batch, steps_per_epoch, worker_share
from commbench.workloads.task import Task

needs_full = pytest.mark.skipif(
    not fashion.DEBIAN_FOLDER.exists(),
    reason="needs all of Fashion-MNIST: apt-get install dataset-fashion-mnist",
)


def load(name="fashion-mnist-subset", folder=None, classes=10, image_size=48, seed=0):
    task = Task("images", classes=classes, size=image_size)
    return load_data(name, folder=folder, task=task, batch=32, seed=seed)


@pytest.fixture(scope="module")
def subset():
    return load()


def test_shipped_subset_is_balanced_and_small(subset):
    assert (len(subset.train), len(subset.test), subset.classes) == (10_000, 2_000, 10)
    assert np.bincount(subset.train.labels).tolist() == [1000] * 10
    assert np.bincount(subset.test.labels).tolist() == [200] * 10
    assert sum(path.stat().st_size for path in fashion.SUBSET_FOLDER.glob("*.gz")) < 5.3e6
    assert "2017 Zalando SE" in (fashion.SUBSET_FOLDER / "LICENSE").read_text()


def test_batch_shapes_and_range(subset):
    indices = np.array([0, 17, 9_999], np.int64)
    images, labels = subset.train.batch(indices)
    assert images.shape == (3, 3, 48, 48)
    assert images.dtype == torch.float32
    assert images.is_contiguous()
    assert labels.dtype == torch.int64
    assert labels.tolist() == subset.train.labels[indices].tolist()
    assert torch.equal(images[:, 0], images[:, 1])
    assert torch.equal(images[:, 0], images[:, 2])
    # The 0-255 range, not 0-1.
    assert images.max() > 50
    assert -255 <= images.min() < -20


def test_training_images_are_centred():
    dataset = load(image_size=28)
    images, _ = dataset.train.batch(np.arange(10_000))
    assert images.mean(dim=0).abs().max() < 1e-3
    # At 28 pixels resizing changes nothing: image minus mean.
    raw = dataset.test.images[5] - dataset.train.images.mean(axis=0)
    test_image = dataset.test.batch(np.array([5]))[0][0, 0].numpy()
    np.testing.assert_allclose(test_image, raw, atol=1e-3)


def test_resizing_is_bilinear(subset):
    doubled = load(image_size=56).train.batch(np.array([3]))[0][0, 0].numpy()
    small = subset.train.images[3] - subset.train.mean
    # Half-pixel centres: output row 2i+1 lies a quarter of the way from input row i to i+1.
    expected = (9 * small[4, 9] + 3 * small[4, 10] + 3 * small[5, 9] + small[5, 10]) / 16
    assert doubled[9, 19] == pytest.approx(expected, abs=1e-3)


def test_a_sample_does_not_depend_on_its_batch(subset):
    together, _ = subset.train.batch(np.array([4, 8, 15]))
    alone, _ = subset.train.batch(np.array([8]))
    assert torch.equal(together[1:2], alone)


def test_more_classes_than_labels_are_fine_and_fewer_are_not():
    assert load(classes=1000).classes == 1000
    with pytest.raises(UserError, match=r"9 classes: .* use 10 or more"):
        load(classes=9)


def test_bad_requests_say_what_is_allowed(tmp_path):
    with pytest.raises(UserError, match=r"unknown data 'cifar'.*fashion-mnist, .*synthetic"):
        load("cifar")
    with pytest.raises(UserError, match="image size 0"):
        load(image_size=0)
    with pytest.raises(UserError, match=r"fashion-mnist-subset reads no folder.*--data-folder"):
        load(folder=tmp_path)
    with pytest.raises(UserError, match="1 classes: synthetic"):
        load("synthetic", classes=1)
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.*apt-get install.*--data-folder"):
        load("fashion-mnist", folder=tmp_path)
    assert sorted(data_names()) == data_names()


@needs_full
def test_full_data_set_holds_the_subset(subset):
    full = load("fashion-mnist")
    assert (len(full.train), len(full.test)) == (60_000, 10_000)
    first = np.flatnonzero(full.train.labels == 7)[:1000]
    mine = np.flatnonzero(subset.train.labels == 7)
    assert np.array_equal(full.train.images[first], subset.train.images[mine])
    first = np.flatnonzero(full.test.labels == 2)[:200]
    mine = np.flatnonzero(subset.test.labels == 2)
    assert np.array_equal(full.test.images[first], subset.test.images[mine])


@needs_full
def test_subset_can_be_remade(tmp_path):
    script = fashion.SUBSET_FOLDER / "make_subset.py"
    command = [sys.executable, str(script), str(fashion.DEBIAN_FOLDER), str(tmp_path)]
    subprocess.run(command, check=True)
    for name, digest in fashion.SUBSET_SHA256.items():
        remade = (tmp_path / f"{name}.gz").read_bytes()
        shipped = (fashion.SUBSET_FOLDER / f"{name}.gz").read_bytes()
        assert hashlib.sha256(gzip.decompress(remade)).hexdigest() == digest
        assert remade[4:8] == shipped[4:8] == bytes(4)  # gzip's time stamp
        assert gzip.decompress(remade) == gzip.decompress(shipped)


@needs_full
def test_full_data_set_from_a_folder_of_plain_files(tmp_path):
    for name in fashion.FULL_SHA256:
        packed = (fashion.DEBIAN_FOLDER / f"{name}.gz").read_bytes()
        (tmp_path / name).write_bytes(gzip.decompress(packed))
    assert len(load("fashion-mnist", folder=tmp_path).train) == 60_000


@pytest.mark.parametrize("damage", ["cut", "flip", "not gzip", "folder"])
def test_damaged_files_are_named(tmp_path, damage):
    name = fashion.TEST[1]
    path = tmp_path / f"{name}.gz"
    content = (fashion.SUBSET_FOLDER / path.name).read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-20])
    elif damage == "flip":
        raw = bytearray(gzip.decompress(content))
        raw[100] ^= 1
        path.write_bytes(gzip.compress(bytes(raw)))
    elif damage == "not gzip":
        path.write_bytes(b"<html>not found</html>")
    else:
        path.mkdir()
    with pytest.raises(UserError) as caught:
        read_idx(tmp_path, name, fashion.SUBSET_SHA256, "do this")
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith("do this")
    assert "\n" not in str(caught.value)


def test_subset_is_checked_on_load(tmp_path, monkeypatch):
    shutil.copytree(fashion.SUBSET_FOLDER, tmp_path / "copy")
    monkeypatch.setattr(fashion, "SUBSET_FOLDER", tmp_path / "copy")
    assert len(load().train) == 10_000
    (tmp_path / "copy" / f"{fashion.TRAIN[0]}.gz").unlink()
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.*reinstall"):
        load()


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=4).flatmap(
        lambda shape: st.binary(min_size=int(np.prod(shape)), max_size=int(np.prod(shape))).map(
            lambda raw: np.frombuffer(raw, np.uint8).reshape(shape)
        )
    )
)
def test_idx_round_trip(array):
    decoded = decode_idx(encode_idx(array))
    assert decoded.shape == array.shape
    assert np.array_equal(decoded, array)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0", b"\0\0\x0d\x01\0\0\0\0", b"\0\0\x08\x02\0\0\0\x01", b"\0\0\x08\x01\0\0\0\x02a"],
    ids=["empty", "short", "floats", "half a header", "half the data"],
)
def test_bad_idx(content):
    with pytest.raises(ValueError, match=r"idx|header"):
        decode_idx(content)


def test_synthetic_is_a_function_of_the_seed():
    one, same, other = load("synthetic"), load("synthetic"), load("synthetic", seed=1)
    assert (len(one.train), len(one.test)) == (10_000, 2_000)
    assert np.array_equal(one.train.images, same.train.images)
    assert not np.array_equal(one.train.images, other.train.images)
    assert not np.array_equal(one.train.images[:2_000], one.test.images)
    # Pinned: the same bytes on every machine and NumPy version.
    digest = hashlib.sha256(one.test.images.tobytes()).hexdigest()
    assert digest == "b603a6038bc2e99f9eb6406ff4feda244d9d22a5777fc8dfc20d51da48c125fd"


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_synthetic_can_be_learnt(classes):
    data = load("synthetic", classes=classes)
    assert set(data.train.labels) == set(range(classes))
    # Nearest class mean, over at least ten images a class.
    means = np.stack(
        [data.train.images[data.train.labels == c].mean(axis=0) for c in range(classes)]
    )
    flat = means.reshape(classes, -1)
    tests = data.test.images[:200].reshape(200, -1).astype(np.float64)
    distance = (flat**2).sum(axis=1) - 2 * tests @ flat.T
    assert (distance.argmin(axis=1) == data.test.labels[:200]).mean() > 0.95


def test_epoch_order_is_a_pinned_permutation():
    order = epoch_order(1000, seed=5, epoch=2)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(1000))
    assert np.array_equal(order, epoch_order(1000, seed=5, epoch=2))
    assert not np.array_equal(order, epoch_order(1000, seed=5, epoch=3))
    assert not np.array_equal(order, epoch_order(1000, seed=6, epoch=2))
    # Seed and epoch are not interchangeable.
    assert not np.array_equal(order, epoch_order(1000, seed=2, epoch=5))
    # Pinned: the same on every machine and NumPy version.
    assert epoch_order(10, seed=0, epoch=0).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]


def test_batches_cover_an_epoch_but_for_the_remainder():
    order = epoch_order(103, seed=0, epoch=0)
    batches = [global_batch(order, step, 10) for step in range(steps_per_epoch(103, 10))]
    assert np.concatenate(batches).tolist() == order[:100].tolist()
    with pytest.raises(IndexError, match="step 10 of an epoch of 10 steps"):
        global_batch(order, 10, 10)


@given(st.integers(1, 200), st.integers(1, 40))
def test_shares_are_even_and_make_up_the_batch(size, workers):
    batch = epoch_order(size, seed=1, epoch=0)
    shares = [worker_share(batch, worker, workers) for worker in range(workers)]
    assert np.concatenate(shares).tolist() == batch.tolist()
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_impossible_batches():
    assert steps_per_epoch(100, 100, 100) == 1
    with pytest.raises(UserError, match="global batch 101 exceeds the 100 training samples"):
        steps_per_epoch(100, 101)
    with pytest.raises(UserError, match=r"global batch 3 .* 4 workers .* 4 or more"):
        steps_per_epoch(100, 3, 4)
    with pytest.raises(UserError, match="global batch 0"):
        steps_per_epoch(100, 0)
