"""What every model is to the trainer: logits, a loss to minimise and a score to report."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from commbench.workloads.task import Task


class Network(nn.Module):
    """A model of which the forward pass gives logits; by itself a classifier with cross-entropy.

    Attributes:
        task: what it was built for.
        loss_terms: terms of the loss in one sample: 1, or the words of a window. Recorded losses
            are divided by it.
        label_smoothing: share of the target that all classes get alike, in training only (Szegedy
            et al., "Rethinking the Inception architecture", 2016).
        part: which micro-batch of its share a rank computes, from 0: what is carried from batch to
            batch is kept for each.
    """

    loss_terms = 1
    label_smoothing = 0.0
    part = 0

    def __init__(self, task: Task) -> None:
        """Remembers the task."""
        super().__init__()
        self.task = task

    def loss_sum(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """What training minimises, summed over the samples of the batch; a scalar."""
        return self.cross_entropy(self(inputs), targets)

    def cross_entropy(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Of `(n, classes)` logits, summed, with the labels smoothed."""
        return functional.cross_entropy(
            logits, targets, reduction="sum", label_smoothing=self.label_smoothing
        )

    def score(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sums over the samples `(3,) float64`: right at first guess, among five, and the loss.

        A sample with several answers counts as the mean over them.
        """
        return guesses(self(inputs), targets)

    def start_epoch(self) -> None:
        """Forgets what is carried from one batch to the next; called before an epoch's first."""

    @property
    def smallest_batch(self) -> int:
        """The fewest samples a rank can train on: BatchNorm needs two for a variance."""
        norms = (nn.BatchNorm1d, nn.BatchNorm2d)
        return 2 if any(isinstance(module, norms) for module in self.modules()) else 1


def guesses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Of `(n, classes)` logits and `(n,)` answers: see `Network.score`."""
    right = logits.topk(min(5, logits.shape[1])).indices == targets[:, None]
    loss = functional.cross_entropy(logits, targets, reduction="sum")
    return torch.stack([right[:, 0].sum(), right.sum(), loss]).double()
