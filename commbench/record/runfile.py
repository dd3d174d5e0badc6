"""Write the run file: whole before the run, poked through memory maps during it.

HDF5 keeps its metadata in memory and writes it when it likes, so a process killed while it holds a
file open can leave one that no longer opens. Here HDF5 is done before the run starts: every shape
is known, so the file is created complete (NaN where a number will come), closed and published.
From then on numbers are stored through a shared memory map at each dataset's offset. The kernel
owns those pages, so SIGKILL loses none of them.
"""

import json
import mmap
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from commbench import __version__, environment
from commbench.errors import UserError
from commbench.record import paths
from commbench.record.layout import FORMAT, SCHEMA_VERSION, Group, Variable

Place = tuple[int, tuple[int, ...], np.dtype[Any]]  # offset in the file, shape, dtype


class RunFile:
    """The file of a run in progress; rank 0 owns it.

    `run_file["timing/seconds"]` is the array to store into: what is stored is in the file at once.
    As a context manager it finishes by itself, with status "failed" if an exception leaves it.
    """

    def __init__(self, path: Path, places: Mapping[str, Place]) -> None:
        """Map the complete file at `path`; `create` is the way in."""
        self.path = path
        self._finished = False
        with path.open("r+b") as file:
            self._identity = os.fstat(file.fileno())
            self._map = mmap.mmap(file.fileno(), 0)
        self._arrays = {
            name: np.ndarray(shape, dtype, self._map, offset)
            for name, (offset, shape, dtype) in places.items()
        }

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        kind: str,
        options: Mapping[str, object],
        seed: int,
        hosts: Sequence[str],
        devices: Sequence[str],
        groups: Sequence[Group],
        attributes: Mapping[str, object] | None = None,
        unique: bool = False,
    ) -> Self:
        """Create the whole file, closed and published under `path`, with status "running".

        The start time, the command line, versions, git revision and environment are added.

        Args:
            path: the file; it must not exist.
            kind: the command: "train", "sweep", "emulate".
            options: every option of the command, as used; stored as `option_NAME`.
            seed: the seed of the run.
            hosts: the host of every rank.
            devices: the device of every rank, e.g. "cpu".
            groups: see `training_groups` and `sweep_groups`.
            attributes: more root attributes: model, parameters, exchange, ranks, ...
            unique: if the name is taken, take NAME-2.h5, NAME-3.h5, ... instead.

        Raises:
            UserError: the name is taken, or its folder is missing, unwritable or too full.
        """
        paths.check_output(path, unique=unique)
        every = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "commbench_version": __version__,
            "kind": kind,
            "status": "running",
            "start": _utc_now(),
            "end": "",
            **(attributes or {}),
            "seed": seed,
            "command_line": shlex.join(sys.argv),
            "hosts": list(hosts),
            "devices": list(devices),
            **{f"option_{name}": value for name, value in options.items()},
            **environment.facts(),
        }
        part = paths.part(path)
        try:
            _check_space(path, groups)
            places = _write(part, every, groups)
            paths.sync(part)
            run = cls(part, places)
            run.path = paths.publish(part, path, unique)
            return run
        except OSError as error:
            raise UserError(f"cannot create {path}: {_reason(error)}") from error
        finally:
            part.unlink(missing_ok=True)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The array of a variable to fill, by "group/variable"; same object every time."""
        try:
            return self._arrays[name]
        except KeyError:
            known = ", ".join(self._arrays)
            raise KeyError(f"{name}: not a variable this run fills; there are {known}") from None

    def flush(self) -> None:
        """Force what was stored to the disk; blocks.

        Only needed against a crash of the machine itself, which otherwise loses what the kernel
        has not written back yet (about 30 seconds), or to show the numbers to other machines
        that share the folder.
        """
        self._map.flush()

    def finish(self, status: str = "completed", **attributes: object) -> None:
        """Set the final attributes, on a copy that then replaces the file in one step.

        The arrays become read-only. Killed in the middle, the file is the old or the new one.

        Raises:
            UserError: the copy cannot be written, or the file is no longer there; what the run
                stored before is safe where the file is.
        """
        if self._finished:
            raise RuntimeError(f"{self.path}: finished twice")
        self._finished = True
        for array in self._arrays.values():
            array.flags.writeable = False
        part = paths.part(self.path)
        try:
            if not os.path.samestat(self._identity, self.path.stat()):
                raise FileNotFoundError("another file has taken its name")
            shutil.copy(self.path, part)
            with h5py.File(part, "r+") as file:
                _set_attributes(file, {**attributes, "status": status, "end": _utc_now()})
            paths.sync(part)
            part.replace(self.path)
        except OSError as error:
            raise UserError(
                f"cannot write the final status of {self.path}: {_reason(error)}; "
                'it stays "running", with all that was recorded, unless the file was removed'
            ) from error
        finally:
            part.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """The run file itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Finish the run, unless it was finished inside."""
        if self._finished:
            return
        if error is None:
            self.finish()
            return
        try:
            self.finish("failed", error=f"{type(error).__name__}: {error}")
        except UserError as second:  # it must not hide why the run failed
            error.add_note(str(second))


def _write(
    path: Path, attributes: Mapping[str, object], groups: Sequence[Group]
) -> dict[str, Place]:
    """Create the complete file; return where the variables to fill lie in it."""
    places = {}
    # NumPy wants its numbers aligned in the mapped file, as in memory.
    with h5py.File(
        path, "x", track_order=True, alignment_threshold=1, alignment_interval=8
    ) as file:
        _set_attributes(file, attributes)
        for group in groups:
            node = file.create_group(group.name, track_order=True)
            for name, variable in group.variables.items():
                dataset = _create_dataset(node, name, group.shape(variable), variable)
                dataset.attrs["long_name"] = variable.long_name
                dataset.attrs["units"] = variable.units
                if variable.dims == (name,):
                    dataset.make_scale(name)
                if variable.data is None:
                    # Datasets without elements have no offset; any will do.
                    offset = dataset.id.get_offset() or 0
                    places[f"{group.name}/{name}"] = (offset, dataset.shape, dataset.dtype)
            for name, variable in group.variables.items():
                if variable.dims != (name,):
                    for axis, dimension in enumerate(variable.dims):
                        node[name].dims[axis].attach_scale(node[dimension])
    return places


def _create_dataset(node: Any, name: str, shape: tuple[int, ...], variable: Variable) -> Any:
    if variable.data is not None:
        data = np.asarray(variable.data)
        if data.dtype.kind == "U":  # HDF5 has no UTF-32
            data = data.astype(h5py.string_dtype())
        return node.create_dataset(name, data=data)
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.CONTIGUOUS)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_ALLOC)
    plan.set_fill_value(np.array(np.nan, variable.dtype))
    return node.create_dataset(name, shape, variable.dtype, dcpl=plan)


def _set_attributes(file: Any, attributes: Mapping[str, object]) -> None:
    for name, value in attributes.items():
        file.attrs.modify(name, _plain(value))  # keeps the place of one that exists


def _plain(value: object) -> object:
    """What HDF5 stores as it is; None becomes "", anything nested becomes JSON."""
    if value is None:
        return ""
    if isinstance(value, str | bool | int | float | np.generic):
        return value
    if isinstance(value, list | tuple) and value:
        if all(isinstance(v, str) for v in value):
            return list(value)
        if all(isinstance(v, int | float) for v in value):
            return np.array(value)
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, default=str)
    return str(value)


def _reason(error: OSError) -> str:
    """The error in one line; HDF5 appends its own call's details."""
    return (error.strerror or str(error)).split(" (")[0]


def _check_space(path: Path, groups: Sequence[Group]) -> None:
    needed = sum(
        int(np.prod(group.shape(v), dtype=np.int64)) * np.dtype(v.dtype).itemsize
        for group in groups
        for v in group.variables.values()
        if v.data is None
    )
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise UserError(
            f"cannot create {path}: it needs {needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are free"
        )


def _utc_now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
