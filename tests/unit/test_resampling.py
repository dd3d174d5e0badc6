"""Intervals of medians: where they lie, and how often they hold what they promise."""

import math

import numpy as np
import pytest

from commbench.resampling import Estimate, median, paired_ratio, ratio_of_medians


def test_the_interval_holds_the_median_and_narrows_with_the_samples() -> None:
    random = np.random.default_rng(1)
    few, many = (median(random.lognormal(0, 0.2, count)) for count in (30, 3000))
    for one in (few, many):
        assert one.low < 1 < one.high
        assert one.low <= one.value <= one.high
    assert few.high - few.low > 4 * (many.high - many.low)


def test_it_is_the_same_at_every_call() -> None:
    samples = np.random.default_rng(2).random(50)
    assert median(samples) == median(samples)
    assert ratio_of_medians(samples, samples) == ratio_of_medians(samples, samples)


def test_two_runs_alike_differ_by_noise_that_the_interval_shows() -> None:
    samples = np.random.default_rng(3).random(50)
    ratio = ratio_of_medians(samples, samples)
    assert ratio.value == 1
    assert ratio.low < 0.97
    assert ratio.high > 1.03
    assert ratio.verdict() == "unclear"


def covered(correlation: float, runs: int = 100) -> float:
    """How often the interval of 100 samples holds the true median of 0."""
    random = np.random.default_rng(4)
    held = 0
    for _ in range(runs):
        noise = random.normal(size=150)
        samples = np.zeros(150)
        for at in range(1, 150):
            samples[at] = correlation * samples[at - 1] + noise[at]
        one = median(samples[50:])
        held += one.low <= 0 <= one.high
    return held / runs


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_it_holds_nearly_as_often_as_it_says(correlation: float) -> None:
    # Of samples that lean on each other, drawing them one by one would hold 80 times in 100.
    assert covered(correlation) >= 0.85


def test_times_of_one_turn_pair_up_whatever_the_machine_did() -> None:
    random = np.random.default_rng(5)
    drift = random.uniform(1, 10, 20)
    ratio = paired_ratio(3 * drift, drift)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((3, 3, 3))
    assert ratio.verdict() == "slower"
    apart = ratio_of_medians(3 * drift, random.uniform(1, 10, 20))
    assert apart.high - apart.low > 1


@pytest.mark.parametrize("count", [1, 5])
def test_too_few_samples_say_nothing(count: int) -> None:
    samples = np.ones(count)
    for one in (median(samples), ratio_of_medians(samples, np.ones(50))):
        assert (one.value, one.low, one.high) == (1, 0, math.inf)
        assert one.text() == "1.00 (too few samples)"
        assert one.verdict() == "unclear"


def test_nothing_is_not_a_number() -> None:
    for one in (median(np.zeros(0)), ratio_of_medians(np.ones(9), np.zeros(9))):
        assert math.isnan(one.value)
        assert one.text() == "-"


def test_an_estimate_as_text() -> None:
    assert Estimate(1.92, 1.8, 2.05).text() == "1.92 (1.80 to 2.05)"
    assert Estimate(0.5, 0.4, 0.6).verdict() == "faster"
