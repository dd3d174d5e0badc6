"""The LSTM language model of TensorFlow's PTB tutorial, which LEGW trains: two layers of words.

With a vocabulary of 10,000, in 7 tensors:

| size | parameters | hidden | words in a window | dropout | weights start in |
|-|-|-|-|-|-|
| small (the default) | 4,651,600 | 200 | 20 | 0 | +-0.1 |
| medium | 19,775,200 | 650 | 35 | 0.5 | +-0.05 |
| large | 66,022,000 | 1500 | 35 | 0.65 | +-0.04 |

The loss of a sample is summed over the words of its window; state is carried from each window to
the next, gradients are not. Recorded losses are means over words: perplexity is exp(loss).

Source: Zaremba, Sutskever, Vinyals, "Recurrent neural network regularization" (2014);
tensorflow/models tutorials/rnn/ptb.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import nn

from commbench.workloads.models.dropout import SampleDropout
from commbench.workloads.models.layers import Layers, scaled, uniform
from commbench.workloads.models.lstm import Lstm, State
from commbench.workloads.models.network import Network, guesses
from commbench.workloads.task import Task

VOCABULARY = 10_000
DEPTH = 2


@dataclass(frozen=True)
class Size:
    """A row of the table above."""

    hidden: int
    words: int
    dropout: float
    bound: float


SIZES = {
    "small": Size(hidden=200, words=20, dropout=0.0, bound=0.1),
    "medium": Size(hidden=650, words=35, dropout=0.5, bound=0.05),
    "large": Size(hidden=1500, words=35, dropout=0.65, bound=0.04),
}


class PtbLstm(Network):
    """Input `(b, words) int64`, output `(b, words, vocabulary) float32`: logits of the next."""

    def __init__(self, task: Task, size: Size, *, width: float, layers: Layers) -> None:
        """Dropout stands before, between and after the two layers."""
        super().__init__(task)
        hidden, fill = scaled(size.hidden, width), uniform(size.bound)
        self.loss_terms = task.size
        self.embedding = layers.embedding(task.classes, hidden, fill)
        self.lstms = nn.ModuleList(
            Lstm(hidden, hidden, layers=layers, fill=fill, forget_bias=0.0) for _ in range(DEPTH)
        )
        self.drops = nn.ModuleList(SampleDropout(size.dropout, layer=i) for i in range(DEPTH + 1))
        self.classifier = layers.dense(hidden, task.classes, fill=fill, bias=fill)
        self._carried: dict[int, list[State]] = {}

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Logits from a state of zero."""
        return self._read(words, None)[0]

    def loss_sum(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy over `(b, words)` next words, going on from where the last batch ended."""
        logits, states = self._read(inputs, self._carried.get(self.part))
        self._carried[self.part] = [(h.detach(), c.detach()) for h, c in states]
        return self.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def start_epoch(self) -> None:
        """The next batch begins with a state of zero."""
        self._carried.clear()

    def score(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Over `(b, n) int64` texts of any length, each from a state of zero: means over words."""
        totals, states = torch.zeros(3, dtype=torch.float64, device=inputs.device), None
        # Window by window: the logits of a whole text would need gigabytes.
        for start, stop in pairwise([*range(0, inputs.shape[1], self.task.size), inputs.shape[1]]):
            logits, states = self._read(inputs[:, start:stop], states)
            totals += guesses(logits.flatten(0, 1), targets[:, start:stop].flatten())
        return totals / inputs.shape[1]

    def _read(
        self, words: torch.Tensor, states: list[State] | None
    ) -> tuple[torch.Tensor, list[State]]:
        x = self.drops[0](self.embedding(words))
        after = []
        for i, lstm in enumerate(self.lstms):
            x, state = lstm(x, states[i] if states else None)
            x = self.drops[i + 1](x)
            after.append(state)
        return self.classifier(x), after


def task(size: str = "small") -> Task:
    """The published task of a size."""
    return Task("text", classes=VOCABULARY, size=SIZES[size].words)


def build(
    task: Task,
    width: float,
    generator: torch.Generator | None,
    *,
    size: Literal["small", "medium", "large"] = "small",
) -> PtbLstm:
    """Builds the network."""
    return PtbLstm(task, SIZES[size], width=width, layers=Layers(generator))
