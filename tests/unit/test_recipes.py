"""Schedules, recipe files, and Caffe's SGD against independent statements of them."""

import copy
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from commbench.errors import UserError
from commbench.workloads.models import build_model
from commbench.workloads.recipes import load_recipe, recipe_names, schedules
from commbench.workloads.recipes.sgd import CaffeSGD, parameter_groups

VALID = """
reference_batch = 128
reference_lr = 0.1
lr_scaling = "sqrt"
momentum = 0.8
weight_decay = 0

[schedule]
kind = "multistep"
at = [30, 60]
factor = 0.5
reference_steps = 90
"""


@pytest.fixture
def recipe_file(tmp_path):
    def write(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return str(path)

    return write


def test_schedules():
    assert [schedules.constant(0.3)(t) for t in (0, 1000)] == [0.3, 0.3]
    stepped = schedules.step(1.0, every=10, factor=0.5)
    assert [stepped(t) for t in (0, 9, 10, 19, 20, 35)] == [1, 1, 0.5, 0.5, 0.25, 0.125]
    multi = schedules.multistep(1.0, at=[3, 5], factor=0.5)
    assert [multi(t) for t in range(7)] == [1, 1, 1, 0.5, 0.5, 0.25, 0.25]
    poly = schedules.polynomial(2.0, steps=100, power=0.5)
    assert [poly(t) for t in (0, 75, 100, 101)] == [2.0, 1.0, 0.0, 0.0]


def test_places_between_iterations_round_up():
    stepped = schedules.step(1.0, every=Fraction(10, 3), factor=0.5)
    assert [stepped(t) for t in range(8)] == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_firecaffe_nin_is_the_published_run():
    recipe = load_recipe("firecaffe-nin")
    plan = recipe.plan(256, 220_000)
    assert (plan.momentum, plan.weight_decay) == (0.9, 5e-4)
    assert [plan.lr(t) for t in (0, 99_999)] == [0.01, 0.01]
    assert [plan.lr(t) for t in (100_000, 199_999)] == [pytest.approx(1e-3)] * 2
    assert [plan.lr(t) for t in (200_000, 219_999)] == [pytest.approx(1e-4)] * 2


def test_firecaffe_nin_at_batch_1024_is_the_published_run():
    plan = load_recipe("firecaffe-nin").plan(1024, 55_000)
    assert plan.base_lr == pytest.approx(0.04)
    assert plan.lr(24_999) == pytest.approx(0.04)
    assert plan.lr(25_000) == pytest.approx(0.004)
    assert plan.lr(50_000) == pytest.approx(0.0004)


@pytest.mark.parametrize("steps", [1, 2, 7, 22, 1000, 1001])
def test_drops_keep_their_fractions_of_the_run(steps):
    plan = load_recipe("firecaffe-nin").plan(256, steps)
    drops = [t for t in range(1, steps) if plan.lr(t) != plan.lr(t - 1)]
    assert drops == [t for t in (-(-10 * steps // 22), -(-20 * steps // 22)) if t < steps]


def test_lr_scales_with_the_batch_unless_given():
    recipe = load_recipe("firecaffe-nin")
    assert recipe.plan(64, 100).lr(0) == pytest.approx(0.0025)
    given = recipe.plan(64, 100, lr=0.02)
    assert given.base_lr == 0.02
    assert given.lr(99) == pytest.approx(0.0002)


@pytest.mark.parametrize(
    ("batch", "steps", "lr"),
    [(0, 1, None), (1, 0, None), (1, 1, 0.0), (1, 1, -1.0), (1, 1, float("nan"))],
)
def test_impossible_plans(batch, steps, lr):
    with pytest.raises(UserError, match="must be"):
        load_recipe("firecaffe-nin").plan(batch, steps, lr)


def test_recipe_of_ones_own(recipe_file):
    recipe = load_recipe(recipe_file(VALID))
    assert recipe.name == "mine"
    assert (recipe.bias_lr_multiplier, recipe.bias_decay_multiplier) == (1.0, 1.0)
    plan = recipe.plan(512, 9)
    assert plan.base_lr == pytest.approx(0.2)
    assert [plan.lr(t) for t in (2, 3, 5, 6)] == pytest.approx([0.2, 0.1, 0.1, 0.05])


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ('kind = "constant"', [0.1, 0.1, 0.1]),
        ('kind = "polynomial"\npower = 2', [0.1, 0.025, 0.0]),
    ],
)
def test_other_schedules(recipe_file, schedule, rates):
    head = VALID.partition("[schedule]")[0]
    plan = load_recipe(recipe_file(f"{head}[schedule]\n{schedule}\n")).plan(128, 10)
    assert [plan.lr(t) for t in (0, 5, 10)] == pytest.approx(rates)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("momentum = 0.8", "momentun = 0.8", ["momentum is missing"]),
        ("momentum = 0.8", "momentum = 0.8\nnesterov = 1", ["unknown key nesterov", "momentum"]),
        ("factor = 0.5", "factor = 0.5\nevery = 2", ["unknown key schedule.every", "schedule.at"]),
        ("momentum = 0.8", "momentum = 1", ["momentum = 1", "at least 0 and below 1"]),
        ("momentum = 0.8", "momentum = true", ["momentum = True", "a number"]),
        ("momentum = 0.8", "momentum = nan", ["momentum = nan", "a number"]),
        ("momentum = 0.8", 'momentum = "0.8"', ["momentum = '0.8'", "a number"]),
        ("weight_decay = 0", "weight_decay = inf", ["weight_decay = inf", "at least 0"]),
        ("reference_lr = 0.1", "reference_lr = 0", ["reference_lr = 0", "above 0"]),
        ("reference_batch = 128", "reference_batch = 1.5", ["= 1.5", "whole number, 1 or more"]),
        ('"sqrt"', '"cube"', ["lr_scaling = 'cube'", "linear, sqrt, none"]),
        ('"multistep"', '"cosine"', ["schedule.kind = 'cosine'", "polynomial"]),
        ('"multistep"', "[1]", ["schedule.kind = [1]", "polynomial"]),
        ("at = [30, 60]", "at = [60, 30]", ["schedule.at", "increasing"]),
        ("at = [30, 60]", "at = []", ["schedule.at", "increasing"]),
        ("at = [30, 60]", "at = [0, 60]", ["schedule.at", "1 or more"]),
        ("[schedule]", "[plan]", ["schedule is missing"]),
        ("momentum = 0.8", "momentum = ", ["not a TOML file"]),
        ("momentum = 0.8", "description = 3\nmomentum = 0.8", ["description = 3", "a string"]),
        ("[schedule]", "schedule = 3\n[more]", ["schedule = 3", "a table"]),
    ],
)
def test_bad_recipe_files_say_where_and_what(recipe_file, old, new, words):
    assert old in VALID
    path = recipe_file(VALID.replace(old, new))
    with pytest.raises(UserError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert path in message
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_unknown_recipes(tmp_path):
    with pytest.raises(UserError, match=r"unknown recipe 'goyal'.*firecaffe-nin.*\.toml file"):
        load_recipe("goyal")
    with pytest.raises(UserError, match="cannot read recipe"):
        load_recipe(str(tmp_path / "none.toml"))
    with pytest.raises(UserError, match="cannot read recipe"):
        load_recipe(str(tmp_path))


def test_every_shipped_recipe_loads():
    assert "firecaffe-nin" in recipe_names()
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.plan(256, 100).lr(0) > 0


def test_parameter_groups_of_nin():
    model = build_model("nin", classes=10, image_size=48, seed=0)
    weights, biases = parameter_groups(model, load_recipe("firecaffe-nin"))
    assert (len(weights["params"]), len(biases["params"])) == (12, 12)
    assert all(weight.ndim == 4 for weight in weights["params"])
    assert all(bias.ndim == 1 for bias in biases["params"])
    assert (weights["lr_mult"], weights["decay_mult"]) == (1.0, 1.0)
    assert (biases["lr_mult"], biases["decay_mult"]) == (2.0, 0.0)


def test_parameter_groups_of_a_model_without_biases():
    groups = parameter_groups(nn.Linear(2, 2, bias=False), load_recipe("firecaffe-nin"))
    assert len(groups) == 1


def random_gradients(model, step):
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def test_sgd_is_caffes_update():
    """Twenty steps with a drop in the learning rate, against float64 arithmetic on two arrays."""
    torch.manual_seed(0)
    model = nn.Linear(7, 5)
    momentum, decay = 0.9, 0.05
    groups = parameter_groups(model, load_recipe("firecaffe-nin"))
    optimizer = CaffeSGD(groups, lr=1.0, momentum=momentum, weight_decay=decay)
    weight = model.weight.detach().numpy().astype(np.float64)
    bias = model.bias.detach().numpy().astype(np.float64)
    weight_speed, bias_speed = np.zeros_like(weight), np.zeros_like(bias)
    for step in range(20):
        lr = 0.1 if step < 10 else 0.01
        random_gradients(model, step)
        weight_gradient = model.weight.grad.numpy().astype(np.float64)
        bias_gradient = model.bias.grad.numpy().astype(np.float64)
        before = [parameter.grad.clone() for parameter in model.parameters()]
        optimizer.set_lr(lr)
        optimizer.step()
        for kept, parameter in zip(before, model.parameters(), strict=True):
            assert torch.equal(kept, parameter.grad)
        weight_speed = momentum * weight_speed + lr * (weight_gradient + decay * weight)
        bias_speed = momentum * bias_speed + 2 * lr * bias_gradient
        weight, bias = weight - weight_speed, bias - bias_speed
    np.testing.assert_allclose(model.weight.detach().numpy(), weight, rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(model.bias.detach().numpy(), bias, rtol=1e-6, atol=2e-6)


def run(optimizer_of, rates):
    torch.manual_seed(0)
    model = nn.Linear(7, 5).double()
    optimizer = optimizer_of(model.parameters(), lr=rates[0], momentum=0.9, weight_decay=0.05)
    for step, rate in enumerate(rates):
        for group in optimizer.param_groups:
            group["lr"] = rate
        random_gradients(model, step)
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_sgd_is_torchs_at_a_constant_rate_and_not_after_a_drop():
    constant = [0.1] * 20
    torch.testing.assert_close(run(CaffeSGD, constant), run(torch.optim.SGD, constant))
    dropping = [0.1] * 10 + [0.01] * 10
    difference = run(CaffeSGD, dropping) - run(torch.optim.SGD, dropping)
    assert difference.abs().max() > 0.1


def test_sgd_leaves_parameters_without_gradient_alone():
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = CaffeSGD([used, unused], lr=0.1, weight_decay=1.0)
    optimizer.step()
    used.grad = torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(used.detach(), torch.full((3,), 0.8))
    assert torch.equal(unused.detach(), torch.ones(3))


def test_sgd_resumes_from_its_state():
    def model_and_optimizer():
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        groups = parameter_groups(model, load_recipe("firecaffe-nin"))
        return model, CaffeSGD(groups, lr=0.1, momentum=0.9)

    model, optimizer = model_and_optimizer()
    random_gradients(model, 0)
    optimizer.step()
    resumed, fresh = model_and_optimizer()
    resumed.load_state_dict(model.state_dict())
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each, stepper in ((model, optimizer), (resumed, fresh)):
        random_gradients(each, 1)
        stepper.step()
    assert torch.equal(model.weight, resumed.weight)
    assert torch.equal(model.bias, resumed.bias)
