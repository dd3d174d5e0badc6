"""The sign test's interval, against its tables and against what it promises."""

import math

import numpy as np
import pytest

from commbench.paired import RISK, comparisons, median_interval, ratios_to, rounds_needed


# Ranks of the bounds, 95 %, from the tables in print.
@pytest.mark.parametrize(
    ("count", "bounds"),
    [(6, (1, 6)), (8, (1, 8)), (9, (2, 8)), (10, (2, 9)), (20, (6, 15)), (50, (18, 33))],
)
def test_bounds_are_those_of_the_tables(count: int, bounds: tuple[int, int]) -> None:
    shuffled = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
    assert median_interval(shuffled, 0.05) == bounds


@pytest.mark.parametrize("count", [1, 5])
def test_too_few_samples_bound_nothing(count: int) -> None:
    low, high = median_interval(np.ones((3, count)), 0.05)
    assert low.tolist() == [0] * 3
    assert high.tolist() == [math.inf] * 3


def test_many_samples_do_not_overflow() -> None:
    low, high = median_interval(np.arange(5000.0), 1e-4)
    assert 2350 < low < 2500 < high < 2650


def test_it_misses_the_median_no_more_often_than_told() -> None:
    samples = np.random.default_rng(1).lognormal(0, 1, (20_000, 15))
    low, high = median_interval(samples, 0.05)
    assert np.mean((low > 1) | (high < 1)) < 0.05


def test_ratios_are_taken_round_by_round() -> None:
    drift = np.array([1.0, 5, 2, 9, 1, 3, 8])
    seconds = np.stack([[2 * drift, drift, 0.5 * drift]])
    ratios = ratios_to(seconds, own=1)
    assert ratios.median.tolist() == [[2, 1, 0.5]]
    assert ratios.high.tolist() == [[2, 1, 0.5]]


def test_rounds_needed_are_just_enough() -> None:
    for shape in [(1, 2), (5, 12), (6, 3)]:
        count = rounds_needed(shape)
        risk = RISK / comparisons(shape)
        assert median_interval(np.ones(count), risk)[1] == 1
        assert median_interval(np.ones(count - 1), risk)[1] == math.inf
