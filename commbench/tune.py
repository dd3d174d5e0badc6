"""Measures which exchange is fastest at which buffer size here, and keeps the answer for later.

The file of answers is JSON and holds one for each setting: host, MPI library, ranks, device,
element type and transport. ``--exchange auto`` looks its own setting up in it.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import commbench
from commbench import environment
from commbench.errors import UserError
from commbench.job import Job
from commbench.registry import Choice, admitted
from commbench.units import Bytes

AUTO = "auto"
_FORMAT = "commbench tuning"
_VERSION = 1


@dataclass(frozen=True)
class Setting:
    """What decides which exchange is fastest; the key of the file.

    Attributes:
        host: rank 0's.
        mpi: the library's name and version.
        ranks: of the job; `ranks_per_node` on the fullest node.
        device, dtype: of the buffers.
        transport: "mpi" everywhere, or "shared-memory" within nodes.
    """

    host: str
    mpi: str
    ranks: int
    ranks_per_node: int
    device: str
    dtype: str
    transport: str

    def __str__(self) -> str:
        """In one line."""
        return (
            f"{self.ranks} ranks, {self.ranks_per_node} a node, on {self.host}: {self.mpi}, "
            f"{self.device}, {self.dtype}, {self.transport}"
        )


@dataclass(frozen=True)
class Tuned:
    """An answer.

    Attributes:
        exchange: the choice by size, ``native:32K:ring``.
        sizes_bytes: the buffers that were measured.
        fastest: the exchange for each.
        median_s: its median for each, of the slowest rank.
        native_s: the library's own, NaN where it was not a candidate.
    """

    exchange: str
    sizes_bytes: list[int]
    fastest: list[str]
    median_s: list[float]
    native_s: list[float]


def default_file() -> Path:
    """``commbench/tuning.json`` in $XDG_CACHE_HOME or ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "commbench" / "tuning.json"


def setting_of(job: Job, *, device: str, dtype: str, transport: str) -> Setting:
    """The setting of a job; collective."""
    shares = device == "cpu" and transport != "mpi"
    return Setting(
        host=job.all_gather_text(job.host)[0],
        mpi=environment.mpi_library(),
        ranks=job.size,
        ranks_per_node=int(job.all_gather(np.array([job.local_size])).max()),
        device=device,
        dtype=dtype,
        transport="shared-memory" if shares else "mpi",
    )


def candidates(choices: Sequence[Choice], size: int, *, every: bool) -> list[Choice]:
    """The exchanges to measure.

    Args:
        choices: as the user named them.
        size: number of ranks.
        every: whether that was "all", of which those that make no sense here are left out.

    Raises:
        UserError: one that sums nothing or depends on the size itself, or other workers.
    """
    # An asynchronous one is left to those who ask for its schedule: they tell what it is.
    unfit = [
        choice.spec
        for choice in choices
        if choice.name == "none" or not (choice.plain or choice.asynchronous)
    ]
    fit = [choice for choice in choices if choice.spec not in unfit]
    if every:
        fit = admitted(fit, size)[0]
    elif unfit:
        raise UserError(
            f"--exchange {', '.join(unfit)}: tune finds the choice by size; give exchanges that "
            "sum buffers of all sizes alike"
        )
    if len({tuple(choice.workers(size)) for choice in fit}) > 1:
        raise UserError(
            "tune cannot mix exchanges with a dedicated server and without: a rank either has "
            "data or not"
        )
    return fit


def pick(names: Sequence[str], seconds: NDArray[np.float64]) -> list[int]:
    """The fastest exchange at each size.

    That is the one of the lowest median; but the library's own, ``native``, unless the other is
    faster than it both in the median and in the median of the ratios iteration by iteration.

    Args:
        names: of the exchanges.
        seconds: ``(sizes, exchanges, iterations, ranks)``.

    Returns:
        For each size an index of `names`.
    """
    slowest = seconds.max(axis=3)
    medians = np.median(slowest, axis=2)
    if "native" not in names:
        return [int(best) for best in medians.argmin(axis=1)]
    own = list(names).index("native")
    ratios = np.median(slowest / slowest[:, own : own + 1], axis=2)
    faster = (medians < medians[:, own : own + 1]) & (ratios < 1)
    faster[:, own] = True
    return [int(best) for best in np.where(faster, medians, np.inf).argmin(axis=1)]


def merge(sizes_bytes: Sequence[int], fastest: Sequence[str]) -> str:
    """One choice by size; an exchange holds up to the last size at which it was the fastest."""
    spec = ""
    for (size, name), (_, following) in pairwise(zip(sizes_bytes, fastest, strict=True)):
        if name != following:
            spec += f"{name}:{Bytes(size)}:"
    return spec + fastest[-1]


def decide(table: Any) -> Tuned:
    """The answer that the group /sweep of a run file gives."""
    names = list(table["exchange"].asstr()[:])
    sizes = [int(size) for size in table["size_bytes"][:]]
    seconds = table["seconds"][:]
    medians = np.median(seconds.max(axis=3), axis=2)
    best = pick(names, seconds)
    fastest = [names[index] for index in best]
    native = medians[:, names.index("native")] if "native" in names else np.full(len(sizes), np.nan)
    return Tuned(
        exchange=merge(sizes, fastest),
        sizes_bytes=sizes,
        fastest=fastest,
        median_s=[float(row[index]) for row, index in zip(medians, best, strict=True)],
        native_s=[float(value) for value in native],
    )


def read(file: Path) -> list[dict[str, Any]]:
    """The entries of a tuning file; none if there is no file.

    Raises:
        UserError: it is not a tuning file, or of a later version.
    """
    try:
        document = json.loads(file.read_text())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file} as a tuning file: {error}") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise UserError(f"{file} is not a tuning file: name another by --tuning")
    if document["version"] > _VERSION:
        raise UserError(f"{file} is of version {document['version']}: install a newer commbench")
    entries: list[dict[str, Any]] = document["entries"]
    return entries


def keep(file: Path, setting: Setting, tuned: Tuned, run_file: Path) -> None:
    """Write an answer to the file, which has the others before and after, in one step.

    Raises:
        UserError: the file is not ours or cannot be written.
    """
    key = asdict(setting)
    entry = {
        "setting": key,
        "exchange": tuned.exchange,
        "sizes_bytes": tuned.sizes_bytes,
        "fastest": tuned.fastest,
        "tuned": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "commbench_version": commbench.__version__,
        "run_file": str(run_file.absolute()),
    }
    entries = [other for other in read(file) if other["setting"] != key]
    document = {"format": _FORMAT, "version": _VERSION, "entries": [*entries, entry]}
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(document, indent=2) + "\n")
        os.replace(part, file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"cannot write {file}: {error.strerror}") from error


def look_up(file: Path, setting: Setting) -> str:
    """The choice by size for a setting.

    Raises:
        UserError: there is none.
    """
    for entry in read(file):
        if entry["setting"] == asdict(setting):
            return str(entry["exchange"])
    raise UserError(
        f"--exchange auto: {file} knows nothing of {setting}; "
        f"run mpirun -n {setting.ranks} commbench tune first"
    )


def resolve_auto(
    job: Job, specs: str, file: Path | None, *, device: str, dtype: str, transport: str
) -> str:
    """Put what was tuned in the place of ``auto`` among exchanges with commas; collective.

    Raises:
        UserError: on every rank, if this setting was not tuned.
    """
    names = [spec.strip() for spec in specs.split(",")]
    if AUTO not in names:
        return specs
    setting = setting_of(job, device=device, dtype=dtype, transport=transport)
    tuned = job.on_root(lambda: look_up(file or default_file(), setting))
    return ",".join(tuned if name == AUTO else name for name in names)
