"""Synthetic text and frames, and the cutting of a corpus into streams and windows."""

import hashlib

import numpy as np
import pytest

from commbench.errors import UserError
from commbench.workloads.data import load_data
from commbench.workloads.data.order import global_batch, steps_per_epoch, worker_share
from commbench.workloads.data.text import text_dataset
from commbench.workloads.task import Task


def cut(words, batch, train=1000, test=400):
    return text_dataset(
        *("corpus", "here"),
        vocabulary=1000,
        words=words,
        batch=batch,
        train=np.arange(train),
        test=np.arange(test),
    )


def test_windows_of_a_stream_follow_each_other():
    data = cut(words=7, batch=4)
    assert data.in_order
    # As the PTB tutorial counts: 1000 // 4 words a stream, less one, in windows of 7.
    assert len(data.train) == 4 * ((250 - 1) // 7)
    order = np.arange(len(data.train))
    for step in range(steps_per_epoch(len(data.train), 4)):
        text, following = data.train.batch(global_batch(order, step, 4))
        start = np.arange(4)[:, None] * 250 + step * 7
        assert text.tolist() == (start + np.arange(7)).tolist()
        assert following.tolist() == (start + np.arange(1, 8)).tolist()


def test_a_worker_keeps_its_streams():
    data = cut(words=7, batch=5)
    order = np.arange(len(data.train))
    shares = [worker_share(global_batch(order, step, 5), 1, 2) for step in range(3)]
    starts = [data.train.batch(share)[0][:, 0] - 7 * step for step, share in enumerate(shares)]
    assert starts[0].tolist() == starts[1].tolist() == starts[2].tolist() == [400, 600, 800]


def test_the_papers_epochs():
    tokens = 929_589
    for words, batch, steps in ((20, 20, 2323), (20, 640, 72), (35, 20, 1327), (35, 640, 41)):
        data = cut(words=words, batch=batch, train=tokens)
        assert steps_per_epoch(len(data.train), batch) == steps


def test_test_streams_are_whole():
    data = cut(words=7, batch=4)
    assert len(data.test) == 20
    text, following = data.test.batch(np.array([0, 19]))
    assert text.tolist() == [list(range(19)), list(range(380, 399))]
    assert following.tolist() == [list(range(1, 20)), list(range(381, 400))]


def test_a_corpus_too_short_for_the_batch_is_refused():
    assert len(cut(words=7, batch=125).train) == 125
    with pytest.raises(UserError, match=r"batch 126: corpus has 1,000 words .* for 125 windows of"):
        cut(words=7, batch=126)


def synthetic(kind, classes=100, size=20, seed=0, batch=10):
    task = Task(kind, classes=classes, size=size)
    return load_data("synthetic", folder=None, task=task, batch=batch, seed=seed)


def test_synthetic_text_is_a_function_of_the_seed():
    one, same, other = synthetic("text"), synthetic("text"), synthetic("text", seed=1)
    assert np.array_equal(one.train.streams, same.train.streams)
    assert not np.array_equal(one.train.streams, other.train.streams)
    assert not np.array_equal(one.train.streams[0, :100], one.test.streams[0, :100])
    # Pinned: the same words on every machine and NumPy version.
    digest = hashlib.sha256(one.test.streams.astype("<i8").tobytes()).hexdigest()
    assert digest == "d68f86b5579614ea2de7ac92a8dd2299d9ec9568004a274d4f5c996671b92a6b"


@pytest.mark.parametrize("vocabulary", [2, 100, 10_000])
def test_synthetic_text_can_be_learnt(vocabulary):
    data = synthetic("text", classes=vocabulary)
    for streams in (data.train.streams, data.test.streams):
        assert streams.min() >= 0
        assert streams.max() < vocabulary
        before, after = streams[:, :-1].ravel(), streams[:, 1:].ravel()
        assert (after == (7 * before + 3) % vocabulary).mean() >= 0.49
    if vocabulary == 10_000:
        # The free words, about half of them, are Zipf's: each octave as often as the next.
        share = np.array([(streams == word).mean() for word in (0, 1, 2, 3)])
        assert share[0] > 1.5 * share[1]
        assert len(np.unique(data.train.streams)) > 5000


def test_synthetic_frames():
    data = synthetic("frames", classes=13, size=44)
    frames, labels = data.train.batch(np.array([0, 5, 9_999]))
    assert frames.shape == (3, 44)
    assert labels.tolist() == [0, 5, 9_999 % 13]
    everything, labels = data.train.batch(np.arange(10_000))
    assert everything.mean().item() == pytest.approx(0, abs=0.1)
    assert everything.std().item() == pytest.approx(1, abs=0.1)
    means = np.stack([everything[labels == c].mean(dim=0).numpy() for c in range(13)])
    tests, answers = data.test.batch(np.arange(2_000))
    distance = ((tests.numpy()[:, None] - means) ** 2).sum(axis=2)
    assert (distance.argmin(axis=1) == answers.numpy()).mean() > 0.95
    digest = hashlib.sha256(data.test.frames.tobytes()).hexdigest()
    assert digest == "a6639065e1627e10c378256f02c9ec3917836c1ad5964470091a364b82a0afb3"


def test_data_of_another_kind_is_refused():
    task = Task("text", classes=100, size=20)
    with pytest.raises(UserError, match=r"holds images, and the model takes text: use --data synt"):
        load_data("fashion-mnist-subset", folder=None, task=task, batch=10, seed=0)


def ptb(folder, train="a b a\nc a <unk>\n", test="a c\nnever b\n"):
    (folder / "ptb.train.txt").write_text(train * 40)
    (folder / "ptb.test.txt").write_text(test * 20)
    task = Task("text", classes=5, size=3)
    return load_data(str(folder), folder=None, task=task, batch=4, seed=0)


def test_ptb_files_are_read_as_in_tensorflows_tutorial(tmp_path):
    data = ptb(tmp_path)
    assert data.in_order
    # By frequency, then alphabet: a 3, <eos> 2, <unk> 1, b 1, c 1 in each piece.
    text, following = data.train.batch(np.array([0]))
    assert text.tolist() == [[0, 3, 0]]
    assert following.tolist() == [[3, 0, 1]]
    text, _ = data.test.batch(np.array([0]))
    assert text.tolist() == [[0, 4, 1, 2, 3]]


def test_ptb_files_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(UserError, match="has 7 words, use --classes 7 or more"):
        ptb(tmp_path, train="d e f a b <unk>\n")
    with pytest.raises(UserError, match=r"'never' of ptb\.test\.txt is not in ptb\.train\.txt"):
        ptb(tmp_path, train="a b a\nc a\n")
    (tmp_path / "ptb.test.txt").unlink()
    task = Task("text", classes=5, size=3)
    with pytest.raises(UserError, match=r"cannot read ptb\.test\.txt"):
        load_data(str(tmp_path), folder=None, task=task, batch=4, seed=0)
    with pytest.raises(UserError, match="holds text, and the model takes images"):
        load_data(str(tmp_path), folder=None, task=Task("images", 5, 3), batch=4, seed=0)
