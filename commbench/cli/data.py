"""`commbench data`: pack pictures into one file, and check them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from commbench.errors import EXIT_BUG

_LINE_EVERY_S = 5.0
_NAMES = 20


def _workers(function: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--workers",
        type=click.IntRange(min=1),
        default=lambda: len(os.sched_getaffinity(0)),
        help="How many pictures are worked on at a time. [default: one a core]",
    )(function)


@click.group("data")
def command() -> None:
    """Pack pictures into one file, and check what is packed.

    \b
      commbench data pack imagenet imagenet-256.lmdb --size 256
      commbench data check imagenet-256.lmdb
      mpirun -n 4 commbench train --data imagenet-256.lmdb --image-size 224

    SRC is a folder as ImageNet has it (train/CLASS/*.JPEG and val), a packed file, or
    fashion-mnist or fashion-mnist-subset.
    """


@command.command("pack")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=click.Path(path_type=Path))
@click.option(
    "--size",
    type=click.IntRange(min=1),
    help="Scale pictures down to this shorter side in pixels. [default: keep their bytes]",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["lmdb", "hdf5"]),
    help="What DST is; its suffix .lmdb, .h5 or .hdf5 must agree. [default: by the suffix]",
)
@click.option("--raw", is_flag=True, help="Store plain pixels: larger, and nothing to decode.")
@click.option(
    "--quality",
    type=click.IntRange(1, 95),
    default=95,
    show_default=True,
    help="Of the JPEGs that scaled pictures become.",
)
@_workers
def pack_command(
    *,
    source: str,
    destination: Path,
    size: int | None,
    kind: str | None,
    raw: bool,
    quality: int,
    workers: int,
) -> None:
    """Pack the pictures of SRC into DST; the same command again goes on after an interruption."""
    from commbench.errors import UserError
    from commbench.workloads.data import packed
    from commbench.workloads.data.files import open_named
    from commbench.workloads.data.pack import Packing, pack

    suffixes = {"lmdb": packed.LMDB_SUFFIXES, "hdf5": packed.HDF5_SUFFIXES}
    if kind is not None and destination.suffix not in suffixes[kind]:
        raise UserError(
            f"{destination}: --format {kind} needs a name that ends in "
            f"{' or '.join(sorted(suffixes[kind]))}"
        )
    classes, sources = open_named(source)
    corrupt = pack(
        destination,
        classes=classes,
        origin=source,
        sources=sources,
        packing=Packing(size, raw, quality),
        workers=workers,
        progress=_Progress("packed"),
    )
    counts = ", ".join(f"{len(one.labels):,} {split}" for split, one in sources.items())
    print(f"{destination}: {counts} pictures in {len(classes)} classes")
    if corrupt:
        _tell(f"{len(corrupt)} cannot be decoded and were copied as they are", corrupt)


@command.command("check")
@click.argument("path", metavar="PATH")
@_workers
def check_command(path: str, workers: int) -> None:
    """Read and decode every picture of PATH and name the corrupt ones; exit status 1 if any."""
    from commbench.workloads.data.check import check_source
    from commbench.workloads.data.files import open_named

    classes, sources = open_named(path)
    failed = False
    for split, source in sources.items():
        found = check_source(source, workers, _Progress(f"{split}: checked"))
        print(
            f"{split}: {found.pictures:,} pictures, {found.classes} of {len(classes)} classes, "
            f"{len(found.corrupt)} corrupt"
        )
        for name, reason in found.corrupt:
            print(f"  {name}: {reason}")
        failed = failed or bool(found.corrupt)
    if failed:
        sys.exit(EXIT_BUG)


class _Progress:
    """A line on standard error every few seconds."""

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.shown = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.shown >= _LINE_EVERY_S:
            self.shown = now
            print(f"{self.verb} {done:,} of {total:,} ({done / total:.0%})", file=sys.stderr)


def _tell(what: str, names: list[str]) -> None:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    print(f"{what}: {', '.join(names[:_NAMES])}{more}", file=sys.stderr)
