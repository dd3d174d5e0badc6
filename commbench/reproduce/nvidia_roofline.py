"""NVIDIA's roofline of the input pipeline: which runs wait for their pictures, in miniature.

Source: NVIDIA's lecture on large-batch training, "Optimize the input pipeline": on a DGX-1 with
eight V100, files were read at some 10,000 images/s (LMDB, 1600 MB/s) and decoded at 10,000 to
15,000; ResNet-50 trained at more than 6,000, so it is bound by training, and AlexNet by its input.
Of pictures of 352 pixels the input took 9,800 images/s, of 480 pixels 4,900.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from commbench.experiments import Finding
from commbench.reproduce import Cell, Outcome

if TYPE_CHECKING:
    from commbench.pipeline.roofline import Rate, Roofline

NEEDS = "some 3 minutes on two cores; --quick, one"

_PACKED, _SMALL, _LARGE = "imagenet.lmdb", "352", "480"
_DGX1 = "on a DGX-1"
_LARGER_BAND = 0.25  # of twice as long: (480 / 352)^2 is 1.86


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        pictures: which of the sets.
        options: of `commbench pipeline`.
    """

    pictures: str
    options: dict[str, Any]


# One core loads and one trains: the deck's machine has processors for each as well.
_ONE_EACH: dict[str, Any] = {"loaders": 1, "threads": 1, "classes": 10, "augment_on": "cpu"}
_ALEXNET = {**_ONE_EACH, "model": "alexnet", "width": 0.0625}
CASES = {
    "resnet50": Case(
        _PACKED, {**_ONE_EACH, "model": "resnet50", "image_size": 67, "batches": (2, 4, 8)}
    ),
    "alexnet": Case(_PACKED, {**_ALEXNET, "image_size": 67, "batches": (32, 64, 128)}),
    _SMALL: Case(_SMALL, {**_ALEXNET, "image_size": 224, "batches": (8,)}),
    _LARGE: Case(_LARGE, {**_ALEXNET, "image_size": 224, "batches": (8,)}),
}


@dataclass(frozen=True)
class Measured:
    """All cases by name, and whether they were shortened."""

    quick: bool
    rooflines: dict[str, Roofline]


def measure(quick: bool, folder: Path, say: Callable[[str], None]) -> Measured:
    """Measure the cases of which `folder` has no complete run file; the results of all."""
    from commbench.pipeline.roofline import read_roofline
    from commbench.record.paths import make_folder

    paths = {name: folder / f"{name}.h5" for name in CASES}
    missing = [name for name, path in paths.items() if not _complete(path)]
    if missing:
        make_folder(folder)
        with TemporaryDirectory() as scratch:
            _measure_all({name: paths[name] for name in missing}, Path(scratch), quick, say)
    return Measured(quick, {name: read_roofline(path) for name, path in paths.items()})


def _complete(path: Path) -> bool:
    from commbench.record.reader import attributes, open_run

    if not path.exists():
        return False
    with open_run(path) as file:
        return bool(attributes(file)["status"] == "completed")


def _measure_all(
    paths: dict[str, Path], scratch: Path, quick: bool, say: Callable[[str], None]
) -> None:
    from commbench.pipeline.measure import PipelineSettings, measure

    say("making pictures")
    # All packing comes first: it forks, which a process with threads of torch must not.
    _make_pictures(scratch, 32 if quick else 128)
    for name, path in paths.items():
        say(f"measuring {name}")
        path.unlink(missing_ok=True)  # of a run that was interrupted
        case = CASES[name]
        data = str(scratch / case.pictures)
        seconds = 4.0 if quick else 40.0
        measure(PipelineSettings(data=data, output=path, seconds=seconds, **case.options))


def _make_pictures(scratch: Path, count: int) -> None:
    """ImageNet's sizes packed into an LMDB, and two folders of squares."""
    from commbench.workloads.data.files import open_pictures
    from commbench.workloads.data.pack import Packing, pack
    from commbench.workloads.data.textures import write_textures

    write_textures(scratch / "imagenet", train=count)
    classes, sources = open_pictures(scratch / "imagenet")
    pack(
        scratch / _PACKED,
        classes=classes,
        origin="textures",
        sources=sources,
        packing=Packing(),
        workers=1,
        progress=lambda done, total: None,
    )
    for side in (_SMALL, _LARGE):
        write_textures(scratch / side, train=count // 2, sizes=((int(side), int(side)),))


def judge(measured: Measured) -> Outcome:
    """Which model is bound by what, and what larger pictures cost."""
    lines = measured.rooflines
    slow, fast = lines["resnet50"], lines["alexnet"]
    larger = {
        stage: lines[_SMALL].of(stage).images_per_s / lines[_LARGE].of(stage).images_per_s
        for stage in ("decode", "input")
    }
    return Outcome(
        title="The input pipeline: what bounds a run",
        source="NVIDIA, on a DGX-1 with eight V100",
        cells=(
            *_input_cells(fast),
            _cell("ResNet-50", "train (images/s)", slow.training[-1], 6000),
            _cell("AlexNet, 1/16 wide", "train (images/s)", fast.training[-1], None),
            _cell("pictures of 352 px", "input (images/s)", lines[_SMALL].input, 9800),
            _cell("pictures of 480 px", "input (images/s)", lines[_LARGE].input, 4900),
            Cell("352 px over 480 px", "decode, ratio", larger["decode"], 2.0, _LARGER_BAND),
            Cell(
                *("352 px over 480 px", "input, ratio", larger["input"], 2.0),
                note="with what is the same for both, scaling to 224 px: told, not judged",
            ),
        ),
        notes=(
            "Here one core loads and one trains; pictures are textures of ImageNet's sizes, inputs "
            "of 67 px but for the last rows', which are of 224 px.",
            "ResNet-50 is of full width. AlexNet of full width would be bound by training here: "
            "the deck's GPUs are faster beside their processors than a core beside another.",
        ),
        findings=(
            _bound(slow, "ResNet-50", "training"),
            _bound(fast, "AlexNet", "input"),
            Finding(
                "ResNet-50 trains faster with larger batches",
                _over_batches(slow),
                slow.training[-1].images_per_s > slow.training[0].images_per_s,
            ),
            Finding(
                "files are read no faster than they are decoded",
                f"read {fast.of('read').images_per_s:,.0f}/s, "
                f"decode {fast.of('decode').images_per_s:,.0f}/s",
                fast.of("read").images_per_s <= fast.of("decode").images_per_s,
                expected=False,
                why="the files are in memory here, and one core decodes",
            ),
        ),
    )


def panels(measured: Measured) -> list[Callable[[Any], None]]:
    """The rooflines of both models."""
    from commbench.figures.roofline import draw

    return [partial(draw, roofline=measured.rooflines[name]) for name in ("resnet50", "alexnet")]


def _input_cells(roofline: Roofline) -> list[Cell]:
    printed = {"read": 10_000, "decode": 12_500}
    cells = [
        _cell("input at 67 px", f"{rate.stage} (images/s)", rate, printed.get(rate.stage))
        for rate in roofline.inputs
    ]
    read = roofline.inputs[0]
    note = f"{_DGX1}: told, not judged"
    return [*cells, Cell("input at 67 px", "read (MB/s)", read.mb_per_s, 1600, note=note)]


def _cell(row: str, column: str, rate: Rate, printed: float | None) -> Cell:
    note = f"{_DGX1}: told, not judged" if printed else ""
    return Cell(row, column, rate.images_per_s, printed, note=note)


def _bound(roofline: Roofline, name: str, by: str) -> Finding:
    found = {rate.batch: roofline.bound(rate) for rate in roofline.training}
    measured = ", ".join(f"{rate.images_per_s:,.0f}/s" for rate in roofline.training)
    return Finding(
        f"{name} is bound by {'its input' if by == 'input' else by}, whatever the batch",
        f"training {measured}; input {roofline.input.images_per_s:,.0f}/s",
        set(found.values()) == {by},
    )


def _over_batches(roofline: Roofline) -> str:
    return ", ".join(f"{rate.images_per_s:,.1f}/s at {rate.batch}" for rate in roofline.training)
