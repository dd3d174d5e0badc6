"""Dropout masks: a function of the sample, whatever batch it is computed in."""

import numpy as np
import pytest
import torch

from commbench.workloads.models import build_model
from commbench.workloads.models.dropout import (
    SampleDropout,
    keep_mask,
    mix,
    sample_keys,
    set_samples,
)


def keys_of(*indices, seed=0, epoch=0):
    return sample_keys(seed, epoch, np.array(indices, np.int64))


def splitmix64(state):
    """The published generator in Python's unbounded integers."""
    mask = 2**64 - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31), state


def test_mix_is_splitmix64():
    # First number of java.util.SplittableRandom(0), and of the C reference with seed 0.
    assert splitmix64(0)[0] == 0xE220A8397B1DCDAF
    starts = [0, 1, -1, 2**63 - 1, -(2**63), 123_456_789]
    mixed = mix(torch.tensor(starts, dtype=torch.int64)).tolist()
    assert [number % 2**64 for number in mixed] == [splitmix64(s % 2**64)[0] for s in starts]


def test_units_follow_the_generator_of_their_sample():
    key = keys_of(7)
    _, units, layer, p = None, 50, 3, 0.3
    state = mix(key + layer).item() % 2**64
    expected = []
    for _ in range(units):
        number, state = splitmix64(state)
        expected.append(number / 2**64 >= p)
    assert keep_mask(key, units, layer=layer, p=p)[0].tolist() == expected


def test_mask_of_a_sample_does_not_depend_on_its_batch():
    x = torch.ones(4, 8, 3, 3)
    layer = SampleDropout(0.5, layer=1)
    layer.keys = keys_of(11, 5, 42, 7)
    together = layer(x)
    layer.keys = keys_of(42)
    alone = layer(x[:1])
    layer.keys = keys_of(7, 11)
    pair = layer(x[:2])
    assert torch.equal(together[2:3], alone)
    assert torch.equal(together[[3, 0]], pair)


def test_fraction_and_scale():
    layer = SampleDropout(0.3, layer=0)
    layer.keys = keys_of(*range(200))
    out = layer(torch.full((200, 1000), 2.0))
    kept = out != 0
    # 200,000 trials: five standard deviations are 0.005.
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.005)
    torch.testing.assert_close(out[kept], torch.full_like(out[kept], 2.0 / 0.7))
    for axis in (0, 1):
        trials = kept.shape[axis]
        means = kept.float().mean(dim=axis)
        assert (means - 0.7).abs().max() < 6 * (0.21 / trials) ** 0.5


def test_samples_layers_epochs_and_seeds_differ():
    def mask(index=1, seed=0, epoch=0, layer=0):
        return keep_mask(keys_of(index, seed=seed, epoch=epoch), 10_000, layer=layer, p=0.5)[0]

    first = mask()
    # Swapped arguments too: seed 1 of epoch 0 must not be seed 0 of epoch 1.
    others = [mask(index=2), mask(layer=1), mask(epoch=1), mask(seed=1), mask(seed=1, epoch=1)]
    masks = [first, *others]
    for i, a in enumerate(masks):
        for b in masks[:i]:
            # Independent masks agree on half of the units, +- 5 standard deviations.
            assert (a == b).float().mean().item() == pytest.approx(0.5, abs=0.025)
    assert torch.equal(first, mask())


def test_keys_of_many_samples_are_distinct():
    indices = np.arange(60_000)
    keys = torch.cat([sample_keys(seed, epoch, indices) for seed in (0, 1) for epoch in (0, 1)])
    assert len(keys.unique()) == 240_000
    assert keys.dtype == torch.int64


def test_seeds_of_64_bits_are_taken():
    assert keys_of(1, seed=2**64 - 1).item() == keys_of(1, seed=-1).item()


def test_identity_in_eval_mode():
    layer = SampleDropout(0.5, layer=0).eval()
    x = torch.randn(3, 4)
    assert layer(x) is x


def test_dropped_units_pass_no_gradient():
    layer = SampleDropout(0.5, layer=0)
    layer.keys = keys_of(0, 1)
    x = torch.ones(2, 64, requires_grad=True)
    out = layer(x)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())
    assert set(x.grad.unique().tolist()) == {0.0, 2.0}


def test_forgotten_samples_are_an_error():
    layer = SampleDropout(0.5, layer=0)
    with pytest.raises(RuntimeError, match="no samples"):
        layer(torch.ones(2, 4))
    layer.keys = keys_of(0, 1, 2)
    with pytest.raises(RuntimeError, match="3 samples, the batch has 2"):
        layer(torch.ones(2, 4))


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_impossible_probability(p):
    with pytest.raises(ValueError, match="must be in"):
        SampleDropout(p, layer=0)


def test_a_split_batch_gives_the_gradient_of_the_whole():
    """What the layer exists for: two workers' gradients add up to one worker's, dropout and all."""
    model = build_model("nin", classes=10, image_size=39, seed=0).double()
    images = torch.randn(4, 3, 39, 39, generator=torch.Generator().manual_seed(0)).double() * 80
    keys = keys_of(3, 1, 4, 5)

    def gradient(rows):
        model.zero_grad()
        set_samples(model, keys[rows])
        (model(images[rows]).square().sum() / 4).backward()
        return torch.cat([weight.grad.flatten() for weight in model.parameters()])

    whole = gradient(slice(0, 4))
    halves = gradient(slice(0, 2)) + gradient(slice(2, 4))
    assert whole.abs().max() > 0
    torch.testing.assert_close(halves, whole, rtol=1e-9, atol=1e-12 * whole.abs().max().item())
