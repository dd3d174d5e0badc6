"""Each recipe's numbers at the batches of its paper."""

import math

import pytest

from commbench.errors import UserError
from commbench.workloads.recipes import load_recipe, recipe_names
from commbench.workloads.recipes.outline import outline
from commbench.workloads.recipes.recipe import IMAGENET_IMAGES, OptimizerSettings


def at(name, batch, epochs=None):
    recipe = load_recipe(name)
    return outline(recipe, batch=batch, epochs=epochs or recipe.epochs, images=recipe.images)


def test_every_paper_has_its_recipe():
    assert recipe_names() == [
        "akiba-resnet50-32k",
        "firecaffe-googlenet",
        "firecaffe-nin",
        "goyal-resnet50",
        "jia-alexnet-64k",
        "jia-resnet50-64k",
        "lars-alexnet-bn-16k",
        "lars-alexnet-bn-32k",
        "lars-alexnet-bn-8k",
        "lars-resnet50",
        "legw-lstm-mnist",
        "legw-lstm-ptb",
        "legw-resnet50",
        "smith-resnet50",
    ]


def test_firecaffe_googlenet():
    recipe = load_recipe("firecaffe-googlenet")
    assert recipe.epochs == pytest.approx(72)
    plan = recipe.plan(1024, 84_375)
    assert (plan.lr(0), plan.momentum, plan.weight_decay) == (0.08, 0.9, 2e-4)
    for step in (10_000, 42_187, 84_374):
        assert plan.lr(step) == pytest.approx(0.08 * math.sqrt(1 - step / 84_375), rel=1e-9)


@pytest.mark.parametrize(
    ("batch", "lr"),
    [(128, 0.05), (256, 0.1), (512, 0.2), (1024, 0.4), (2048, 0.8), (4096, 1.6), (8192, 3.2)],
)
def test_goyals_rates(batch, lr):
    made = at("goyal-resnet50", batch)
    assert made.plan.base_lr == pytest.approx(lr)
    per_epoch = IMAGENET_IMAGES // batch
    warm = 5 * per_epoch
    assert made.plan.lr(warm) == pytest.approx(lr)
    # From 0.1 by equal increments; none at 256 and below.
    assert made.plan.lr(0) == pytest.approx(min(lr, 0.1))
    increments = [made.plan.lr(t + 1) - made.plan.lr(t) for t in range(warm)]
    assert increments == pytest.approx([(max(lr, 0.1) - 0.1) / warm] * warm, rel=1e-6, abs=1e-12)
    for epoch, factor in ((30, 0.1), (60, 0.01), (80, 0.001)):
        assert made.plan.lr(epoch * per_epoch - 1) == pytest.approx(10 * factor * lr)
        assert made.plan.lr(epoch * per_epoch) == pytest.approx(factor * lr)
    assert made.recipe.optimizer == OptimizerSettings(kind="sgd", nesterov=True)
    assert (made.plan.momentum, made.plan.weight_decay) == (0.9, 1e-4)


def test_goyal_at_8k_is_the_port_of_intel():
    made = at("goyal-resnet50", 8192)
    moments = [(moment.what, moment.step) for moment in made.moments]
    assert moments[1:5] == [
        ("after warmup", 780),
        ("drop", 4680),
        ("drop", 9360),
        ("drop", 12_480),
    ]


@pytest.mark.parametrize(
    ("name", "batch", "lr", "steps", "warm"),
    [
        ("lars-alexnet-bn-8k", 8192, 10, 15_600, 600),
        ("lars-alexnet-bn-16k", 16_384, 24, 7800, 400),
        ("lars-alexnet-bn-32k", 32_768, 32, 4000, 400),
        ("lars-resnet50", 1024, 9, 125_000, 10_000),
    ],
)
def test_the_solvers_of_lars(name, batch, lr, steps, warm):
    recipe = load_recipe(name)
    plan = recipe.plan(batch, steps)
    assert plan.base_lr == lr
    assert plan.warmup_steps == warm
    assert plan.lr(0) == 1.0
    assert plan.lr(warm // 2) == pytest.approx((1 + lr) / 2)
    # The decay has gone on meanwhile.
    assert plan.lr(warm) == pytest.approx(lr * (1 - warm / steps) ** 2)
    assert plan.lr(steps - 1) == pytest.approx(lr / steps**2)
    assert (recipe.optimizer.kind, recipe.optimizer.trust) == ("lars", 0.001)
    assert (recipe.optimizer.skip, recipe.optimizer.trust_decay) == ((), True)
    assert recipe.bias_decay_multiplier == recipe.bias_lr_multiplier == 1.0
    # Intel counts 7,800 iterations of 16K as 100 epochs.
    assert recipe.epochs == pytest.approx(100, rel=0.03)


@pytest.mark.parametrize(
    ("batch", "lr", "warmup", "iterations"),
    [
        (1024, 5.657, 0.3125, 112_603),
        (2048, 8.0, 0.625, 56_301),
        (4096, 11.31, 1.25, 28_151),
        (8192, 16.0, 2.5, 14_075),
        (16_384, 22.63, 5.0, 7038),
        (32_768, 32.0, 10.0, 3519),
    ],
)
def test_the_table_of_legw(batch, lr, warmup, iterations):
    recipe = load_recipe("legw-resnet50")
    plan = recipe.plan(batch, iterations)
    assert plan.base_lr == pytest.approx(lr, rel=1e-3)
    assert plan.warmup_steps / plan.stretch == pytest.approx(warmup)
    # The same number of iterations at every batch.
    assert float(plan.warmup_steps) == pytest.approx(0.3125 * IMAGENET_IMAGES / 1024, rel=2e-4)
    assert round(plan.warmup_steps) == 391
    assert plan.lr(391) == pytest.approx(lr, rel=2e-3)
    middle = float(plan.warmup_steps + iterations) / 2
    assert plan.lr(round(middle)) == pytest.approx(lr / 4, rel=2e-3)
    assert at("legw-resnet50", batch).timetable.total_steps == pytest.approx(iterations, rel=3e-3)


@pytest.mark.parametrize(("batch", "lr"), [(128, 0.1), (512, 0.2), (8192, 0.8)])
def test_legw_on_mnist(batch, lr):
    made = at("legw-lstm-mnist", batch)
    assert made.plan.base_lr == pytest.approx(lr)
    assert made.timetable.total_steps == 25 * (60_000 // batch)
    assert float(made.plan.warmup_steps) == pytest.approx(0.05 * 60_000 / 128, rel=0.05)
    assert made.plan.lr(made.timetable.total_steps - 1) == pytest.approx(lr)


@pytest.mark.parametrize(("batch", "lr"), [(20, 1.0), (640, math.sqrt(32))])
def test_legw_on_the_penn_treebank(batch, lr):
    made = at("legw-lstm-ptb", batch)
    per_epoch = {20: 2323, 640: 72}[batch]
    assert made.timetable.total_steps == 13 * per_epoch
    assert made.plan.lr(4 * per_epoch - 1) == pytest.approx(lr)
    assert made.plan.lr(4 * per_epoch) == pytest.approx(lr / 2)
    assert made.plan.lr(12 * per_epoch) == pytest.approx(lr / 2**9)
    assert (made.recipe.clip_norm, made.plan.momentum) == (5.0, 0.0)


@pytest.mark.parametrize(("name", "epochs"), [("jia-alexnet-64k", 95), ("jia-resnet50-64k", 90)])
def test_jia(name, epochs):
    made = at(name, 65_536)
    recipe = made.recipe
    assert made.timetable.total_steps == 19 * epochs
    assert (recipe.precision, recipe.optimizer.trust_decay) == ("float16", False)
    assert recipe.bias_decay_multiplier == recipe.norm_decay_multiplier == 0.0
    assert made.plan.base_lr == pytest.approx(32 * math.sqrt(2))
    assert {"reference_lr", "optimizer.trust", "warmup"} <= set(recipe.ours)


def test_akiba():
    made = at("akiba-resnet50-32k", 32_768)
    per_epoch, peak = 39, 12.8
    rates = [made.plan.lr(epoch * per_epoch) for epoch in (0, 39, 40, 69, 70, 84, 85, 89)]
    expected = [0.5, 0.5, 0.075, 0.075, 0.01, 0.01, 0.001, 0.001]
    assert rates == pytest.approx([peak * factor for factor in expected])
    shares = [made.plan.sgd_share(epoch * per_epoch) for epoch in (0, 5, 10, 11, 12, 13, 89)]
    expected = [0.5 * math.exp(-4), 0.5 * math.exp(-2), 0.5, 0.7, 0.9, 1.0, 1.0]
    assert shares == pytest.approx(expected)


def test_akibas_change_is_smooth():
    """Value and slope meet at the center, and nothing jumps where it ends."""
    share = OptimizerSettings(kind="rmsprop-sgd").sgd_share
    slope = [(share(e + 1e-6) - share(e)) / 1e-6 for e in (10 - 1e-6, 10.0)]
    assert slope == pytest.approx([0.2, 0.2], rel=1e-4)
    assert share(12.5 - 1e-9) == pytest.approx(1.0)
    assert load_recipe("goyal-resnet50").plan(256, 90).sgd_share(0) == 1.0


def test_smith():
    made = at("smith-resnet50", 8192)
    assert [(stage.first_epoch, stage.batch) for stage in made.timetable.stages] == [
        (0, 8192),
        (30, 16_384),
    ]
    assert made.timetable.total_steps == 30 * 156 + 60 * 78
    assert made.plan.lr(30 * 156 - 1) == pytest.approx(3.2)
    assert made.plan.lr(30 * 156) == pytest.approx(0.64)
    assert made.plan.lr(30 * 156 + 30 * 78) == pytest.approx(0.064)


@pytest.mark.parametrize("name", recipe_names())
def test_what_is_ours_is_a_key(name):
    """`ours` names keys of the file, or tables of it."""
    import tomllib
    from pathlib import Path

    import commbench.workloads.recipes as package

    text = (Path(package.__path__[0]) / f"{name}.toml").read_text()
    for key in load_recipe(name).ours:
        value = tomllib.loads(text)
        for part in key.split("."):
            value = value[part]


def test_impossible_outlines():
    recipe = load_recipe("legw-resnet50")
    with pytest.raises(UserError, match="takes the whole run"):
        outline(recipe, batch=1024 * 300, epochs=90, images=IMAGENET_IMAGES)
    with pytest.raises(UserError, match="exceeds the 10"):
        outline(recipe, batch=1024, epochs=90, images=10)
    with pytest.raises(UserError, match="epochs"):
        outline(recipe, batch=1024, epochs=math.nan, images=10_000)
