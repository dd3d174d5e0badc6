"""Learning rates over the iterations, their joints, and the timetable of a batch that grows."""

from fractions import Fraction

import numpy as np
import pytest

from commbench.errors import UserError
from commbench.workloads.data.timetable import timetable
from commbench.workloads.recipes import schedules
from commbench.workloads.recipes.rates import Decay, Warmup, joined
from commbench.workloads.recipes.scaling import noise_scale, scaled


def test_schedules():
    assert [schedules.constant(0.3)(t) for t in (0, 1000)] == [0.3, 0.3]
    stepped = schedules.step(1.0, every=10, factor=0.5)
    assert [stepped(t) for t in (0, 9, 10, 19, 20, 35)] == [1, 1, 0.5, 0.5, 0.25, 0.125]
    multi = schedules.multistep(1.0, at=[3, 5], factor=0.5)
    assert [multi(t) for t in range(7)] == [1, 1, 1, 0.5, 0.5, 0.25, 0.25]
    piece = schedules.piecewise(2.0, at=[3, 5], factors=[0.5, 1.0, 0.1])
    assert [piece(t) for t in (0, 2, 3, 4, 5, 9)] == [1.0, 1.0, 2.0, 2.0, 0.2, 0.2]
    poly = schedules.polynomial(2.0, steps=100, power=0.5)
    assert [poly(t) for t in (0, 75, 100, 101)] == [2.0, 1.0, 0.0, 0.0]
    cosine = schedules.cosine(2.0, steps=100)
    assert [cosine(t) for t in (0, 50, 100, 101)] == pytest.approx([2.0, 1.0, 0.0, 0.0])
    exponential = schedules.exponential(2.0, every=10, factor=0.25)
    assert [exponential(t) for t in (0, 5, 10, 20)] == pytest.approx([2.0, 1.0, 0.5, 0.125])
    gradual = schedules.gradual(1.0, 3.0, steps=4)
    assert [gradual(t) for t in range(6)] == [1.0, 1.5, 2.0, 2.5, 3.0, 3.0]
    quadratic = schedules.quadratic(1.0, 5.0, steps=4)
    assert [quadratic(t) for t in range(6)] == [1.0, 1.25, 2.0, 3.25, 5.0, 5.0]


def test_places_between_iterations_round_up():
    stepped = schedules.step(1.0, every=Fraction(10, 3), factor=0.5)
    assert [stepped(t) for t in range(8)] == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_joined_schedules_count_from_where_they_begin():
    rise, fall = schedules.gradual(0.0, 1.0, steps=4), schedules.polynomial(1.0, steps=4, power=1)
    joint = schedules.join([rise, fall, schedules.constant(7.0)], at=[4, 6])
    assert [joint(t) for t in range(8)] == [0, 0.25, 0.5, 0.75, 1.0, 0.75, 7.0, 7.0]
    late = schedules.join([rise, schedules.late(fall, by=4)], at=[4])
    assert [late(t) for t in (3, 4)] == [0.75, 0.0]
    for at in ([], [4], [6, 4], [4, 6, 8]):
        with pytest.raises(ValueError, match="joined"):
            schedules.join([rise, fall, fall], at=at)


@pytest.mark.parametrize("kind", ["constant", "gradual", "quadratic"])
@pytest.mark.parametrize("counts_from", ["start", "warmup"])
def test_warmup_and_decay_meet(kind, counts_from):
    decay = Decay("polynomial", power=2.0, counts_from=counts_from)
    warmup = Warmup(kind, length=Fraction(10), start_lr=0.5)
    schedule, steps = joined(
        warmup, decay, base=2.0, start=0.5, stretch=Fraction(10), ratio=1.0, total=1000
    )
    assert steps == 100
    assert schedule(0) == 0.5
    last = {"constant": 0.5, "gradual": 1.985, "quadratic": 1.97015}[kind]
    assert schedule(99) == pytest.approx(last)
    met = 2.0 * 0.9**2 if counts_from == "start" else 2.0
    assert schedule(100) == pytest.approx(met)
    half = 2.0 * (0.5 if counts_from == "start" else 500 / 900) ** 2
    assert schedule(500) == pytest.approx(half)
    assert schedule(1000) == 0.0


def test_a_warmup_that_would_not_rise_is_left_out_and_one_too_long_is_refused():
    decay, warmup = Decay("constant"), Warmup("gradual", length=Fraction(5), scaling="linear")
    common = {"base": 1.0, "stretch": Fraction(1), "total": 90}
    schedule, steps = joined(warmup, decay, start=1.0, ratio=1.0, **common)
    assert (schedule(0), steps) == (1.0, 0)
    with pytest.raises(UserError, match="takes the whole run of 90"):
        joined(warmup, decay, start=0.0, ratio=18.0, **common)


def test_scaling_rules():
    assert [scaled(0.1, rule, 1024, 256) for rule in ("linear", "sqrt", "none")] == [0.4, 0.2, 0.1]
    # Smith's: a fifth of the rate and twice the batch are a tenth of the noise.
    assert noise_scale(0.02, 1000, 64, 0.9) == pytest.approx(noise_scale(0.2, 1000, 64, 0.9) / 10)
    assert noise_scale(0.04, 1000, 128, 0.9) == pytest.approx(noise_scale(0.2, 1000, 64, 0.9) / 10)
    assert noise_scale(0.2, 1000, 128, 0.95) == pytest.approx(noise_scale(0.2, 1000, 64, 0.9))


def test_a_batch_that_grows():
    times = timetable(
        100,
        batch=10,
        workers=2,
        epochs=9,
        steps=None,
        growth=[(Fraction(1, 3), 2), (Fraction(2, 3), 2)],
    )
    # Three epochs each of 10, of 5 and of 2 steps; the last leaves 20 samples out.
    assert times.total_steps == 30 + 15 + 6
    assert [times.batch(step) for step in (0, 29, 30, 44, 45, 50)] == [10, 10, 20, 20, 40, 40]
    assert [times.place(step) for step in (0, 29, 30, 44, 45, 50)] == [
        (0, 0),
        (2, 9),
        (3, 0),
        (5, 4),
        (6, 0),
        (8, 1),
    ]
    assert [times.epochs(step) for step in (0, 15, 30, 45, 51)] == [0, 1.5, 3, 6, 9]
    assert [times.clock(step) for step in (30, 31, 45, 51)] == [30, 32, 60, 90]
    assert times.every(1.0) == [10, 20, 30, 35, 40, 45, 47, 49, 51]
    seen = {times.place(step) for step in range(51)}
    assert len(seen) == 51


@pytest.mark.parametrize("steps", [1, 7, 20, 51, 52])
def test_a_growing_run_of_so_many_steps(steps):
    growth = [(Fraction(1, 3), 2), (Fraction(2, 3), 2)]
    times = timetable(100, batch=10, workers=2, epochs=1, steps=steps, growth=growth)
    assert times.total_steps == steps
    assert times.batch(0) == 10
    epochs = [times.place(step)[0] for step in range(steps)]
    assert epochs == sorted(epochs)
    if steps == 51:
        assert [stage.first_step for stage in times.stages] == [0, 30, 45]


def test_a_constant_batch_keeps_time_by_its_steps():
    times = timetable(103, batch=10, workers=2, epochs=2.5, steps=None)
    assert (times.total_steps, len(times.stages)) == (25, 1)
    assert [times.clock(step) for step in range(26)] == list(range(26))
    assert times.every(1.0) == [10, 20, 25]
    assert times.every(0.25) == [*range(2, 25, 2), 25]
    assert timetable(103, batch=10, workers=2, epochs=0.001, steps=None).total_steps == 1


@pytest.mark.parametrize(
    ("batch", "workers", "told"),
    [(1000, 1, "exceeds the 100"), (60, 1, "grows the batch from 60"), (1, 2, "without a sample")],
)
def test_batches_that_do_not_fit(batch, workers, told):
    with pytest.raises(UserError, match=told):
        timetable(
            100, batch=batch, workers=workers, epochs=9, steps=None, growth=[(Fraction(1, 3), 2)]
        )


def test_a_schedule_follows_the_epochs_where_the_batch_grows():
    times = timetable(1000, batch=10, workers=1, epochs=9, steps=None, growth=[(Fraction(1, 3), 2)])
    drop = schedules.multistep(1.0, at=[300, 600], factor=0.1)
    rates = np.array([drop(times.clock(step)) for step in range(times.total_steps)])
    assert np.flatnonzero(np.diff(rates)).tolist() == [299, 449]
