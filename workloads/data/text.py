"""Text for language models: a corpus cut into streams that are read side by side, window by window.

As in TensorFlow's PTB tutorial, the training corpus is cut into as many streams as a global batch
has samples, and step t of an epoch reads the t-th window of each, so that a model can carry its
state from one step to the next. A rank reads the same streams all the time, for its share of a
batch is always the same part of it.

The synthetic corpus has words of Zipf-like frequency, and after every other word its favourite, so
that there is something to learn.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError
from commbench.workloads.data.dataset import Dataset, Whole
from commbench.workloads.data.synthetic import random_bytes

if TYPE_CHECKING:
    import torch

TRAIN_WORDS = 100_000
TEST_WORDS = 10_000
TEST_STREAMS = 20
"""Test samples; fixed, so that no state depends on the number of ranks."""

PTB_FILES = ("ptb.train.txt", "ptb.test.txt")
END_OF_SENTENCE = "<eos>"
UNKNOWN = "<unk>"

_TRAIN, _TEST = 6, 7  # streams of the generator


@dataclass(frozen=True, eq=False)
class Windows:
    """A training corpus; sample t * streams + j is the t-th window of stream j.

    Attributes:
        streams: `(streams, length) int64`, consecutive parts of the corpus.
        words: in a window.
    """

    streams: NDArray[np.int64]
    words: int

    def __len__(self) -> int:
        """Number of samples; the last word of a stream is only predicted."""
        streams, length = self.streams.shape
        return int(streams * ((length - 1) // self.words))

    def batch(
        self, indices: NDArray[np.int64], keys: NDArray[np.int64] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Split.batch`."""
        import torch

        window, stream = np.divmod(indices, len(self.streams))
        places = (window * self.words)[:, None] + np.arange(self.words + 1)
        text = torch.from_numpy(self.streams[stream[:, None], places])
        return text[:, :-1].contiguous(), text[:, 1:].contiguous()

    def begin(
        self, indices: NDArray[np.int64], keys: NDArray[np.int64] | None, device: torch.device
    ) -> Whole:
        """See `Split.begin`."""
        return Whole(partial(self.batch, indices, keys), device)


@dataclass(frozen=True, eq=False)
class WholeStreams:
    """A test corpus; a sample is a whole stream `(length,)`."""

    streams: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.streams)

    def batch(
        self, indices: NDArray[np.int64], keys: NDArray[np.int64] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Split.batch`."""
        import torch

        text = torch.from_numpy(self.streams[indices])
        return text[:, :-1].contiguous(), text[:, 1:].contiguous()

    def begin(
        self, indices: NDArray[np.int64], keys: NDArray[np.int64] | None, device: torch.device
    ) -> Whole:
        """See `Split.begin`."""
        return Whole(partial(self.batch, indices, keys), device)


def text_dataset(
    name: str,
    source: str,
    *,
    vocabulary: int,
    words: int,
    batch: int,
    train: NDArray[np.int64],
    test: NDArray[np.int64],
) -> Dataset:
    """Cuts two corpora `(n,)` of word numbers into samples.

    Args:
        name: what `--data` called it.
        source: where it came from, for the run's record.
        vocabulary: number of words; every word is below it.
        words: in a window.
        batch: the global batch.
        train: the training corpus.
        test: the test corpus.

    Raises:
        UserError: if a stream of the training corpus is shorter than a window and a word.
    """
    most = len(train) // (words + 1)
    if batch > most:
        raise UserError(
            f"global batch {batch}: {name} has {len(train):,} words of training text, enough for "
            f"{most} windows of {words} side by side; use a smaller --batch"
        )
    return Dataset(
        name=name,
        source=source,
        classes=vocabulary,
        train=Windows(_streams(train, batch), words),
        test=WholeStreams(_streams(test, TEST_STREAMS)),
        in_order=True,
    )


def make_text(*, vocabulary: int, words: int, batch: int, seed: int) -> Dataset:
    """100,000 words to train on and 10,000 to test on; the same for a seed."""
    train, test = (
        _corpus(vocabulary, count, seed, stream)
        for count, stream in ((TRAIN_WORDS, _TRAIN), (TEST_WORDS, _TEST))
    )
    return text_dataset(
        "synthetic",
        f"synthetic text, seed {seed}",
        vocabulary=vocabulary,
        words=words,
        batch=batch,
        train=train,
        test=test,
    )


def load_ptb(folder: Path, *, vocabulary: int, words: int, batch: int) -> Dataset:
    """The Penn Treebank in Mikolov's form: a sentence a line, words between blanks.

    Words are numbered by how often they occur in the training text, ties by alphabet, as in
    TensorFlow's tutorial; a line ends in "<eos>". `ptb.valid.txt` is not read: recipes are fixed,
    so nothing is chosen by it.

    Raises:
        UserError: a file is missing, there are more words than `vocabulary`, or a word of the test
            text is not in the training text, nor is "<unk>".
    """
    texts = []
    for name in PTB_FILES:
        try:
            lines = (folder / name).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{folder}: cannot read {name}: text is a folder with {' and '.join(PTB_FILES)}"
            ) from error
        texts.append([word for line in lines for word in (*line.split(), END_OF_SENTENCE)])
    counts = Counter(texts[0])
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    if len(ordered) > vocabulary:
        raise UserError(
            f"vocabulary {vocabulary}: {folder} has {len(ordered)} words, use --classes "
            f"{len(ordered)} or more"
        )
    numbers = {word: number for number, word in enumerate(ordered)}
    missing = next((word for word in texts[1] if word not in numbers), None)
    if missing is not None and UNKNOWN not in numbers:
        raise UserError(
            f"{folder}: {missing!r} of {PTB_FILES[1]} is not in {PTB_FILES[0]}, nor is {UNKNOWN}"
        )
    train, test = (
        np.array([numbers.get(word, numbers.get(UNKNOWN, 0)) for word in text], np.int64)
        for text in texts
    )
    if len(test) < 2 * TEST_STREAMS:
        raise UserError(f"{folder}: {len(test)} words of test text, {2 * TEST_STREAMS} at least")
    return text_dataset(
        str(folder),
        f"text from {folder}, {len(ordered)} words",
        vocabulary=vocabulary,
        words=words,
        batch=batch,
        train=train,
        test=test,
    )


def _streams(corpus: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    length = len(corpus) // count
    return corpus[: count * length].reshape(count, length)


def _corpus(vocabulary: int, count: int, seed: int, stream: int) -> NDArray[np.int64]:
    drawn = random_bytes(seed, stream, 12 * count).view("<u4").reshape(count, 3)
    # Uniform within an octave that is itself uniform: word w about as often as 1 / (w + 1). In
    # integers only, for floating-point logarithms differ between machines.
    octave = drawn[:, 0] % vocabulary.bit_length()
    free = ((1 << octave.astype(np.int64)) + drawn[:, 1] % (1 << octave) - 1) % vocabulary
    text = free.tolist()
    follows = (drawn[:, 2] % 2).tolist()
    for place in range(1, count):
        if follows[place]:
            text[place] = _favourite(text[place - 1], vocabulary)
    return np.array(text, np.int64)


def _favourite(word: int, vocabulary: int) -> int:
    """The word that follows this one every other time, the same in training and test text."""
    return (word * 7 + 3) % vocabulary
