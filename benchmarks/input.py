"""Making batches of JPEGs: ours against Pillow in torch's DataLoader, on so many cores.

`python -m benchmarks.input --cores 1 --output FILE`
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click
import numpy as np

if TYPE_CHECKING:
    from commbench.workloads.data import Split

OURS, PROCESSES = "ours, threads", "ours, DataLoader's processes"
THEIRS, ALONE = "Pillow, DataLoader's processes", "Pillow, DataLoader without workers"
CANDIDATES = (OURS, PROCESSES, THEIRS, ALONE)
_AUGMENTATION = "goyal"
_CROP = 224
_BATCH = 64


@click.command()
@click.option("--cores", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--pictures", type=click.IntRange(min=1), default=256, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The run file.")
def main(cores: int, pictures: int, rounds: int, output: Path) -> None:
    """Time passes over a folder of JPEGs, all on the same cores, as many threads and workers."""
    # Before torch is loaded, and for all that is started from here.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    from commbench.turns import turn_order
    from commbench.workloads.data.textures import write_textures

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "pictures"
        write_textures(root, train=pictures)
        nbytes = sum(path.stat().st_size for path in (root / "train").rglob("*.JPEG"))
        passes = _passes(root, cores)
        apart = _apart(passes)
        seconds = np.zeros((2, len(CANDIDATES), rounds))
        for number in range(rounds):
            for turn in turn_order(number, len(CANDIDATES)):
                start, busy = perf_counter(), _processor_s()
                for _ in passes[CANDIDATES[turn]]():
                    pass
                seconds[:, turn, number] = perf_counter() - start, _processor_s() - busy
    rates = pictures / np.median(seconds, axis=2)
    for name, wall, processor in zip(CANDIDATES, *rates, strict=True):
        print(f"# {cores} cores, {name}: {wall:.0f}/s, {processor:.0f} a processor second")
    print(f"# apart by {apart:.3f} deviations", flush=True)
    _write(
        output,
        *seconds,
        options={"cores": cores, "pictures": pictures, "rounds": rounds},
        attributes={"picture_bytes": nbytes / pictures, "apart": apart},
    )


def _passes(root: Path, cores: int) -> dict[str, Callable[[], Iterator[Any]]]:
    """What makes one pass over the training pictures, in batches, by candidate."""
    import torch
    from torch.utils.data import DataLoader

    from commbench.workloads.data import load_data
    from commbench.workloads.data.loader import Loader, Request
    from commbench.workloads.models.dropout import sample_keys
    from commbench.workloads.task import Task

    task = Task("images", classes=4, size=_CROP)
    data = load_data(
        str(root), folder=None, task=task, batch=_BATCH, seed=1, augmentation=_AUGMENTATION
    )
    everything = np.arange(len(data.train))
    keys = sample_keys(1, 0, everything).numpy()
    rival = Rival(sorted((root / "train").rglob("*.JPEG")), keys)

    def loader(pictures: Any, workers: int) -> DataLoader[Any]:
        return DataLoader(pictures, _BATCH, num_workers=workers, persistent_workers=workers > 0)

    theirs, ours = loader(rival, cores), loader(Singles(data.train, keys), cores)
    iter(theirs), iter(ours)  # forks their workers, while there are no threads yet
    alone = loader(rival, 0)
    torch.set_num_threads(1)  # of the process that takes the batches
    threads = Loader(cores)
    parts = [slice(start, start + _BATCH) for start in range(0, len(everything), _BATCH)]
    requests = [Request(everything[part], keys[part]) for part in parts]
    return {
        OURS: lambda: (batch.inputs for batch in threads.batches(data.train, requests)),
        PROCESSES: lambda: iter(ours),
        THEIRS: lambda: iter(theirs),
        ALONE: lambda: iter(alone),
    }


class Singles:
    """Our pictures one by one, for processes that put them together as they do Pillow's."""

    def __init__(self, pictures: Split, keys: Any) -> None:
        self.pictures, self.keys = pictures, keys

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.pictures)

    def __getitem__(self, index: int) -> Any:
        """A picture as an input, `(3, 224, 224) float32`."""
        return self.pictures.batch(np.array([index]), self.keys[index : index + 1])[0][0]


class Rival:
    """The same pictures as everybody reads them: Pillow, then torch; see torchvision's transforms.

    The same parts are cut out and flipped, so that the same numbers come out.
    """

    def __init__(self, paths: list[Path], keys: Any) -> None:
        from commbench.workloads.data.transforms import MEAN, STD

        self.paths, self.keys = paths, keys
        # For colours from 0 to 1, as there.
        self.mean, self.std = (np.array(one) / 255 for one in (MEAN, STD))

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        """A picture as an input, `(3, 224, 224) float32`."""
        import torch
        from PIL import Image

        from commbench.workloads.data.augment import AUGMENTATIONS, draw, generator

        with Image.open(io.BytesIO(self.paths[index].read_bytes())) as file:
            image = file.convert("RGB")
        random = generator(int(self.keys[index]))
        drawn = draw(AUGMENTATIONS[_AUGMENTATION], *image.size, _CROP, random)
        image = image.crop(drawn.cut.box).resize((_CROP, _CROP), Image.Resampling.BILINEAR)
        if drawn.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        mean, std = (
            torch.as_tensor(one, dtype=torch.float32)[:, None, None]
            for one in (self.mean, self.std)
        )
        return tensor.to(torch.float32).div(255).sub_(mean).div_(std)


def _processor_s() -> float:
    """What this process and its children, the workers, have used of processors, in seconds."""
    ticks = 0
    own = os.getpid()
    for process in [own, *_children(own)]:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _children(process: int) -> list[int]:
    lists = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for one in lists for child in one.read_text().split()]


def _apart(passes: dict[str, Callable[[], Iterator[Any]]]) -> float:
    """The largest difference between anybody's numbers, in deviations."""
    import torch

    made = [torch.cat(list(one())) for one in passes.values()]
    return max(float((one - made[0]).abs().max()) for one in made[1:])


def _write(
    output: Path,
    seconds: Any,
    processor: Any,
    *,
    options: dict[str, Any],
    attributes: dict[str, Any],
) -> None:
    from commbench.record import Group, RunFile, Variable

    dims = ("candidate", "round")
    variables = {
        "candidate": Variable(("candidate",), "who makes them", data=np.array(CANDIDATES)),
        "round": Variable(("round",), "round, from 0", data=np.arange(seconds.shape[1])),
        "seconds": Variable(dims, "time of a pass over all pictures", "s", data=seconds),
        "processor_seconds": Variable(
            dims, "processor time of a pass, workers included", "s", data=processor
        ),
    }
    RunFile.create(
        output,
        kind="benchmark-input",
        seed=1,
        hosts=[],
        devices=["cpu"],
        options=options,
        attributes=attributes,
        groups=[Group("input", variables)],
    ).finish()


if __name__ == "__main__":
    main()
