"""Measures which exchange is fastest at which buffer size here, and keeps the answer for later.

The file of answers is JSON and holds one for each setting: host, MPI library, ranks, device,
element type and transport. ``--exchange auto`` looks its own setting up in it.
"""

from __future__ import annotations

import json
import math
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
from commbench.paired import RISK, ratios_to, rounds_needed
from commbench.record.paths import make_folder
from commbench.registry import Choice, admitted
from commbench.spec import cut
from commbench.transport import is_emulated, transport_name
from commbench.units import Bytes

AUTO = "auto"
NATIVE = "native"
_FORMAT = "commbench tuning"
_VERSION = 2
_NEEDED = ("setting", "exchange")


@dataclass(frozen=True)
class Setting:
    """What decides which exchange is fastest; the key of the file.

    Attributes:
        host: rank 0's.
        mpi: the library's name and version.
        ranks: of the job; `ranks_per_node` on the fullest node.
        device, dtype: of the buffers.
        transport: on CPUs "mpi" everywhere, or "shared-memory" within nodes; on GPUs by name, or
            "auto".
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
        exchange: the choice by size, ``native:32767:ring:1M:native``.
        sizes_bytes: the buffers that were measured.
        fastest: the exchange for each.
        median_s: its median for each, of the slowest rank.
        native_s: the library's own, NaN where it was not a candidate.
        rounds: how often each was measured; `rounds_needed` to show anything.
        against_native: for every other candidate and each size, the median of its times over
            native's, round by round, between the interval's ends: [low, median, high]. Empty where
            native was not a candidate.
    """

    exchange: str
    sizes_bytes: list[int]
    fastest: list[str]
    median_s: list[float]
    native_s: list[float]
    rounds: int
    rounds_needed: int
    against_native: dict[str, list[list[float]]]


def default_file() -> Path:
    """``commbench/tuning.json`` in $XDG_CACHE_HOME or ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "commbench" / "tuning.json"


def setting_of(job: Job, *, device: str, dtype: str, transport: str) -> Setting:
    """The setting of a job; collective."""
    shares = device == "cpu" and transport != "mpi" and not is_emulated(transport)
    return Setting(
        host=job.all_gather_text(job.host)[0],
        mpi=environment.mpi_library(),
        ranks=job.size,
        ranks_per_node=int(job.all_gather(np.array([job.local_size])).max()),
        device=device,
        dtype=dtype,
        transport="shared-memory" if shares else transport_name(transport, device),
    )


def candidates(choices: Sequence[Choice], size: int, *, every: bool) -> list[Choice]:
    """The exchanges to measure.

    Args:
        choices: as the user named them.
        size: number of ranks.
        every: whether that was "all", of which those that make no sense here are left out.

    Raises:
        UserError: one that sums nothing, depends on the size of buffers itself, or refuses this
            number of ranks.
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
    for choice in fit:
        for part in choice.parts(size):
            part.schedule(0, size)
    return fit


def require_same_workers(choices: Sequence[Choice], size: int) -> None:
    """A choice by size cannot be made of exchanges with a dedicated server and without.

    Raises:
        UserError: some have one.
    """
    if len({tuple(choice.workers(size)) for choice in choices}) > 1:
        raise UserError(
            "tune cannot mix exchanges with a dedicated server and without: a rank either has "
            "data or not"
        )


def choose(
    sizes_bytes: Sequence[int],
    names: Sequence[str],
    cost: NDArray[np.float64],
    admissible: NDArray[np.bool_],
) -> tuple[list[str], str]:
    """The exchange for each measured size, and one choice for all sizes.

    Between two measured sizes only what is admissible at both may be chosen, and beyond the
    smallest and the largest only ``native``; without it among the names, their own exchange.

    Args:
        sizes_bytes: increasing.
        names: of the exchanges.
        cost: ``(sizes, exchanges)``, the lowest is chosen.
        admissible: ``(sizes, exchanges)``, at least one for any two sizes.
    """

    def cheapest(costs: NDArray[np.float64], fit: NDArray[np.bool_]) -> str:
        return names[int(np.where(fit, costs, np.inf).argmin())]

    fastest = [cheapest(*row) for row in zip(cost, admissible, strict=True)]
    steps = [(sizes_bytes[0], fastest[0])]
    for low, high in pairwise(range(len(sizes_bytes))):
        between = cheapest(cost[low] * cost[high], admissible[low] & admissible[high])
        steps += [(sizes_bytes[high] - 1, between), (sizes_bytes[high], fastest[high])]
    if NATIVE in names:
        steps = [(sizes_bytes[0] - 1, NATIVE), *steps, (steps[-1][0] + 1, NATIVE)]
    return fastest, merge(steps)


def merge(steps: Sequence[tuple[int, str]]) -> str:
    """A choice by size from upper limits and exchanges; the last one has no limit."""
    fitting = [step for step in steps if step[0] >= 0]
    ends = [one for one, following in pairwise(fitting) if one[1] != following[1]]
    return ":".join([*(f"{name}:{Bytes(limit)}" for limit, name in ends), fitting[-1][1]])


def decide(table: Any) -> Tuned:
    """The answer that the group /sweep of a run file gives.

    ``native`` stays, unless the interval of another's ratio to it lies below 1. Of several that are
    shown to be faster, the one of the lowest ratio is taken. Where native is not a candidate, the
    one of the lowest median is.
    """
    names = list(table["exchange"].asstr()[:])
    sizes = [int(size) for size in table["size_bytes"][:]]
    slowest = table["seconds"][:].max(axis=3)
    medians = np.median(slowest, axis=2)
    cost, admissible = medians, np.ones(medians.shape, bool)
    native, against = np.full(len(sizes), np.nan), {}
    if NATIVE in names:
        own = names.index(NATIVE)
        native = medians[:, own]
        ratios = ratios_to(slowest, own)
        cost, admissible = ratios.median, ratios.high < 1
        admissible[:, own] = True
        cells = np.stack([ratios.low, ratios.median, ratios.high], axis=2)
        against = {name: cells[:, j].tolist() for j, name in enumerate(names) if j != own}
    fastest, exchange = choose(sizes, names, cost, admissible)
    return Tuned(
        exchange=exchange,
        sizes_bytes=sizes,
        fastest=fastest,
        median_s=[float(row[names.index(n)]) for row, n in zip(medians, fastest, strict=True)],
        native_s=[float(value) for value in native],
        rounds=slowest.shape[2],
        rounds_needed=rounds_needed(slowest.shape),
        against_native=against,
    )


def read(file: Path) -> list[dict[str, Any]]:
    """The entries of a tuning file; none if there is no file or one of an earlier version.

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
    damaged = UserError(f"{file} is a damaged tuning file: move it away, or name another")
    version, entries = document.get("version"), document.get("entries")
    if not isinstance(version, int):
        raise damaged
    if version < _VERSION:
        return []  # answers that no interval backs: to be found anew
    if version > _VERSION:
        raise UserError(f"{file} is of version {version}: install a newer commbench")
    if not isinstance(entries, list):
        raise damaged
    if not all(isinstance(one, dict) and {*_NEEDED} <= {*one} for one in entries):
        raise damaged
    return entries


def require_writable(file: Path) -> None:
    """Refuse a tuning file that could not be written, before anything is measured.

    Raises:
        UserError: it is not ours, or its folder is not writable and cannot be made.
    """
    read(file)
    make_folder(file.parent)
    if file.is_dir() or not os.access(file.parent, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {file}: name another file by --tuning")


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
        "median_s": tuned.median_s,
        "native_s": [None if math.isnan(value) else value for value in tuned.native_s],
        "rounds": tuned.rounds,
        "risk": RISK,
        "against_native": {
            name: [[value if math.isfinite(value) else None for value in cell] for cell in cells]
            for name, cells in tuned.against_native.items()
        },
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
    names = [spec.strip() for spec in cut(specs, ",")]
    if AUTO not in names:
        return specs
    setting = setting_of(job, device=device, dtype=dtype, transport=transport)
    tuned = job.on_root(lambda: look_up(file or default_file(), setting))
    return ",".join(tuned if name == AUTO else name for name in names)
