"""The interface of the models, and what all have in common; each one's layers are tested beside."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from commbench.errors import UserError
from commbench.workloads.data import default_data, load_data
from commbench.workloads.models import (
    build_model,
    model_names,
    parse_model,
    published_models,
)
from commbench.workloads.models.cost import count_cost
from commbench.workloads.models.dropout import sample_keys, set_samples

# Figures of the literature: parameters, tensors, millions of MACs, numbers that enter conv and
# dense layers, of the training network at its published size. Layer tables and prototxts agree.
PUBLISHED = {
    "nin": (7_595_176, 24, 1100.19, 1_414_240),
    "alexnet": (62_378_344, 16, 1135.26, 415_035),
    "alexnet@groups=2": (60_965_224, 16, 724.41, 415_035),
    "alexnet@groups=2@variant=caffenet": (60_965_224, 16, 724.41, 415_035),
    "alexnet-bn": (60_965_224, 16, 724.41, 415_035),
    "alexnet-bn@variant=v1": (60_966_856, 22, 724.41, 415_035),
    "alexnet-bn@variant=jia": (62_380_232, 23, 1135.26, 415_035),
    "alexnet-bn@variant=jia-plain": (62_379_720, 21, 1135.26, 415_035),
    "googlenet": (13_378_280, 128, 1591.04, 4_686_256),
    "googlenet@auxiliary=off": (6_998_552, 116, 1582.67, 4_663_472),
    "resnet50": (25_557_032, 161, 4089.18, 10_664_448),
    "resnet50@variant=v1": (25_557_032, 161, 3857.97, 10_137_600),
    "vgg19": (143_667_240, 38, 19_632.06, 10_419_712),
    # Per row 28 x 128, twice 256 x 256 for the gates and at the end 128 x 10.
    "lstm-mnist": (136_586, 6, (28 * (28 * 128 + 512 * 256) + 1280) / 1e6, 28 * 284 + 128),
    # Per word two kernels of 2h x 4h and h x 10,000.
    "lstm-ptb": (4_651_600, 7, 20 * (16 * 200**2 + 200 * 10_000) / 1e6, 20 * 5 * 200),
    "lstm-ptb@size=medium": (19_775_200, 7, 35 * (16 * 650**2 + 6.5e6) / 1e6, 35 * 5 * 650),
    "lstm-ptb@size=large": (66_022_000, 7, 35 * (16 * 1500**2 + 15e6) / 1e6, 35 * 5 * 1500),
    # 440, eight of 2200, 1300: weights and biases.
    "speech-mlp": (37_726_900, 18, 37.708, 440 + 8 * 2200),
}


def small(spec, seed=0):
    """A narrow model for small samples."""
    choice = parse_model(spec)
    image_size = 48 if choice.published.laptop_size else None
    task = choice.task(7, image_size)
    return choice.build(task, width=1 / 16, seed=seed)


def batch_for(model, count=6):
    """Samples as the model's default data set gives them, and a number for each."""
    data = load_data("synthetic", folder=None, task=model.task, batch=count, seed=0)
    indices = np.arange(count)
    return (*data.train.batch(indices), indices)


def test_the_table_is_complete():
    assert sorted(PUBLISHED) == sorted(published_models())
    assert model_names() == sorted({spec.split("@")[0] for spec in PUBLISHED})


def test_listing_models_does_not_import_torch():
    code = (
        "import sys, commbench.workloads.models as m, commbench.workloads.data,"
        "commbench.workloads.data.order, commbench.workloads.recipes;"
        "m.model_names(); m.published_models(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("spec", PUBLISHED)
def test_counts_are_those_published(spec):
    parameters, tensors, mega_macs, inputs = PUBLISHED[spec]
    cost = count_cost(build_model(spec, seed=None), training=True)
    assert (cost.parameters, cost.tensors, cost.inputs) == (parameters, tensors, inputs)
    assert cost.macs / 1e6 == pytest.approx(mega_macs, abs=0.005)


@pytest.mark.parametrize("spec", PUBLISHED)
def test_weights_are_a_function_of_the_seed_alone(spec):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = small(spec, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = (small(spec, seed=seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    drawn = [key for key in first if key.endswith("weight") and first[key].dim() > 1]
    assert drawn
    assert not any(torch.equal(first[key], other[key]) for key in drawn)


@pytest.mark.parametrize("spec", PUBLISHED)
def test_shares_of_a_batch_add_up_to_the_whole(spec):
    """Loss and gradient do not depend on who computes what; BatchNorm's own batch set apart."""
    model = small(spec).double()
    inputs, targets, indices = batch_for(model)
    if inputs.is_floating_point():
        inputs = inputs.double()
    keys = sample_keys(0, 0, indices)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()

    def step(rows):
        model.zero_grad()
        model.start_epoch()
        set_samples(model, keys[rows])
        loss = model.loss_sum(inputs[rows], targets[rows])
        loss.backward()
        return loss.item(), torch.cat([weight.grad.flatten() for weight in model.parameters()])

    whole_loss, whole = step(slice(0, 6))
    shares = [step(slice(0, 2)), step(slice(2, 6))]
    assert whole_loss == pytest.approx(sum(loss for loss, _ in shares), rel=1e-9)
    gradient = sum(gradient for _, gradient in shares)
    assert whole.abs().max() > 0
    torch.testing.assert_close(gradient, whole, rtol=1e-7, atol=1e-11 * whole.abs().max().item())


@pytest.mark.parametrize("spec", PUBLISHED)
def test_the_score_is_that_of_the_forward_pass(spec):
    model = small(spec).eval()
    inputs, targets, _ = batch_for(model)
    with torch.no_grad():
        logits = model(inputs).flatten(0, -2)
        right, among_five, loss = model.score(inputs, targets).tolist()
    terms = targets[0].numel()
    answers = targets.flatten()
    better = (logits > logits.gather(1, answers[:, None])).sum(1)
    assert right * terms == pytest.approx((better < 1).sum().item())
    assert among_five * terms == pytest.approx((better < 5).sum().item())
    own = functional.cross_entropy(logits, answers, reduction="sum").item()
    assert loss * terms == pytest.approx(own, rel=1e-5)
    assert model.loss_terms == terms


def test_width_scales_the_channels_and_keeps_the_output():
    whole, half = (build_model("alexnet@groups=2", width=width, seed=None) for width in (1, 0.5))
    shapes = [tuple(model.features.conv2.weight.shape) for model in (whole, half)]
    assert shapes == [(256, 48, 5, 5), (128, 24, 5, 5)]
    assert half.features.fc8.weight.shape == (1000, 2048)
    narrowest = build_model("alexnet@groups=2", width=1e-6, seed=None)
    assert narrowest.features.conv2.weight.shape == (2, 1, 5, 5)
    assert build_model("lstm-ptb", width=0.5, seed=None).lstms[0].hidden == 100
    assert build_model("resnet50", width=0.25, seed=None).fc.in_features == 512


def test_only_models_that_normalise_by_the_batch_need_two_samples():
    needy = {spec for spec in PUBLISHED if small(spec).smallest_batch == 2}
    assert needy == {spec for spec in PUBLISHED if spec.startswith(("alexnet-bn", "resnet50"))}


def test_options_come_back_in_the_spec():
    choice = parse_model("alexnet@groups=2@variant=caffenet")
    assert choice.options == {"groups": 2, "variant": "caffenet"}
    assert choice.spec == "alexnet@groups=2@variant=caffenet"


def test_sizes_adapt_the_task():
    choice = parse_model("nin")
    assert choice.task(None, None) == choice.published
    assert choice.task(10, 48) == replace(choice.published, classes=10, size=48)
    assert parse_model("lstm-ptb@size=large").published.size == 35
    assert default_data("images") == "fashion-mnist-subset"
    assert default_data("text") == default_data("frames") == "synthetic"


@pytest.mark.parametrize(
    ("spec", "sizes", "words"),
    [
        ("lenet", {}, ["'lenet'", "choose from", "nin"]),
        ("alexnet@groups=3", {}, ["groups=3", "1, 2"]),
        ("alexnet@groups", {}, ["--model alexnet@groups", "option=value"]),
        ("nin@groups=2", {}, ["nin", "no option groups", "takes no options"]),
        ("lstm-ptb@size=huge", {}, ["size=huge", "small, medium, large"]),
        ("nin", {"image_size": 38}, ["38", "39 or more"]),
        ("nin", {"image_size": 0}, ["0", "39 or more"]),
        ("nin", {"classes": 1}, ["1 classes", "at least 2"]),
        ("nin", {"width": 0.0}, ["width 0.0", "positive"]),
        ("nin", {"width": float("nan")}, ["width nan", "positive"]),
        ("vgg19", {"image_size": 0}, ["image size 0", "1 or more"]),
        ("googlenet", {"image_size": 30}, ["30", "googlenet", "31 or more"]),
        ("resnet50", {"image_size": 2}, ["2", "3 or more"]),
        ("lstm-mnist", {"image_size": 0}, ["0", "1 or more"]),
        ("lstm-ptb", {"image_size": 28}, ["takes text", "drop --image-size"]),
    ],
)
def test_bad_requests_say_what_is_allowed(spec, sizes, words):
    with pytest.raises(UserError) as caught:
        build_model(spec, **sizes, seed=0)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)
