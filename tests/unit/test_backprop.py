"""A rank's gradient in micro-batches and in 16 bits, the loss scale, clipping, label smoothing."""

from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest
import torch

from commbench.backprop import Backprop, LossScale
from commbench.buckets import lay_out, plan_buckets
from commbench.workloads.models import build_model
from commbench.workloads.models.dropout import sample_keys
from commbench.workloads.recipes import load_recipe

BATCH = 8


def sample(task):
    generator = torch.Generator().manual_seed(3)
    if task.kind == "text":
        shape = (BATCH, task.size)
        return tuple(torch.randint(task.classes, shape, generator=generator) for _ in range(2))
    inputs = torch.randn(BATCH, *task.shape, generator=generator)
    inputs *= 60 if task.kind == "images" else 1  # images are in the range of 0 to 255
    return inputs, torch.randint(task.classes, (BATCH,), generator=generator)


def gradient_of(spec, *, parts=1, batches=1, **changes):
    """Loss and ready gradient of some batches in a row, and the Backprop."""
    small = {"image_size": 48} if spec in ("nin", "alexnet", "googlenet", "vgg19") else {}
    model = build_model(spec, classes=10, width=0.0625, seed=1, **small).train()
    recipe = replace(load_recipe("firecaffe-nin"), **changes)
    model.label_smoothing = recipe.label_smoothing
    gradients = lay_out(plan_buckets(model.parameters()), torch.empty)
    backprop = Backprop(model, recipe, parts=parts, now=perf_counter)
    for turn in range(batches):
        gradients.clear()
        keys = sample_keys(1, turn, np.arange(BATCH))
        loss, seconds = backprop.run(*sample(model.task), keys, BATCH)
        assert len(seconds) == 2
        assert min(seconds) > 0
        assert backprop.ready(gradients.flat)
    return loss.item(), gradients.flat.clone(), backprop


def apart(one, other):
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize("parts", [2, 3, 8])
@pytest.mark.parametrize("spec", ["nin", "googlenet", "lstm-mnist", "lstm-ptb", "speech-mlp"])
def test_micro_batches_add_up_to_the_whole(spec, parts):
    """Two batches in a row: a language model carries the state of each micro-batch on."""
    loss, gradient, _ = gradient_of(spec, batches=2)
    parts_loss, parts_gradient, _ = gradient_of(spec, batches=2, parts=parts)
    assert parts_loss == pytest.approx(loss, rel=1e-5)
    assert apart(parts_gradient, gradient) < 1e-5


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("spec", ["alexnet", "googlenet", "lstm-mnist", "lstm-ptb", "speech-mlp"])
def test_sixteen_bits_give_the_gradient_to_their_precision(spec, precision):
    loss, gradient, _ = gradient_of(spec)
    rough_loss, rough, backprop = gradient_of(spec, precision=precision, loss_scale=1024.0)
    # Every layer is rounded, to 2^-11 or 2^-8, and some ReLUs flip.
    bound = {"float16": 0.05, "bfloat16": 0.15}[precision]
    assert rough.dtype == torch.float32
    assert rough_loss == pytest.approx(loss, rel=bound)
    assert apart(rough, gradient) < bound
    assert backprop.scale.value == (1024 if precision == "float16" else 1)
    assert backprop.scale.skipped == 0


def test_the_loss_scale_saves_small_gradients():
    """Of losses divided by 2^20, float16 keeps almost nothing."""
    _, gradient, _ = gradient_of("speech-mlp")
    model_gradients = []
    for scale in (1.0, 2.0**20):
        model = build_model("speech-mlp", classes=10, width=0.0625, seed=1).train()
        recipe = replace(load_recipe("firecaffe-nin"), precision="float16", loss_scale=scale)
        gradients = lay_out(plan_buckets(model.parameters()), torch.empty)
        backprop = Backprop(model, recipe, parts=1, now=perf_counter)
        keys = sample_keys(1, 0, np.arange(BATCH))
        backprop.run(*sample(model.task), keys, BATCH * 2**20)
        assert backprop.ready(gradients.flat)
        model_gradients.append(gradients.flat * 2**20)
    lost, saved = (apart(one, gradient) for one in model_gradients)
    assert saved < 0.05
    assert lost > 0.5


def test_a_dynamic_scale_halves_at_an_overflow_and_doubles_after_a_while():
    scale = LossScale("float16", "dynamic")
    assert not scale.passes(False)
    assert not scale.passes(False)
    assert (scale.value, scale.skipped) == (2.0**14, 2)
    assert all(scale.passes(True) for _ in range(1999))
    assert scale.value == 2.0**14
    assert scale.passes(True)
    assert scale.value == 2.0**15
    for _ in range(40):
        scale.passes(False)
    assert scale.value == 1.0
    fixed = LossScale("float16", 128.0)
    assert not fixed.passes(False)
    assert (fixed.value, fixed.skipped) == (128.0, 1)
    assert LossScale("bfloat16", "dynamic").value == LossScale("float32", 128.0).value == 1.0


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_an_overflow_leaves_the_step_out(bad):
    model = build_model("speech-mlp", classes=10, width=0.0625, seed=1)
    recipe = replace(load_recipe("firecaffe-nin"), precision="float16")
    backprop = Backprop(model, recipe, parts=1, now=perf_counter)
    gradient = torch.ones(1000)
    gradient[517] = bad
    assert not backprop.ready(gradient)
    assert backprop.scale.skipped == 1
    gradient[517] = 1.0
    assert backprop.ready(gradient)
    torch.testing.assert_close(gradient, torch.full((1000,), 2.0**-15))


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_clipping_by_the_norm_of_the_whole_gradient(precision):
    model = build_model("speech-mlp", classes=10, width=0.0625, seed=1)
    changes = {"precision": precision, "loss_scale": 4.0, "clip_norm": 5.0}
    recipe = replace(load_recipe("firecaffe-nin"), **changes)
    backprop = Backprop(model, recipe, parts=1, now=perf_counter)
    scale = backprop.scale.value
    for norm, clipped in ((20.0, 5.0), (3.0, 3.0), (0.0, 0.0)):
        gradient = torch.full((100,), scale * norm / 10)
        assert backprop.ready(gradient)
        torch.testing.assert_close(gradient, torch.full((100,), clipped / 10))


@pytest.mark.parametrize("spec", ["nin", "googlenet", "lstm-ptb"])
def test_label_smoothing(spec):
    """(1 - s) of the loss and s of the mean over all classes; no part of the score."""
    if spec == "googlenet":
        spec = "googlenet@auxiliary=off"
    small = {} if spec == "lstm-ptb" else {"image_size": 48}
    model = build_model(spec, classes=10, width=0.0625, seed=1, **small).eval()
    inputs, targets = sample(model.task)
    logits = model(inputs).detach().double().flatten(0, -2)
    logs = torch.log_softmax(logits, dim=1)
    right = logs[torch.arange(len(logs)), targets.flatten()]
    expected = -(0.9 * right + 0.1 * logs.mean(dim=1)).sum().item()
    score = model.score(inputs, targets)
    plain = model.loss_sum(inputs, targets).item()
    model.start_epoch()
    model.label_smoothing = 0.1
    assert model.loss_sum(inputs, targets).item() == pytest.approx(expected, rel=1e-5)
    assert plain == pytest.approx(-right.sum().item(), rel=1e-5)
    assert torch.equal(model.score(inputs, targets), score)
