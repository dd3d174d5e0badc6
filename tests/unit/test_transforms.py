"""Transforms against Pillow's own operations, formulas and the statistics that they should have."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from commbench.workloads.data import transforms
from commbench.workloads.data.augment import AUGMENTATIONS, prepare
from commbench.workloads.data.transforms import CorruptImageError, generator
from pictures import picture


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def test_decoding_gives_rgb_whatever_the_format() -> None:
    image = picture(1)
    for mode, kind in (("RGB", "PNG"), ("L", "PNG"), ("P", "PNG"), ("CMYK", "JPEG"), ("L", "JPEG")):
        stream = io.BytesIO()
        image.convert(mode).save(stream, kind)
        decoded = transforms.decode(stream.getvalue())
        assert (decoded.mode, decoded.size) == ("RGB", image.size)
    assert (array(transforms.decode(transforms.encode_raw(image))) == array(image)).all()
    assert (array(transforms.decode(transforms.encode_png(array(image)))) == array(image)).all()


def test_broken_bytes_are_told_apart() -> None:
    whole = transforms.encode_jpeg(picture(1), 95)
    raw = transforms.encode_raw(picture(1))
    for data in (b"", b"no picture", whole[: len(whole) // 2], whole[:10], raw[:-1], raw[:18]):
        with pytest.raises(CorruptImageError):
            transforms.decode(data)


@pytest.mark.parametrize(("width", "height"), [(60, 50), (50, 60), (40, 40), (7, 300)])
def test_the_shorter_side_and_the_middle(width: int, height: int) -> None:
    image = transforms.resize_shorter(picture(2, width, height), 32)
    assert min(image.size) == 32
    assert image.width / image.height == pytest.approx(width / height, rel=0.05)
    middle = array(transforms.centre_crop(image, 20))
    top, left = (image.height - 20) // 2, (image.width - 20) // 2
    assert (middle == array(image)[top : top + 20, left : left + 20]).all()


def test_random_crops_are_parts_and_reach_every_place() -> None:
    image = Image.fromarray(np.arange(36, dtype=np.uint8).reshape(6, 6)).convert("RGB")
    random = generator(3)
    corners = set()
    for _ in range(300):
        part = array(transforms.random_crop(image, 4, random))[:, :, 0]
        corners.add(int(part[0, 0]))
        top, left = divmod(int(part[0, 0]), 6)
        assert (part == array(image)[top : top + 4, left : left + 4, 0]).all()
    assert corners == {6 * top + left for top in range(3) for left in range(3)}


def test_random_boxes_have_the_areas_and_aspects_of_inception() -> None:
    random = generator(5)
    boxes = [transforms.random_box(500, 500, random) for _ in range(4000)]
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


def test_a_resized_crop_is_pillows_crop_and_resize() -> None:
    image = picture(4)
    box = transforms.random_box(*image.size, generator(9))
    expected = array(image.crop(box).resize((24, 24), Image.Resampling.BILINEAR))
    made = array(transforms.random_resized_crop(image, 24, generator(9)))
    # Cut before scaling, or scaled from the whole picture: the same but for the rim.
    np.testing.assert_allclose(made.astype(int), expected.astype(int), atol=1)
    thin = transforms.random_resized_crop(picture(4, 1000, 3), 24, generator(9))
    assert thin.size == (24, 24)


def test_flips_come_every_other_time() -> None:
    image = picture(6)
    random = generator(1)
    flips = [
        bool((array(transforms.random_flip(image, random)) != array(image)).any())
        for _ in range(400)
    ]
    assert 160 < sum(flips) < 240
    flipped = next(
        one
        for one in (array(transforms.random_flip(image, generator(key))) for key in range(20))
        if (one != array(image)).any()
    )
    assert (flipped == array(image)[:, ::-1]).all()


def test_colours_change_as_pillow_changes_them() -> None:
    image = picture(7)
    pixels = transforms.to_pixels(image)
    for change, enhance in (
        (transforms.brightness, ImageEnhance.Brightness),
        (transforms.contrast, ImageEnhance.Contrast),
        (transforms.saturation, ImageEnhance.Color),
    ):
        np.testing.assert_allclose(change(pixels, 1.0), pixels, atol=1e-3)
        expected = array(enhance(image).enhance(0.7)).astype(float)
        np.testing.assert_allclose(change(pixels, 0.7), expected, atol=1.6)


def test_lighting_adds_one_colour_of_the_right_spread() -> None:
    pixels = transforms.to_pixels(picture(8))
    shifts = []
    for key in range(2000):
        shift = transforms.lighting(pixels, generator(key)) - pixels
        assert np.ptp(shift, axis=(0, 1)).max() < 1e-3
        shifts.append(shift[0, 0])
    # The first component, of nearly equal parts of the three colours, has by far the largest share.
    assert np.linalg.norm(np.std(shifts, axis=0)) == pytest.approx(255 * 0.1 * 0.2184, rel=0.05)
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.3


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_input_depends_on_the_key_alone(name: str) -> None:
    image, how = picture(9), AUGMENTATIONS[name]
    first, again = (prepare(image, 24, how, generator(-7)) for _ in range(2))
    # Two keys may well draw the same crop.
    several = {prepare(image, 24, how, generator(key)).tobytes() for key in range(20)}
    assert (first.shape, first.dtype) == ((3, 24, 24), np.float32)
    assert (first == again).all()
    assert len(several) == 1 if name == "none" else len(several) > 12
    tested = prepare(image, 24, how, None)
    plain = array(transforms.centre_crop(transforms.resize_shorter(image, 27), 24))
    scale = transforms.STD if how.std else 1
    np.testing.assert_allclose(
        tested, ((plain - transforms.MEAN) / scale).transpose(2, 0, 1), rtol=1e-5, atol=1e-4
    )
