"""Network in Network: shapes, counts and initialisation against the published ones."""

import subprocess
import sys

import pytest
import torch

from commbench.errors import UserError
from commbench.workloads.models import build_model, model_names
from commbench.workloads.models.cost import count_cost
from commbench.workloads.models.nin import last_map, smallest_image


def nin(classes=10, image_size=48, seed=0):
    return build_model("nin", classes=classes, image_size=image_size, seed=seed)


def test_listing_models_does_not_import_torch():
    code = (
        "import sys, commbench.workloads.models as m, commbench.workloads.data,"
        "commbench.workloads.data.order, commbench.workloads.recipes;"
        "m.model_names(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_counts_at_224_are_those_of_firecaffe():
    cost = count_cost(nin(classes=1000, image_size=224), 224)
    assert cost.parameters == 7_595_176
    assert cost.tensors == 24
    assert round(cost.macs / 1e6, 2) == 1100.19
    assert cost.inputs == 1_414_240
    # FireCaffe Table 1, batch 1024: 30 MB of weights, 5800 MB of data.
    assert round(cost.parameters * 4 / 1e6) == 30
    assert round(cost.inputs * 1024 * 4 / 1e6, -2) == 5800


def test_layers_and_map_sizes_at_224():
    seen = {}
    model = nin(classes=1000, image_size=224).eval()
    for name, module in model.features.named_children():
        module.register_forward_hook(
            lambda _module, _args, out, name=name: seen.update({name: tuple(out.shape[1:])})
        )
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
    assert seen["conv1"] == (96, 54, 54)
    assert seen["pool0"] == (96, 27, 27)
    assert seen["conv2"] == (256, 27, 27)
    assert seen["pool2"] == (256, 13, 13)
    assert seen["conv3"] == (384, 13, 13)
    assert seen["pool3"] == seen["drop"] == (384, 6, 6)
    assert seen["conv4_1024"] == (1024, 6, 6)
    assert seen["cccp8_relu"] == (1000, 6, 6)


def test_initial_weights_follow_the_released_file():
    stds = {
        "conv1": 0.01,
        "cccp1": 0.05,
        "cccp2": 0.05,
        "conv2": 0.05,
        "cccp3": 0.05,
        "cccp4": 0.05,
        "conv3": 0.01,
        "cccp5": 0.05,
        "cccp6": 0.05,
        "conv4_1024": 0.05,
        "cccp7": 0.05,
        "cccp8": 0.01,
    }
    parameters = dict(nin(classes=1000).features.named_parameters())
    assert list(parameters) == [f"{name}.{kind}" for name in stds for kind in ("weight", "bias")]
    for name, std in stds.items():
        weight = parameters[f"{name}.weight"]
        assert weight.std().item() == pytest.approx(std, rel=0.03)
        assert abs(weight.mean().item()) < 5 * std / weight.numel() ** 0.5
        assert not parameters[f"{name}.bias"].any()


def test_weights_are_a_function_of_the_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = nin(seed=3, image_size=48).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = nin(seed=3, image_size=224).state_dict()
    other = nin(seed=4).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if "weight" in key)


def test_smallest_image_is_the_smallest_that_runs():
    assert smallest_image() == 39
    with torch.no_grad():
        assert nin(image_size=39).eval()(torch.zeros(2, 3, 39, 39)).shape == (2, 10)
        with pytest.raises(RuntimeError):
            nin(image_size=39).eval()(torch.zeros(2, 3, 38, 38))
    assert [last_map(size) for size in (38, 39, 70, 71, 224)] == [0, 1, 1, 2, 6]


def test_final_average_spans_the_map_that_is_left():
    model = nin(image_size=96).eval()
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 80
    with torch.no_grad():
        maps = model.features(images)
        logits = model(images)
    assert maps.shape[2:] == (2, 2)
    expected = (maps[..., 0, 0] + maps[..., 0, 1] + maps[..., 1, 0] + maps[..., 1, 1]) / 4
    torch.testing.assert_close(logits, expected)
    assert (logits >= 0).all()
    assert logits.any()


@pytest.mark.parametrize(
    ("name", "classes", "image_size", "words"),
    [
        ("lenet", 10, 48, ["'lenet'", "choose from", "nin"]),
        ("nin", 10, 38, ["38", "39 or more"]),
        ("nin", 10, 0, ["0", "39 or more"]),
        ("nin", 1, 48, ["1 classes", "at least 2"]),
    ],
)
def test_bad_requests_say_what_is_allowed(name, classes, image_size, words):
    with pytest.raises(UserError) as caught:
        build_model(name, classes=classes, image_size=image_size, seed=0)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_model_names_are_sorted_and_hold_nin():
    assert model_names() == sorted(model_names())
    assert "nin" in model_names()
