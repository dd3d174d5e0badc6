"""Pictures from bytes: JPEGs as Pillow decodes them, at smaller sizes too; others; broken ones."""

import io

import numpy as np
import pytest
from PIL import Image

from commbench.workloads.data import decoding
from commbench.workloads.data.decoding import CorruptImageError, examine
from pictures import picture


def jpeg(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90, **options)  # type: ignore[arg-type]
    return stream.getvalue()


@pytest.mark.parametrize(
    ("mode", "form"),
    [("RGB", "PNG"), ("L", "PNG"), ("P", "PNG"), ("CMYK", "JPEG"), ("L", "JPEG"), ("RGB", "JPEG")],
)
def test_pixels_are_pillows_whatever_the_format(mode: str, form: str) -> None:
    stream = io.BytesIO()
    picture(1).convert(mode).save(stream, form)
    data = stream.getvalue()
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    found = examine(data)
    assert (found.width, found.height) == expected.size
    assert (found.kind == "jpeg") == (form == "JPEG" and mode != "CMYK")
    assert (found.pixels() == np.asarray(expected)).all()
    assert (np.asarray(decoding.decode(data)) == np.asarray(expected)).all()


def test_what_is_written_without_loss_is_read_back() -> None:
    image = picture(1)
    for data in (decoding.encode_raw(image), decoding.encode_png(np.asarray(image))):
        assert (examine(data).pixels() == np.asarray(image)).all()
        assert (np.asarray(decoding.decode(data)) == np.asarray(image)).all()


@pytest.mark.parametrize("shrink", [1, *decoding.SHRINKS])
def test_a_jpeg_can_be_decoded_smaller(shrink: int) -> None:
    for size in ((161, 120), (97, 203), (7, 5)):
        pixels = examine(jpeg(picture(3, *size))).pixels(shrink)
        assert pixels.shape == (-(-size[1] // shrink), -(-size[0] // shrink), 3)
    image = picture(3, 320, 240)
    pixels = examine(jpeg(image, subsampling=0)).pixels(shrink)
    # Half the size of a picture is the mean of its pixels, nearly.
    expected = image.resize((320 // shrink, 240 // shrink), Image.Resampling.BOX)
    np.testing.assert_allclose(pixels.astype(int), np.asarray(expected).astype(int), atol=16)


SEQUENTIAL = [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"optimize": True}]
OTHERWISE = [{"progressive": True}, {"restart_marker_blocks": 5}]


@pytest.mark.parametrize("shrink", [1, *decoding.SHRINKS])
@pytest.mark.parametrize("options", [*SEQUENTIAL, *OTHERWISE])
def test_rows_below_those_that_are_wanted_are_left_out(
    shrink: int, options: dict[str, object]
) -> None:
    for image in (noise(161, 120), noise(40, 301).convert("L")):
        found = examine(jpeg(image, **options))
        whole = found.pixels(shrink)
        for rows in (1, 15, 16, 50, 79, image.height - 1, image.height):
            upper = found.pixels(shrink, rows=rows)
            wanted = -(-rows // shrink)
            assert (upper[:wanted] == whole[:wanted]).all()
            assert upper.shape[1:] == whole.shape[1:]
            left_out = options in SEQUENTIAL and rows < image.height - 40
            assert wanted <= len(upper) <= (wanted + 2 if left_out else len(whole))


def test_faults_in_and_above_the_wanted_rows_are_found() -> None:
    data = jpeg(noise(200, 200))
    for cut in (200, len(data) // 2, len(data) - 9):
        with pytest.raises(CorruptImageError):
            examine(data[:cut]).pixels(rows=80)
    spoilt = bytearray(data)
    spoilt[len(data) // 4 : len(data) // 4 + 2] = b"\xff\xd3"  # a restart where there is none
    expected = np.asarray(decoding.decode(bytes(spoilt)))
    assert (examine(bytes(spoilt)).pixels(rows=80) == expected).all()  # Pillow has the last word


def noise(width: int, height: int) -> Image.Image:
    """A picture whose every part takes many bytes."""
    colours = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(colours)


def test_a_jpeg_that_simplejpeg_refuses_goes_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    import simplejpeg

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("not for me")

    data = jpeg(picture(2, 80, 60))
    expected = examine(data).pixels()
    monkeypatch.setattr(simplejpeg, "decode_jpeg", refuse)
    # Pillow gives the whole picture, whatever was asked for.
    assert (examine(data).pixels(2) == expected).all()
    monkeypatch.setattr(simplejpeg, "decode_jpeg_header", refuse)
    assert examine(data).kind == "other"
    assert (examine(data).pixels() == expected).all()


def test_broken_bytes_are_told_apart() -> None:
    whole, raw = jpeg(picture(1)), decoding.encode_raw(picture(1))
    for data in (b"", b"no picture", whole[: len(whole) // 2], whole[:10], raw[:-1], raw[:18]):
        with pytest.raises(CorruptImageError):
            decoding.decode(data)
        with pytest.raises(CorruptImageError):
            examine(data).pixels()
        with pytest.raises(CorruptImageError):
            examine(data).pixels(2)
