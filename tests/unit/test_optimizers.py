"""Every optimizer against an independent statement of its formula, in float64."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from commbench.workloads.models import build_model
from commbench.workloads.recipes import load_recipe
from commbench.workloads.recipes.groups import parameter_groups
from commbench.workloads.recipes.optimizers import (
    CaffeSGD,
    Lars,
    RmspropSgd,
    make_optimizer,
    set_rate,
    take_step,
)
from commbench.workloads.recipes.recipe import OptimizerSettings

STEPS = 20
DECAY = 0.05


def lr_of(step):
    return 0.1 if step < 10 else 0.01


def numbers(model):
    return [parameter.detach().numpy().astype(np.float64) for parameter in model.parameters()]


def random_gradients(model, step):
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def follow(make, formula, share_of=lambda step: 1.0):
    """Twenty steps of an optimizer beside `formula(step, w, g, state) -> w` on each tensor."""
    torch.manual_seed(0)
    model = nn.Linear(7, 5)
    optimizer = make(model.parameters())
    weights = numbers(model)
    states = [{"v": 0.0, "m": 0.0} for _ in weights]
    for step in range(STEPS):
        random_gradients(model, step)
        before = [parameter.grad.clone() for parameter in model.parameters()]
        gradients = [gradient.numpy().astype(np.float64) for gradient in before]
        set_rate(optimizer, lr_of(step), share_of(step))
        optimizer.step()
        for kept, parameter in zip(before, model.parameters(), strict=True):
            assert torch.equal(kept, parameter.grad)
        weights = [
            formula(step, w, g, state)
            for w, g, state in zip(weights, gradients, states, strict=True)
        ]
    for parameter, weight in zip(model.parameters(), weights, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), weight, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("correction", [False, True])
def test_caffe_sgd(correction):
    def formula(step, w, g, state):
        lr = lr_of(step)
        ratio = lr / lr_of(step - 1) if correction and step else 1.0
        state["v"] = 0.9 * ratio * state["v"] + lr * (g + DECAY * w)
        return w - state["v"]

    options = {"momentum": 0.9, "weight_decay": DECAY, "momentum_correction": correction}
    follow(lambda p: CaffeSGD(p, lr=0.1, **options), formula)


@pytest.mark.parametrize("correction", [False, True])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("trust_decay", [False, True])
@pytest.mark.parametrize("decay", [0.0, DECAY])
def test_lars(correction, clip, trust_decay, decay):
    def formula(step, w, g, state):
        lr = lr_of(step)
        norm, gradient = np.linalg.norm(w), np.linalg.norm(g)
        local = 0.3 * norm / (gradient + (decay * norm if trust_decay else 0.0))
        rate = min(lr, local) if clip else lr * local
        ratio = lr / lr_of(step - 1) if correction and step else 1.0
        state["v"] = 0.9 * ratio * state["v"] + rate * (g + decay * w)
        return w - state["v"]

    options = {
        "weight_decay": decay,
        "trust": 0.3,
        "clip": clip,
        "trust_decay": trust_decay,
        "momentum_correction": correction,
    }
    follow(lambda p: Lars(p, lr=0.1, momentum=0.9, **options), formula)


def test_lars_takes_plain_steps_where_a_norm_is_zero_or_a_kind_is_skipped():
    zero, skipped = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.ones(3))
    idle = nn.Parameter(torch.ones(3))
    groups = [{"params": [zero, idle], "kind": "weight"}, {"params": [skipped], "kind": "bias"}]
    optimizer = Lars(groups, lr=0.5, weight_decay=0.1, skip=("bias",))
    zero.grad, skipped.grad, idle.grad = torch.ones(3), torch.ones(3), torch.zeros(3)
    optimizer.step()
    torch.testing.assert_close(zero.detach(), torch.full((3,), -0.5))
    torch.testing.assert_close(skipped.detach(), torch.full((3,), 0.45))
    torch.testing.assert_close(idle.detach(), torch.full((3,), 0.95))


def test_rmsprop_sgd():
    def share_of(step):
        return min(1.0, step / 15)

    def formula(step, w, g, state):
        g = g + DECAY * w
        share, lr = share_of(step), lr_of(step)
        state["m"] = 0.99 * state["m"] + 0.01 * g**2
        rms = (1 - share) * 3e-4 / lr
        state["v"] = 0.9 * state["v"] - (share + rms / (np.sqrt(state["m"]) + 1e-8)) * g
        return w + lr * state["v"]

    follow(lambda p: RmspropSgd(p, lr=0.1, weight_decay=DECAY), formula, share_of)


def planned(kind, **options):
    """What a recipe of this optimizer makes, on Goyal's momentum; its formulas are torch's."""
    recipe = load_recipe("goyal-resnet50")
    plan = recipe.plan(256, 90)
    settings = OptimizerSettings(kind=kind, **options)
    object.__setattr__(plan, "optimizer", settings)
    return lambda p: make_optimizer(
        [{"params": list(p), "kind": "weight", "lr_mult": 1.0, "weight_decay": DECAY}], plan
    )


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_of_form_a(nesterov):
    def formula(step, w, g, state):
        g = g + DECAY * w
        state["v"] = 0.9 * state["v"] + g
        return w - lr_of(step) * (g + 0.9 * state["v"] if nesterov else state["v"])

    follow(planned("sgd", nesterov=nesterov), formula)


def test_adam():
    def formula(step, w, g, state):
        g = g + DECAY * w
        state["v"] = 0.9 * state["v"] + 0.1 * g
        state["m"] = 0.999 * state["m"] + 0.001 * g**2
        mean, square = state["v"] / (1 - 0.9 ** (step + 1)), state["m"] / (1 - 0.999 ** (step + 1))
        return w - lr_of(step) * mean / (np.sqrt(square) + 1e-8)

    follow(planned("adam", beta2=0.999), formula)


def run(optimizer_of, rates):
    torch.manual_seed(0)
    model = nn.Linear(7, 5).double()
    optimizer = optimizer_of(model.parameters(), lr=rates[0], momentum=0.9, weight_decay=0.05)
    for step, rate in enumerate(rates):
        set_rate(optimizer, rate)
        random_gradients(model, step)
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def corrected(params, **options):
    return CaffeSGD(params, momentum_correction=True, **options)


def test_caffe_sgd_is_torchs_at_a_constant_rate_or_with_momentum_correction():
    constant = [0.1] * 20
    torch.testing.assert_close(run(CaffeSGD, constant), run(torch.optim.SGD, constant))
    dropping = [0.1] * 10 + [0.01] * 10
    difference = run(CaffeSGD, dropping) - run(torch.optim.SGD, dropping)
    assert difference.abs().max() > 0.1
    torch.testing.assert_close(run(corrected, dropping), run(torch.optim.SGD, dropping))
    # A warmup from 0: the velocity of its first step has nothing to correct.
    rising = [0.0, 0.05, 0.1]
    torch.testing.assert_close(run(corrected, rising)[:1], run(corrected, rising)[:1])
    assert run(corrected, rising).isfinite().all()


def test_parameters_without_gradient_are_left_alone():
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = CaffeSGD([used, unused], lr=0.1, weight_decay=1.0)
    optimizer.step()
    used.grad = torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(used.detach(), torch.full((3,), 0.8))
    assert torch.equal(unused.detach(), torch.ones(3))


@pytest.mark.parametrize(
    "name", ["firecaffe-nin", "goyal-resnet50", "legw-resnet50", "akiba-resnet50-32k"]
)
def test_optimizers_resume_from_their_state(name):
    recipe = load_recipe(name)
    plan = recipe.plan(8192, 1000)

    def model_and_optimizer():
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        return model, make_optimizer(parameter_groups(model, recipe), plan)

    model, optimizer = model_and_optimizer()
    random_gradients(model, 0)
    take_step(optimizer, plan, 200)
    resumed, fresh = model_and_optimizer()
    resumed.load_state_dict(model.state_dict())
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each, stepper in ((model, optimizer), (resumed, fresh)):
        random_gradients(each, 1)
        take_step(stepper, plan, 201)
    assert torch.equal(model.weight, resumed.weight)
    assert torch.equal(model.bias, resumed.bias)


def test_the_multipliers_of_a_group():
    """Caffe's: a bias learns at twice the rate and does not decay."""
    recipe = load_recipe("firecaffe-nin")
    plan = recipe.plan(256, 10, lr=0.5)
    model = nn.Linear(2, 2)
    weight, bias = numbers(model)
    optimizer = make_optimizer(parameter_groups(model, recipe), plan)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    take_step(optimizer, plan, 0)
    np.testing.assert_allclose(numbers(model)[0], weight - 0.5 * (1 + 5e-4 * weight), rtol=1e-6)
    np.testing.assert_allclose(numbers(model)[1], bias - 1.0, rtol=1e-6)


def told(groups):
    return {
        (group["kind"], group["lr_mult"], group["weight_decay"]): len(group["params"])
        for group in groups
    }


def test_groups_by_what_decays():
    nin = build_model("nin", classes=10, image_size=48, seed=None)
    assert told(parameter_groups(nin, load_recipe("firecaffe-nin"))) == {
        ("weight", 1.0, 5e-4): 12,
        ("bias", 2.0, 0.0): 12,
    }
    resnet = build_model("resnet50", seed=None)
    # 53 convolutions and a dense layer; 53 normalisations with gamma and beta; one bias.
    assert told(parameter_groups(resnet, load_recipe("goyal-resnet50"))) == {
        ("weight", 1.0, 1e-4): 54,
        ("norm", 1.0, 0.0): 106,
        ("bias", 1.0, 1e-4): 1,
    }
    assert told(parameter_groups(resnet, load_recipe("jia-resnet50-64k"))) == {
        ("weight", 1.0, 1e-4): 54,
        ("norm", 1.0, 0.0): 106,
        ("bias", 1.0, 0.0): 1,
    }
    # By Caffe's rule gamma is a weight, and beta a bias.
    assert told(parameter_groups(resnet, load_recipe("firecaffe-nin"))) == {
        ("weight", 1.0, 5e-4): 54,
        ("norm", 1.0, 5e-4): 53,
        ("norm", 2.0, 0.0): 53,
        ("bias", 2.0, 0.0): 1,
    }
    every = parameter_groups(resnet, load_recipe("lars-resnet50"))
    assert sum(told(every).values()) == 161
    assert {group["weight_decay"] for group in every} == {1e-4}
