"""Cuts, draws and transforms against Pillow's own operations, formulas and their statistics."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from commbench.workloads.data import augment, cuts, transforms
from commbench.workloads.data.augment import AUGMENTATIONS, Draw, draw, generator
from commbench.workloads.data.cuts import Cut
from pictures import picture


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def planes(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(array(image).transpose(2, 0, 1).astype(np.float32))[None]


def on_host(image: Image.Image, drawn: Draw, size: int) -> np.ndarray:
    return transforms.square(array(image), drawn.cut.box, drawn.cut, size).numpy()


@pytest.mark.parametrize(("width", "height"), [(60, 50), (50, 60), (40, 40), (7, 300)])
def test_the_shorter_side_and_the_middle(width: int, height: int) -> None:
    image = picture(2, width, height)
    to = cuts.shorter_side(width, height, 32)
    assert min(to) == 32
    assert to[0] / to[1] == pytest.approx(width / height, rel=0.05)
    cut = cuts.centre_cut(width, height, 28, 4)
    assert cut.to == to
    assert cut.at == ((to[0] - 28) // 2, (to[1] - 28) // 2)
    scaled = array(image.resize(to, Image.Resampling.BILINEAR)).astype(int)
    left, top = cut.at
    made = transforms.square(array(image), cut.box, cut, 28).numpy()
    np.testing.assert_allclose(made, scaled[top : top + 28, left : left + 28], atol=2)


def test_random_cuts_reach_every_place() -> None:
    random = generator(3)
    found = {cuts.random_cut(12, 12, 4, 2, random).at for _ in range(300)}
    assert found == {(left, top) for left in range(3) for top in range(3)}
    image = Image.fromarray(np.arange(36, dtype=np.uint8).reshape(6, 6)).convert("RGB")
    cut = cuts.random_cut(6, 6, 4, 2, generator(1))
    left, top = cut.at
    part = transforms.square(array(image), cut.box, cut, 4).numpy()
    assert (part == array(image)[top : top + 4, left : left + 4]).all()


def test_random_boxes_have_the_areas_and_aspects_of_inception() -> None:
    random = generator(5)
    boxes = [cuts.random_box(500, 500, random) for _ in range(4000)]
    found = np.array([box for box in boxes if box is not None])
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] <= 500).all()
    width, height = (found[:, 2:] - found[:, :2]).T
    area, aspect = width * height / 500**2, width / height
    assert 0.078 < area.min() < 0.1
    assert area.max() <= 1
    assert 0.74 < aspect.min() < 0.76
    assert 1.32 < aspect.max() < 1.35
    assert np.median(aspect) == pytest.approx(1, abs=0.03)
    # Uniform where nearly every aspect fits: up to three quarters of the area.
    counts, _ = np.histogram(area, np.linspace(0.08, 0.74, 7))
    assert counts == pytest.approx(counts.mean(), rel=0.15)


def test_a_resized_cut_is_pillows_crop_and_resize() -> None:
    image = picture(4)
    cut = cuts.random_resized_cut(*image.size, 24, generator(9))
    expected = array(image.crop(cut.box).resize((24, 24), Image.Resampling.BILINEAR))
    made = transforms.square(array(image), cut.box, cut, 24).numpy()
    np.testing.assert_allclose(made.astype(int), expected.astype(int), atol=2)
    thin = cuts.random_resized_cut(1000, 3, 24, generator(9))
    assert thin == cuts.centre_cut(1000, 3, 24, 0)


@pytest.mark.parametrize(
    ("box", "shrink"),
    [
        ((0, 0, 199, 500), 1),
        ((3, 7, 203, 207), 2),
        ((0, 0, 399, 500), 2),
        ((0, 0, 400, 400), 4),
        ((0, 0, 800, 5000), 8),
    ],
)
def test_a_jpeg_shrinks_until_the_box_would_be_too_small(box: cuts.Box, shrink: int) -> None:
    cut = Cut(box, (100, 100))
    assert cut.shrink == shrink
    width, height = -(-900 // shrink), -(-5001 // shrink)
    left, top, right, bottom = cut.box_in(width, (900, 5001))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    if shrink > 1:
        assert min(right - left, bottom - top) >= 99
    np.testing.assert_allclose(np.array([left, top, right, bottom]) * shrink, box, atol=shrink)


def test_flips_come_every_other_time() -> None:
    flips = [draw(AUGMENTATIONS["caffe"], 60, 50, 24, generator(key)).flip for key in range(400)]
    assert 160 < sum(flips) < 240


def test_colours_change_as_pillow_changes_them() -> None:
    image = picture(7)
    for change, enhance in (
        (augment.BRIGHTNESS, ImageEnhance.Brightness),
        (augment.CONTRAST, ImageEnhance.Contrast),
        (augment.SATURATION, ImageEnhance.Color),
    ):
        same, changed = planes(image), planes(image)
        transforms.change(same, [change], [1.0])
        np.testing.assert_allclose(same, planes(image), atol=1e-3)
        transforms.change(changed, [change], [0.7])
        expected = array(enhance(image).enhance(0.7)).astype(float)
        np.testing.assert_allclose(changed[0].permute(1, 2, 0), expected, atol=1.6)


def test_pictures_of_a_batch_change_each_in_its_own_way() -> None:
    images = [picture(seed, 30, 20) for seed in range(4)]
    kinds, strengths = [1, 2, 0, 1], [0.6, 1.4, 0.8, 1.1]
    together = torch.cat([planes(image) for image in images])
    transforms.change(together, kinds, strengths)
    for image, kind, strength, made in zip(images, kinds, strengths, together, strict=True):
        alone = planes(image)
        transforms.change(alone, [kind], [strength])
        assert torch.equal(alone[0], made)


def test_jitter_draws_every_order() -> None:
    drawn = [augment.draw_jitter(generator(key)) for key in range(200)]
    assert len({tuple(change for change, _ in one) for one in drawn}) == 6
    strengths = np.array([strength for one in drawn for _, strength in one])
    assert 0.6 <= strengths.min() < 0.61
    assert 1.39 < strengths.max() <= 1.4


def test_light_is_one_colour_of_the_right_spread() -> None:
    lights = np.array([augment.draw_light(generator(key)) for key in range(2000)])
    # The first component, of nearly equal parts of the three colours, has by far the largest share.
    assert np.linalg.norm(lights.std(axis=0)) == pytest.approx(255 * 0.1 * 0.2184, rel=0.05)
    assert np.abs(lights.mean(axis=0)).max() < 0.3


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_draw_depends_on_the_key_alone(name: str) -> None:
    how = AUGMENTATIONS[name]
    first, again = (draw(how, 60, 50, 24, generator(-7)) for _ in range(2))
    assert repr(first) == repr(again)
    # Two keys may well draw the same.
    several = {repr(draw(how, 60, 50, 24, generator(key))) for key in range(20)}
    assert len(several) == 1 if name == "none" else len(several) > 12
    assert draw(how, 60, 50, 24, None) == Draw(cuts.centre_cut(60, 50, 24, 3))


def test_numbers_are_those_of_a_new_generator() -> None:
    numbers = augment.Numbers()
    for key in (-(2**63), -1, 0, 5, 5, 2**63 - 1):
        drawn, expected = numbers.of(key), generator(key)
        for random in (drawn, expected):
            random.integers(7, dtype=np.int32)  # leaves half a word over
        assert (drawn.random(5) == expected.random(5)).all()


@pytest.mark.parametrize("std", [False, True])
def test_colours_are_centred_and_divided(std: bool) -> None:
    images = planes(picture(9))
    before = array(picture(9)).astype(np.float64)
    transforms.colour(images, [Draw(Cut((0, 0, 1, 1), (1, 1)))], std=std)
    expected = (before - transforms.MEAN) / (transforms.STD if std else 1)
    np.testing.assert_allclose(images[0].permute(1, 2, 0), expected, rtol=1e-5, atol=1e-4)


def same_on(device: torch.device) -> None:
    """A batch scaled and coloured at once is that of one by one, on any device."""
    size, how = 24, AUGMENTATIONS["fb-resnet"]
    images = [picture(seed, 50 + 9 * (seed % 3), 45 + seed) for seed in range(8)]
    draws = [
        draw(AUGMENTATIONS["caffe"] if key % 2 else how, *image.size, size, generator(key))
        for key, image in enumerate(images)
    ]
    draws = [replace(drawn, jitter=augment.draw_jitter(generator(1))) for drawn in draws]
    boxes = [array(image.crop(drawn.cut.box)) for image, drawn in zip(images, draws, strict=True)]
    # Whatever lies beside the boxes counts for nothing.
    frames = torch.full((8, 70, 80, 3), 255, dtype=torch.uint8)
    for frame, box in zip(frames, boxes, strict=True):
        frame[: box.shape[0], : box.shape[1]] = torch.from_numpy(box.copy())
    extents = torch.tensor([box.shape[1::-1] for box in boxes], dtype=torch.float32)
    draws = [replace(drawn, light=np.ones(3, np.float32)) for drawn in draws]
    together = transforms.squares(frames.to(device), extents.to(device), draws, size)
    for image, drawn, made in zip(images, draws, together.cpu(), strict=True):
        alone = on_host(image, drawn, size).astype(float)
        alone = alone[:, ::-1] if drawn.flip else alone
        np.testing.assert_allclose(made.permute(1, 2, 0), alone, atol=2)
    assert len({drawn.flip for drawn in draws}) == 2
    expected = together.cpu().clone()
    transforms.colour(expected, draws, std=True)
    transforms.colour(together, draws, std=True)
    np.testing.assert_allclose(together.cpu(), expected, atol=1e-4)


def test_a_batch_at_once_is_as_one_by_one() -> None:
    same_on(torch.device("cpu"))


@pytest.mark.gpu
def test_a_batch_at_once_on_a_gpu_is_as_one_by_one() -> None:
    same_on(torch.device("cuda"))
