"""Names of run files: free ones, refused ones, and publishing under one in a single step."""

import os
import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from commbench.errors import UserError


def default_path(folder: Path, stem: str) -> Path:
    """A free name such as `results/2026-11-21T034512-train-nin-tree-n4.h5`; makes the folder.

    The time is UTC. Characters that shells treat specially become hyphens in the stem.

    Raises:
        UserError: the folder cannot be made.
    """
    make_folder(folder)
    clean = re.sub(r"[^\w.+-]+", "-", stem)[:150]
    path = folder / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}-{clean}.h5"
    return next(name for name in _numbered(path) if not os.path.lexists(name))


def make_folder(folder: Path) -> None:
    """Have a folder, made where it is missing.

    Raises:
        UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}") from error


def check_output(path: Path, *, unique: bool = False) -> None:
    """Say early that a run file, or another file of a run, cannot be created as `path`.

    Args:
        path: the file to create.
        unique: whether another name will be taken if this one is.

    Raises:
        UserError: the name is taken, or its folder is missing or unwritable.
    """
    if not unique and os.path.lexists(path):
        raise UserError(
            f"{path} exists and a run never overwrites another's file: "
            "give a new name or move the old file away"
        )
    folder = path.parent
    if not folder.is_dir():
        raise UserError(f"cannot create {path}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"cannot create {path}: the folder {folder} is not writable")


def part(path: Path) -> Path:
    """A hidden name beside `path` that no other process uses."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def sync(path: Path) -> None:
    """Have the file on the disk before it gets its name."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def publish(part: Path, path: Path, unique: bool) -> Path:
    """Give the finished file its name; unlike a rename, a link never replaces a file."""
    for candidate in _numbered(path) if unique else [path]:
        try:
            candidate.hardlink_to(part)
            return candidate
        except FileExistsError:
            continue
    raise UserError(f"{path} was created meanwhile by another run: give a new name")


def _numbered(path: Path) -> Iterator[Path]:
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
