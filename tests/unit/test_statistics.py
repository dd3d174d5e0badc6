"""BatchNorm's running statistics before an evaluation: the workers' mean, on every rank."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from commbench.replica import Replica
from commbench.workloads.models import build_model


class OneOfThree:
    """The job of a rank whose two peers have all statistics at `others`; one of them a server."""

    def __init__(self, others: float) -> None:
        self.others = others
        self.brought: list[np.ndarray] = []

    def all_sum(self, values: np.ndarray) -> np.ndarray:
        self.brought.append(values)
        return values + self.others

    def broadcast(self, _values: np.ndarray) -> None:
        pass


def ours(spec: str, contributes: bool) -> SimpleNamespace:
    model = build_model(spec, classes=5, image_size=48, width=1 / 16, seed=0)
    for number, buffer in enumerate(model.buffers()):
        buffer.fill_(number)
    return SimpleNamespace(model=model, contributes=contributes)


@pytest.mark.parametrize("contributes", [True, False])
def test_they_are_the_mean_over_the_workers(contributes: bool) -> None:
    job, rank = OneOfThree(others=8.0), ours("alexnet-bn", contributes)
    weights = [weight.clone() for weight in rank.model.parameters()]
    Replica.mean_statistics(rank, job, 2)
    assert len(job.brought) == 1
    assert job.brought[0].any() == contributes
    for number, buffer in enumerate(rank.model.buffers()):
        own = number if contributes else 0
        # The third buffer of each layer counts batches, and stays.
        expected = (own + 8) / 2 if number % 3 < 2 else number
        assert torch.equal(buffer, torch.full_like(buffer, expected))
    assert all(map(torch.equal, rank.model.parameters(), weights))


def test_models_without_any_exchange_nothing() -> None:
    job = OneOfThree(others=8.0)
    Replica.mean_statistics(ours("nin", True), job, 2)
    assert job.brought == []
