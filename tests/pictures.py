"""Small data sets in ImageNet's layout, for the tests."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ["n01440764", "n01443537", "n01484850"]


def picture(seed: int, width: int = 60, height: int = 50) -> Image.Image:
    """Smooth colours, so that JPEG keeps them nearly as they are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def image_net(root: Path, train: int = 8, val: int = 2) -> Path:
    """So many JPEGs a class; their sizes differ."""
    seed = 0
    for split, count in (("train", train), ("val", val)):
        for label in CLASSES:
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                seed += 1
                picture(seed, 50 + seed % 7, 48 + seed % 5).save(folder / f"{label}_{number}.JPEG")
    return root
