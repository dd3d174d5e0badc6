"""Read a run file back: finished, still being written, or left by a run that was killed."""

import json
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from traceback import extract_tb
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError
from commbench.record.layout import FORMAT, SCHEMA_VERSION

# Attributes stored as PREFIX_NAME come back as one mapping each.
_FAMILIES = {"option_": "options", "version_": "versions", "env_": "environment"}


def open_run(path: Path) -> AbstractContextManager[Any]:
    """Open a run file for reading, as the `h5py.File` of a with statement.

    Raises:
        UserError: there is no such file, or it is unreadable, no HDF5, not a run file of
            commbench, or of a later schema than this version knows; and at the end of the block,
            where that met damage or something missing in it.
    """
    return _reading(path, _opened(path))


@contextmanager
def _reading(path: Path, file: Any) -> Iterator[Any]:
    with file, _damage(path):
        yield file


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """What HDF5 says of a damaged file is told in a line; what others raise stays as it is."""
    try:
        yield
    except (KeyError, OSError, RuntimeError, ValueError) as error:
        if "h5py" not in extract_tb(error.__traceback__)[-1].filename:
            raise
        told = error.args[0] if error.args else error
        raise UserError(f"{path} is damaged, or no whole run file ({told})") from error


def _opened(path: Path) -> Any:
    if not path.exists():
        raise UserError(f"{path}: no such file; give the .h5 file of a run")
    if not path.is_file():
        raise UserError(f"{path} is not a file; give the .h5 file of a run")
    try:
        file = h5py.File(path, "r")
    except PermissionError as error:
        raise UserError(f"{path}: not readable for this user") from error
    except OSError as error:
        raise UserError(f"{path} is no HDF5 file, or is damaged ({error})") from error
    with _damage(path):
        form, version = file.attrs.get("format"), int(file.attrs.get("schema_version", 0))
    if form != FORMAT:
        file.close()
        raise UserError(f"{path} was not written by commbench; give the .h5 file of a run")
    if version > SCHEMA_VERSION:
        file.close()
        raise UserError(
            f"{path} has schema version {version} and this commbench reads up to "
            f"{SCHEMA_VERSION}; install a newer commbench"
        )
    return file


def attributes(file: Any) -> dict[str, Any]:
    """The root attributes as plain Python values, the option_, version_ and env_ ones grouped."""
    result: dict[str, Any] = {}
    families: dict[str, dict[str, Any]] = {family: {} for family in _FAMILIES.values()}
    for name, value in file.attrs.items():
        plain = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
        prefix = next((p for p in _FAMILIES if name.startswith(p)), None)
        if prefix is None:
            result[name] = plain
        else:
            families[_FAMILIES[prefix]][name.removeprefix(prefix)] = plain
    return result | families


def summary(path: Path) -> dict[str, Any]:
    """What a run file says, in short, as plain Python values (floats may be NaN).

    All attributes, and:
    of training: steps, steps_recorded, epochs, loss_first, loss_last, images_per_s (median),
    phases_s (phase: median over ranks and steps), evaluations_recorded, top1, top5 (the last
    evaluation's, unless the run itself named its final ones) and `buckets`, a list of one dict for
    each: bytes, algorithm, messages (sent by all ranks), hottest_rank (the first of them),
    hottest_rank_bytes, bound_bytes, percent_of_bound; NaN where the library sums;
    of asynchronous training: staleness_updates_mean, staleness_updates_largest and
    staleness_clocks_mean, staleness_clocks_largest, over all servers and workers;
    of a sweep: samples, samples_recorded and `sweep`, a list of one dict for each exchange and
    size that was measured: exchange, size_bytes, iterations, median_s (median over iterations of
    the slowest rank), hottest_rank_bytes, wrong;
    of an emulated cluster: samples, samples_recorded and `emulation`, a list of one dict for each
    exchange and number of ranks that was measured: exchange, ranks, iterations, median_s, theory_s,
    ratio, cpu_share, late_share, cpu_bound, wrong;
    of simulations: `simulation`, a list of one dict for each exchange and number of ranks that was
    simulated: exchange, ranks, seconds, predicted_s, ratio, hottest_share, wall_s.

    Raises:
        UserError: as `open_run`.
    """
    with open_run(path) as file:
        result = {"file": str(path), **attributes(file)}
        if "steps" in file:
            result |= _training(file)
        if "eval" in file:
            # what the run itself named final goes before the last evaluation
            result |= {k: v for k, v in _evaluation(file).items() if k not in result}
        if "exchange" in file and "bound_bytes" in file["exchange"]:  # not in the earliest files
            result["buckets"] = _buckets(file["exchange"])
        if "staleness" in file:
            result |= _staleness(file["staleness"])
        if "sweep" in file:
            result |= _sweep(file["sweep"])
        if "emulation" in file:
            result |= _emulation(file["emulation"])
        if "simulation" in file:
            result["simulation"] = _simulation(file["simulation"])
    return result


def progress(run: dict[str, Any]) -> str:
    """The run's status in words; a file cannot tell a running run from a killed one."""
    if run["status"] != "running":
        return str(run["status"])
    for unit in ("steps", "samples"):
        if unit in run:
            return f"running, or killed: {run[f'{unit}_recorded']} of {run[unit]} {unit} recorded"
    return "running, or killed"


def to_json(run: dict[str, Any], indent: int | None = 2) -> str:
    """A summary as one JSON object; NaN and infinity, which JSON lacks, become null."""
    return json.dumps(_finite(run), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _training(file: Any) -> dict[str, Any]:
    steps = file["steps"]
    # A diverged run has NaN losses, so a step counts if any of its numbers was stored.
    names = ("epoch", "lr", "loss", "images_per_s")
    rows = np.flatnonzero(np.any([np.isfinite(steps[name][:]) for name in names], axis=0))
    result: dict[str, Any] = {
        "steps": len(steps["step"]),
        "steps_recorded": len(rows),
    }
    if len(rows):
        result["epochs"] = float(steps["epoch"][rows[-1]])
        result["loss_first"] = float(steps["loss"][rows[0]])
        result["loss_last"] = float(steps["loss"][rows[-1]])
        result["images_per_s"] = _median(steps["images_per_s"][:])
    timing = file["timing"]
    result["phases_s"] = {
        name: _median(timing["seconds"][:, :, i])
        for i, name in enumerate(timing["phase"].asstr()[:])
    }
    return result


def _evaluation(file: Any) -> dict[str, Any]:
    table = file["eval"]
    rows = np.flatnonzero(np.isfinite(table["top1"][:]))
    result: dict[str, Any] = {"evaluations_recorded": len(rows)}
    if len(rows):
        result["top1"] = float(table["top1"][rows[-1]])
        result["top5"] = float(table["top5"][rows[-1]])
    return result


def _buckets(table: Any) -> list[dict[str, Any]]:
    per_rank = zip(
        table["messages_sent"], table["bytes_sent"], table["bytes_received"], strict=True
    )
    totals = zip(table["hottest_rank_bytes"], table["bound_bytes"], strict=True)
    columns = zip(table["bytes"], table["algorithm"].asstr(), per_rank, totals, strict=True)
    return [
        {
            "bytes": int(size),
            "algorithm": algorithm,
            "messages": float(messages.sum()),
            "hottest_rank": (
                math.nan if math.isnan(hottest) else int(np.argmax(np.maximum(sent, received)))
            ),
            "hottest_rank_bytes": float(hottest),
            "bound_bytes": float(bound),
            "percent_of_bound": 100 * float(hottest / bound) if bound else math.nan,
        }
        for size, algorithm, (messages, sent, received), (hottest, bound) in columns
    ]


def _staleness(table: Any) -> dict[str, Any]:
    result = {}
    for name in ("updates", "clocks"):
        gradients, total = float(table[name][:].sum()), float(table[f"{name}_sum"][:].sum())
        result[f"staleness_{name}_mean"] = total / gradients if gradients else math.nan
        result[f"staleness_{name}_largest"] = float(table[f"{name}_largest"][:].max())
    return result


def _sweep(table: Any) -> dict[str, Any]:
    seconds = table["seconds"]
    cells = []
    recorded = 0
    for j, exchange in enumerate(table["exchange"].asstr()[:]):
        for i, size in enumerate(table["size_bytes"][:]):
            slowest = np.max(seconds[i, j], axis=1)  # NaN until every rank's sample is there
            done = int(np.isfinite(slowest).sum())
            recorded += done
            if done:
                cells.append(
                    {
                        "exchange": exchange,
                        "size_bytes": int(size),
                        "iterations": done,
                        "median_s": _median(slowest),
                        "hottest_rank_bytes": cell_value(table, "hottest_rank_bytes", i, j),
                        "wrong": float(table["wrong"][i, j]),
                    }
                )
    samples = math.prod(seconds.shape[:3])
    return {"samples": samples, "samples_recorded": recorded, "sweep": cells}


def cell_value(table: Any, name: str, size: int, exchange: int) -> float:
    """A number of /sweep for one size and exchange; NaN in files of a kind that has none."""
    return float(table[name][size, exchange]) if name in table else math.nan


def _emulation(table: Any) -> dict[str, Any]:
    cells, recorded = [], 0
    for e, exchange in enumerate(table["exchange"].asstr()[:]):
        for p, ranks in enumerate(table["ranks"][:]):
            slowest = np.max(table["seconds"][e, p, :, : int(ranks)], axis=1)
            done = int(np.isfinite(slowest).sum())
            recorded += done
            if not done:
                continue
            theory_s, median_s = float(table["theory_s"][e, p]), _median(slowest)
            names = ("cpu_share", "late_share", "cpu_bound", "wrong")
            cells.append(
                {
                    "exchange": exchange,
                    "ranks": int(ranks),
                    "iterations": done,
                    "median_s": median_s,
                    "theory_s": theory_s,
                    "ratio": median_s / theory_s if theory_s else math.nan,
                    **{name: float(table[name][e, p]) for name in names},
                }
            )
    samples = math.prod(table["seconds"].shape[:3])
    return {"samples": samples, "samples_recorded": recorded, "emulation": cells}


def _simulation(table: Any) -> list[dict[str, Any]]:
    names = ("seconds", "predicted_s", "hottest_share", "wall_s")
    cells = []
    for e, exchange in enumerate(table["exchange"].asstr()[:]):
        for p, ranks in enumerate(table["ranks"][:]):
            numbers = {name: float(table[name][e, p]) for name in names}
            if math.isnan(numbers["seconds"]):
                continue
            predicted_s = numbers["predicted_s"]
            ratio = numbers["seconds"] / predicted_s if predicted_s else math.nan
            cells.append({"exchange": exchange, "ranks": int(ranks), **numbers, "ratio": ratio})
    return cells


def _median(values: NDArray[Any]) -> float:
    """The median of what was measured; NaN if nothing was."""
    measured = values[np.isfinite(values)]
    return float(np.median(measured)) if measured.size else math.nan
