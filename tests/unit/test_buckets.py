"""Which gradients travel together, and where they lie."""

import pytest
import torch

from commbench.buckets import WHOLE, Fusion, lay_out, parse_fusion, plan_buckets
from commbench.errors import UserError

SIZES = [40, 4, 100, 8, 8]


@pytest.mark.parametrize(
    ("fusion", "counts"),
    [
        (WHOLE, [5]),
        (Fusion(nbytes=0), [1, 1, 1, 1, 1]),
        (Fusion(nbytes=40), [1, 2, 2]),
        (Fusion(nbytes=41), [2, 1, 2]),
        (Fusion(nbytes=10**9), [5]),
        (Fusion(first=2), [3, 2]),
    ],
)
def test_buckets_close_once_they_are_full(fusion: Fusion, counts: list[int]) -> None:
    assert fusion.cut(SIZES) == counts


@pytest.mark.parametrize("first", [5, 9])
def test_a_split_leaves_something_on_both_sides(first: int) -> None:
    with pytest.raises(UserError, match="the model has 5 tensors; give a number from 1 to 4"):
        Fusion(first=first).cut(SIZES)


@pytest.mark.parametrize(
    ("nbytes", "split", "fusion", "spec"),
    [
        (None, None, Fusion(nbytes=4 << 20), "4M"),
        ("all", None, WHOLE, "all"),
        ("none", None, Fusion(nbytes=0), "none"),
        ("1.5K", None, Fusion(nbytes=1536), "1536"),
        (None, 20, Fusion(first=20), None),
    ],
)
def test_options(nbytes: str | None, split: int | None, fusion: Fusion, spec: str | None) -> None:
    assert parse_fusion(nbytes, split) == fusion
    assert fusion.spec == spec


@pytest.mark.parametrize(
    ("nbytes", "split", "told"),
    [("4M", 3, "give one of the two"), ("some", None, "none .* or all")],
)
def test_bad_options(nbytes: str, split: int | None, told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse_fusion(nbytes, split)


def test_gradients_are_views_in_the_order_of_backward() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    model[0].bias.requires_grad_(False)
    gradients = lay_out(plan_buckets(model.parameters(), Fusion(first=1)), torch.zeros)
    assert [bucket.shapes for bucket in gradients.buckets] == [[(1,), (1, 3)], [(3, 2)]]
    assert [(bucket.start, bucket.stop) for bucket in gradients.buckets] == [(0, 4), (4, 10)]
    assert gradients.flat.tolist() == [0] * 10  # no gradient yet
    model[0].weight.grad[2, 1] = 7
    model[1].bias.grad[0] = 5
    assert gradients.flat.tolist() == [5, *[0] * 8, 7]
    model.zero_grad(set_to_none=True)
    gradients.clear()
    model(torch.ones(1, 2)).sum().backward()
    gradients.complete()
    assert gradients.flat[0] == 1
    assert gradients.flat[1:].abs().sum() > 0
    before = gradients.flat.clone()
    model(torch.ones(1, 2)).sum().backward()  # another micro-batch
    assert torch.equal(gradients.flat, 2 * before)
    gradients.clear()
    model[1](torch.ones(1, 3)).sum().backward()
    gradients.complete()
    assert gradients.flat.tolist() == [1.0] * 4 + [0.0] * 6  # what got none is zero again
    assert model[0].weight.grad.tolist() == [[0.0, 0.0]] * 3


def test_gradients_may_stay_where_backward_puts_them() -> None:
    model = torch.nn.Linear(2, 3)
    gradients = lay_out(plan_buckets(model.parameters()), torch.zeros)
    gradients.gathers = False
    gradients.clear()
    model(torch.ones(1, 2)).sum().backward()
    gradients.complete()
    assert model.weight.grad.tolist() == [[1.0, 1.0]] * 3
    assert gradients.flat.tolist() == [0.0] * 9
