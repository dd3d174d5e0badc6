"""Every model against a re-statement of its layers in plain torch, and its first weights."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as f

from commbench.workloads.data import load_data
from commbench.workloads.models import build_model, parse_model
from commbench.workloads.models.dropout import sample_keys, set_samples
from commbench.workloads.models.nin import TABLE
from commbench.workloads.models.table import last_map, smallest_image

CAFFE_LRN = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0}


class Weights:
    """A model's parameters in the order of the layers, handed out once each."""

    def __init__(self, model):
        self.model = model
        self.left = [parameter.detach() for parameter in model.parameters()]

    def take(self, count):
        taken, self.left = self.left[:count], self.left[count:]
        return taken

    def conv(self, x, stride=1, padding=0, groups=1, bias=True):
        weight, *rest = self.take(1 + bias)
        return f.conv2d(x, weight, *(rest or [None]), stride, padding, groups=groups)

    def dense(self, x):
        return f.linear(x, *self.take(2))


def pool(x, kernel=3, stride=2):
    return f.max_pool2d(x, kernel, stride, ceil_mode=True)


def normalise(x, weights=None, eps=1e-5):
    """By the batch's own mean and variance, written out."""
    mean = x.mean(dim=(0, 2, 3), keepdim=True)
    variance = (x - mean).square().mean(dim=(0, 2, 3), keepdim=True)
    x = (x - mean) / (variance + eps).sqrt()
    if weights is None:
        return x
    gamma, beta = weights.take(2)
    return x * gamma[:, None, None] + beta[:, None, None]


def alexnet(w, x, groups=1, caffenet=False):
    def reduce(x):
        if caffenet:
            return f.local_response_norm(pool(x), **CAFFE_LRN)
        return pool(f.local_response_norm(x, **CAFFE_LRN))

    x = reduce(w.conv(x, stride=4).relu())
    x = reduce(w.conv(x, padding=2, groups=groups).relu())
    x = w.conv(x, padding=1).relu()
    x = w.conv(x, padding=1, groups=groups).relu()
    x = pool(w.conv(x, padding=1, groups=groups).relu())
    return dense_head(w, x)


def dense_head(w, x):
    return w.dense(w.dense(w.dense(x.flatten(1)).relu()).relu())


def alexnet_bn_v1(w, x, groups=2, jia=False, plain=False):
    def block(x, stride, padding, groups, bias=False):
        return normalise(w.conv(x, stride, padding, groups, bias), w, eps=1e-4).relu()

    x = pool(block(x / 256, 4, 0, 1))
    x = pool(block(x, 1, 2, groups))
    x = block(x, 1, 1, 1)
    x = block(x, 1, 1, groups)
    x = pool(block(x, 1, 1, groups, bias=not (jia or plain)))
    return dense_head(w, normalise(x, w, eps=1e-4) if jia else x)


def alexnet_bn_v2(w, x):
    x = normalise(pool(w.conv(x / 256, stride=4).relu()), eps=1e-4)
    x = normalise(pool(w.conv(x, padding=2, groups=2).relu()), eps=1e-4)
    x = normalise(w.conv(x, padding=1).relu(), eps=1e-4)
    x = normalise(w.conv(x, padding=1, groups=2).relu(), eps=1e-4)
    return dense_head(w, pool(w.conv(x, padding=1, groups=2).relu()))


def nin(w, x):
    for stride, padding in ((4, 0), (1, 2), (1, 1), (1, 1)):
        x = w.conv(x, stride, padding).relu()
        x = w.conv(w.conv(x).relu()).relu()
        x = pool(x) if len(w.left) else x
    return x.mean(dim=(2, 3))


def vgg19(w, x):
    for convolutions in (2, 2, 4, 4, 4):
        for _ in range(convolutions):
            x = w.conv(x, padding=1).relu()
        x = pool(x, 2, 2)
    return dense_head(w, x)


def googlenet(w, x):
    x = pool(w.conv(x, stride=2, padding=3).relu())
    x = w.conv(f.local_response_norm(x, **CAFFE_LRN)).relu()
    x = w.conv(x, padding=1).relu()
    x = pool(f.local_response_norm(x, **CAFFE_LRN))
    for block in range(9):
        one = w.conv(x).relu()
        three = w.conv(w.conv(x).relu(), padding=1).relu()
        five = w.conv(w.conv(x).relu(), padding=2).relu()
        projection = w.conv(f.max_pool2d(x, 3, 1, 1)).relu()
        x = torch.cat([one, three, five, projection], dim=1)
        if block in (1, 6):
            x = pool(x)
    return w.dense(x.mean(dim=(2, 3)))


def resnet50(w, x, goyal=True):
    x = normalise(w.conv(x, 2, 3, bias=False), w).relu()
    x = f.max_pool2d(x, 3, 2, 1) if goyal else pool(x)
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            first, second = (1, stride) if goyal else (stride, 1)
            y = normalise(w.conv(x, first, bias=False), w).relu()
            y = normalise(w.conv(y, second, 1, bias=False), w).relu()
            y = normalise(w.conv(y, bias=False), w)
            x = (y + (x if block else normalise(w.conv(x, stride, bias=False), w))).relu()
    return w.dense(x.mean(dim=(2, 3)))


def torch_lstm(w, x):
    """torch.nn.LSTM with our kernel and bias, and nothing in its second bias."""
    kernel, bias = w.take(2)
    hidden = len(bias) // 4
    lstm = torch.nn.LSTM(kernel.shape[1] - hidden, hidden, batch_first=True).to(kernel.dtype)
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(kernel[:, :-hidden])
        lstm.weight_hh_l0.copy_(kernel[:, -hidden:])
        lstm.bias_ih_l0.copy_(bias)
        lstm.bias_hh_l0.zero_()
    return lstm(x)[0]


def lstm_mnist(w, x):
    return w.dense(torch_lstm(w, w.dense(x[:, 0] / 255))[:, -1])


def lstm_ptb(w, words):
    (embedding,) = w.take(1)
    return w.dense(torch_lstm(w, torch_lstm(w, embedding[words])))


def speech_mlp(w, x):
    for _ in range(8):
        x = w.dense(x).relu()
    return w.dense(x)


ORACLES = {
    "nin": (nin, {}),
    "alexnet": (alexnet, {}),
    "alexnet@groups=2": (alexnet, {"groups": 2}),
    "alexnet@variant=caffenet": (alexnet, {"caffenet": True}),
    "alexnet-bn": (alexnet_bn_v2, {}),
    "alexnet-bn@variant=v1": (alexnet_bn_v1, {}),
    "alexnet-bn@variant=jia": (alexnet_bn_v1, {"groups": 1, "jia": True}),
    "alexnet-bn@variant=jia-plain": (alexnet_bn_v1, {"groups": 1, "plain": True}),
    "vgg19": (vgg19, {}),
    "googlenet@auxiliary=off": (googlenet, {}),
    "resnet50": (resnet50, {}),
    "resnet50@variant=v1": (resnet50, {"goyal": False}),
    "lstm-mnist": (lstm_mnist, {}),
    "lstm-ptb": (lstm_ptb, {}),
    "speech-mlp": (speech_mlp, {}),
}


def narrow(spec, image_size=67):
    """A narrow model with weights large enough that every layer counts; and samples."""
    choice = parse_model(spec)
    image_size = image_size if choice.published.laptop_size else None
    task = choice.task(7, image_size)
    model = choice.build(task, width=1 / 16, seed=0).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 1.5 / math.sqrt(parameter[0].numel()) if parameter.dim() > 1 else 0.2
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    data = load_data("synthetic", folder=None, task=task, batch=4, seed=0)
    inputs, targets = data.train.batch(np.arange(4))
    return model, inputs.double() if inputs.is_floating_point() else inputs, targets


def without_dropout(model):
    for module in model.modules():
        if type(module).__name__ == "SampleDropout":
            module.eval()
    return model


@pytest.mark.parametrize("spec", ORACLES)
@pytest.mark.parametrize("image_size", [67, 100])
def test_outputs_are_those_of_plain_torch(spec, image_size):
    model, inputs, _ = narrow(spec, image_size)
    oracle, options = ORACLES[spec]
    weights = Weights(model)
    with torch.no_grad():
        expected = oracle(weights, inputs, **options)
        found = without_dropout(model.train())(inputs)
    assert weights.left == []
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_auxiliary_classifiers_count_three_tenths():
    model, images, labels = narrow("googlenet", image_size=224)
    without_dropout(model.train())
    seen = {}
    for name, block in model.blocks.items():
        block.register_forward_hook(lambda _m, _a, out, name=name: seen.update({name: out}))
    with torch.no_grad():
        loss = model.loss_sum(images, labels)
        expected = f.cross_entropy(model(images), labels, reduction="sum")
        for name in ("4a", "4d"):
            assert seen[name].shape[2:] == (14, 14)
            weights = Weights(model.auxiliaries[name])
            maps = w_relu(weights, f.avg_pool2d(seen[name], 5, 3))
            assert maps.shape[2:] == (4, 4)
            logits = weights.dense(weights.dense(maps.flatten(1)).relu())
            expected = expected + 0.3 * f.cross_entropy(logits, labels, reduction="sum")
        torch.testing.assert_close(loss, expected)
        main = f.cross_entropy(model.eval()(images), labels, reduction="sum")
        torch.testing.assert_close(model.loss_sum(images, labels), main)


def w_relu(weights, x):
    return weights.conv(x).relu()


def test_state_is_carried_from_window_to_window_and_gradients_are_not():
    model, words, targets = narrow("lstm-ptb")
    longer = torch.cat([words, words.flip(1)], dim=1)
    answers = torch.cat([targets, targets.flip(1)], dim=1)
    model.train()
    model.start_epoch()
    first = model.loss_sum(words, targets)
    second = model.loss_sum(longer[:, 20:], answers[:, 20:])
    logits = model(longer)
    whole = f.cross_entropy(logits.flatten(0, 1), answers.flatten(), reduction="sum")
    torch.testing.assert_close(first + second, whole)
    second.backward()  # the first window's graph was let go: no error, no second pass through it
    model.start_epoch()
    torch.testing.assert_close(model.loss_sum(words, targets), first)
    # A score starts from zero whatever was carried, and leaves that alone.
    with torch.no_grad():
        score = model.score(longer, answers)[2].item()
    assert score == pytest.approx(whole.item() / 40)
    torch.testing.assert_close(model.loss_sum(longer[:, 20:], answers[:, 20:]), second)


def test_dropout_of_the_language_model_is_its_sizes():
    for size, p in (("small", 0.0), ("medium", 0.5), ("large", 0.65)):
        model = build_model(f"lstm-ptb@size={size}", seed=None)
        assert [drop.p for drop in model.drops] == [p, p, p]
        assert len({drop.layer for drop in model.drops}) == 3


def test_nin_maps_at_224():
    seen = {}
    model = build_model("nin", seed=None).eval()
    for name, module in model.features.named_children():
        module.register_forward_hook(
            lambda _module, _args, out, name=name: seen.update({name: tuple(out.shape[1:])})
        )
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 224, 224, device="meta")).shape == (1, 1000)
    assert seen["conv1"] == (96, 54, 54)
    assert seen["pool0"] == (96, 27, 27)
    assert seen["conv2"] == (256, 27, 27)
    assert seen["pool2"] == (256, 13, 13)
    assert seen["conv3"] == (384, 13, 13)
    assert seen["pool3"] == seen["drop"] == (384, 6, 6)
    assert seen["conv4_1024"] == (1024, 6, 6)
    assert seen["cccp8_relu"] == (1000, 6, 6)


def test_smallest_image_is_the_smallest_that_runs():
    model = build_model("nin", classes=10, image_size=39, width=1 / 16, seed=0).eval()
    assert smallest_image(TABLE) == 39
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 39, 39)).shape == (2, 10)
        with pytest.raises(RuntimeError):
            model(torch.zeros(2, 3, 38, 38))
    assert [last_map(TABLE, size) for size in (38, 39, 70, 71, 224)] == [0, 1, 1, 2, 6]


@pytest.mark.parametrize(
    ("spec", "size"), [("googlenet", 31), ("resnet50", 1 + 2), ("vgg19", 1), ("alexnet-bn", 39)]
)
def test_the_smallest_images_train(spec, size):
    model = build_model(spec, classes=5, image_size=size, width=1 / 16, seed=0)
    set_samples(model, sample_keys(0, 0, np.arange(2)))
    loss = model.loss_sum(torch.randn(2, 3, size, size) * 80, torch.tensor([1, 2]))
    loss.backward()
    assert loss.isfinite()


def spreads(spec, width=1.0, classes=1000):
    """Standard deviation of every weight, and the set of values of every bias, by name."""
    model = build_model(spec, classes=classes, image_size=48, width=width, seed=0)
    parameters = dict(model.named_parameters())
    weights = {n: p.std().item() for n, p in parameters.items() if n.endswith("weight")}
    biases = {n: set(p.tolist()) for n, p in parameters.items() if n.endswith("bias")}
    return {name.removeprefix("features."): value for name, value in (weights | biases).items()}


def test_nin_starts_as_the_released_file():
    found = spreads("nin")
    for name, std in {
        **dict.fromkeys(("conv1", "conv3", "cccp8"), 0.01),
        **dict.fromkeys(("cccp1", "cccp2", "conv2", "cccp3", "cccp4"), 0.05),
        **dict.fromkeys(("cccp5", "cccp6", "conv4_1024", "cccp7"), 0.05),
    }.items():
        assert found[f"{name}.weight"] == pytest.approx(std, rel=0.03)
        assert found[f"{name}.bias"] == {0.0}
    assert len(found) == 24


@pytest.mark.parametrize(
    ("spec", "high", "low"),
    [
        ("alexnet@groups=2", 0.1, 0.0),
        ("alexnet@groups=2@variant=caffenet", 1.0, 0.0),
        ("alexnet-bn@variant=v2", 0.01, 0.01),
    ],
)
def test_alexnets_start_as_the_released_files(spec, high, low):
    found = spreads(spec)
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"):
        std = 0.005 if name in ("fc6", "fc7") else 0.01
        assert found[f"{name}.weight"] == pytest.approx(std, rel=0.03)
    assert all(found[f"conv{i}.bias"] == {np.float32(high).item()} for i in (2, 4, 5))
    assert found["conv1.bias"] == found["conv3.bias"] == found["fc8.bias"]
    assert found["fc8.bias"] == {np.float32(low).item()}
    dense = high if "alexnet@" in spec else 0.1
    assert found["fc6.bias"] == found["fc7.bias"] == {np.float32(dense).item()}


def test_goyals_blocks_start_as_identities_and_hes_do_not():
    for spec, gamma in (("resnet50", 0.0), ("resnet50@variant=v1", 1.0)):
        model = build_model(spec, classes=10, width=1 / 4, seed=0)
        blocks = list(model.stages)
        assert len(blocks) == 16
        for block in blocks:
            assert set(block.bn3.weight.tolist()) == {gamma}
            assert set(block.bn1.weight.tolist()) == set(block.bn2.weight.tolist()) == {1.0}
        assert all(norm.momentum == 0.1 for norm in model.modules() if hasattr(norm, "momentum"))
        assert model.fc.weight.std().item() == pytest.approx(0.01, rel=0.05)
        # He's rule: fan-out here, fan-in there; they differ where stages widen.
        weight = blocks[0].conv3.weight
        fan = weight.shape[0] if spec == "resnet50" else weight.shape[1]
        assert weight.std().item() == pytest.approx(math.sqrt(2 / fan), rel=0.1)


def test_googlenet_starts_with_caffes_xavier():
    found = spreads("googlenet")
    weight = "blocks.4a.branches.1.1.conv"
    # U(-a, a) with a = sqrt(3 / fan-in) has the standard deviation 1 / sqrt(fan-in).
    assert found[f"{weight}.weight"] == pytest.approx(1 / math.sqrt(96 * 9), rel=0.02)
    assert found[f"{weight}.bias"] == {np.float32(0.2).item()}
    assert found["classifier.bias"] == found["auxiliaries.4a.classifier.bias"] == {0.0}
    assert found["auxiliaries.4a.fc.bias"] == {np.float32(0.2).item()}


def test_language_models_start_in_their_bounds():
    model = build_model("lstm-ptb", seed=0)
    for name, parameter in model.named_parameters():
        if name.startswith("lstms") and name.endswith("bias"):
            assert not parameter.any()
        else:
            assert parameter.abs().max().item() == pytest.approx(0.1, rel=0.02)
    forget = build_model("lstm-mnist", seed=0).lstm.bias.view(4, 128)
    assert (forget[1] == 1).all()
    assert not forget[[0, 2, 3]].any()
