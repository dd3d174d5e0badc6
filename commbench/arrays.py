"""Gradient buffers in NumPy on CPUs and CuPy on GPUs, behind one small interface.

An element type has a *wire* form, in which it lies in the user's buffer and travels, and a *work*
form, in which it is added. float32 and float64 are their own work form; float16 and bfloat16 are
added in float32 and rounded only when they are sent and at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError

if TYPE_CHECKING:
    import torch

# A one-dimensional NumPy or CuPy array; CuPy ships no types to check against.
Array = Any
Bytes = NDArray[np.uint8]

# What is added and written back in one go: with its terms it stays in a core's second-level cache.
_BLOCK_BYTES = 1 << 17
# Terms and answers that one GPU kernel takes: its arguments must fit into 4 KiB.
_MOST_ARGUMENTS = 32


@dataclass(frozen=True)
class ElementType:
    """How a buffer's elements are stored, sent and added."""

    name: str
    wire: np.dtype[Any]
    work: np.dtype[Any]

    @property
    def itemsize(self) -> int:
        """Bytes per element on the wire."""
        return self.wire.itemsize


_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
ELEMENT_TYPES = {
    kind.name: kind
    for kind in (
        ElementType("float32", _FLOAT32, _FLOAT32),
        ElementType("float64", _FLOAT64, _FLOAT64),
        ElementType("float16", np.dtype(np.float16), _FLOAT32),
        ElementType("bfloat16", np.dtype(ml_dtypes.bfloat16), _FLOAT32),
    )
}


def element_type(name: str) -> ElementType:
    """Look up an element type.

    Raises:
        UserError: there is none of this name.
    """
    if name not in ELEMENT_TYPES:
        raise UserError(f"no element type {name!r}: choose from {', '.join(ELEMENT_TYPES)}")
    return ELEMENT_TYPES[name]


class Arrays(Protocol):
    """What the executor and the transports need of an array library, for one element type.

    A *wire* array has the storage type of the user's buffer, a *work* array the type sums are in.
    """

    kind: ElementType
    device: str

    def wire_empty(self, count: int) -> Array:
        """A new uninitialised wire array of `count` elements."""

    def work_of(self, buffer: Array) -> Array:
        """The work array for a wire buffer: itself where the two types are one, else a new one."""

    def from_values(self, values: NDArray[np.float64]) -> Array:
        """A new wire array of these values, rounded."""

    def assign(self, wire: Array, other: Array) -> None:
        """Overwrite wire elements with others."""

    def differences(self, wire: Array, other: Array) -> int:
        """How many wire elements differ."""

    def copy(self, wire: Array) -> Array:
        """A copy of some wire elements."""

    def decode(self, wire: Array, work: Array) -> None:
        """Convert wire elements into work elements (nothing to do where they are one array)."""

    def encode(self, work: Array, wire: Array) -> None:
        """Round work elements into wire elements."""

    def add(self, work: Array, wire: Array) -> None:
        """Add received wire elements to the sum, in place."""

    def add_all(self, work: Array, wire: Array, terms: list[Array], answers: list[Array]) -> None:
        """Add wire arrays to the sum in order, round it into `wire`, and write that to `answers`.

        All have the same length, and each term is read before an answer is written there.
        """

    def to_host(self, wire: Array, slot: Bytes | None) -> Bytes:
        """The elements' bytes in host memory: the array's own, or copied to the pinned `slot`."""

    def from_host(self, host: Bytes, wire: Array) -> None:
        """Copy received bytes to the device; nothing to do where they already lie in `wire`."""

    def host_slot(self, nbytes: int) -> Bytes | None:
        """Pinned host memory for staging, or None where the arrays are host memory already."""

    def synchronize(self) -> None:
        """Wait until all work handed to the device has taken effect."""


class NumpyArrays:
    """Arrays in host memory."""

    device = "cpu"

    def __init__(self, kind: ElementType) -> None:
        """Serve buffers of this element type."""
        self.kind = kind
        self._narrow = kind.wire != kind.work

    def wire_empty(self, count: int) -> Array:  # noqa: D102
        return np.empty(count, self.kind.wire)

    def from_values(self, values: NDArray[np.float64]) -> Array:  # noqa: D102
        return values.astype(self.kind.wire)

    def assign(self, wire: Array, other: Array) -> None:  # noqa: D102
        np.copyto(wire, other)

    def differences(self, wire: Array, other: Array) -> int:  # noqa: D102
        return int(np.count_nonzero(wire != other))

    def work_of(self, buffer: Array) -> Array:  # noqa: D102
        if self.kind.wire == self.kind.work:
            return buffer
        return np.empty(len(buffer), self.kind.work)

    def copy(self, wire: Array) -> Array:  # noqa: D102
        return wire.copy()

    def decode(self, wire: Array, work: Array) -> None:  # noqa: D102
        if self._narrow:
            np.copyto(work, wire, casting="unsafe")

    def encode(self, work: Array, wire: Array) -> None:  # noqa: D102
        if self._narrow:
            np.copyto(wire, work, casting="unsafe")

    def add(self, work: Array, wire: Array) -> None:  # noqa: D102
        if self._narrow:
            np.add(work, wire.astype(self.kind.work), out=work)
        else:
            np.add(work, wire, out=work)

    def add_all(  # noqa: D102
        self, work: Array, wire: Array, terms: list[Array], answers: list[Array]
    ) -> None:
        step = max(1, _BLOCK_BYTES // self.kind.itemsize)
        if len(work) <= step:
            self._add_block(work, wire, terms, answers)
            return
        for first in range(0, len(work), step):
            block = slice(first, first + step)
            self._add_block(
                work[block],
                wire[block],
                [term[block] for term in terms],
                [answer[block] for answer in answers],
            )

    def _add_block(
        self, work: Array, wire: Array, terms: list[Array], answers: list[Array]
    ) -> None:
        for term in terms:
            self.add(work, term)
        self.encode(work, wire)
        for answer in answers:
            self.assign(answer, wire)

    def to_host(self, wire: Array, slot: Bytes | None) -> Bytes:  # noqa: D102
        view: Bytes = wire.view(np.uint8)
        return view

    def from_host(self, host: Bytes, wire: Array) -> None:  # noqa: D102
        pass

    def host_slot(self, nbytes: int) -> Bytes | None:  # noqa: D102
        return None

    def synchronize(self) -> None:  # noqa: D102
        pass


class CupyArrays:
    """Arrays in the memory of one GPU; bfloat16 is stored as uint16, since CuPy lacks the type.

    Work runs on one stream of our own, and the host waits only where it must read or hand over
    bytes, so computation on other streams goes on.
    """

    def __init__(self, kind: ElementType, index: int) -> None:
        """Serve buffers of this element type on GPU `index`, the process's current one from now."""
        import cupy

        cupy.cuda.Device(index).use()
        self.kind = kind
        self.device = f"cuda:{index}"
        self._cupy = cupy
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self._storage = np.dtype(np.uint16) if kind.name == "bfloat16" else kind.wire
        self._add = self._kernel("w", "x", f"x += {self._widened('w')};", "add")
        self._decode = self._kernel("w", "x", f"x = {self._widened('w')};", "decode")
        self._encode = cupy.ElementwiseKernel(
            f"{kind.work.name} x",
            f"{self._storage.name} w",
            self._rounded(["w"]),
            "commbench_encode",
        )
        self._sums: dict[tuple[int, int], Any] = {}

    def _kernel(self, wires: str, works: str, code: str, name: str) -> Any:
        wire, work = self._storage.name, self.kind.work.name
        return self._cupy.ElementwiseKernel(
            f"{wire} {wires}", f"{work} {works}", code, f"commbench_{name}"
        )

    def _widened(self, wire: str) -> str:
        """CUDA for a wire element in the work type."""
        if self.kind.name == "bfloat16":
            return f"__uint_as_float(((unsigned int){wire}) << 16)"
        return wire

    def _rounded(self, wires: list[str]) -> str:
        """CUDA that rounds the work element x into wire elements."""
        if self.kind.name != "bfloat16":
            return "".join(f"{wire} = x;" for wire in wires)
        # To nearest, ties to even, on the upper half; NaN stays NaN.
        return (
            "unsigned int u = __float_as_uint(x);"
            "unsigned int r = (u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u"
            " : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;"
        ) + "".join(f"{wire} = r;" for wire in wires)

    def wire_empty(self, count: int) -> Array:  # noqa: D102
        with self.stream:
            return self._cupy.empty(count, self._storage)

    def from_values(self, values: NDArray[np.float64]) -> Array:  # noqa: D102
        with self.stream:
            return self._cupy.asarray(values.astype(self.kind.wire).view(self._storage))

    def assign(self, wire: Array, other: Array) -> None:  # noqa: D102
        with self.stream:
            wire[:] = other

    def differences(self, wire: Array, other: Array) -> int:  # noqa: D102
        with self.stream:
            return int(self._cupy.count_nonzero(wire != other))

    def work_of(self, buffer: Array) -> Array:  # noqa: D102
        if self.kind.wire == self.kind.work:
            return buffer
        with self.stream:
            return self._cupy.empty(len(buffer), self.kind.work)

    def copy(self, wire: Array) -> Array:  # noqa: D102
        with self.stream:
            return wire.copy()

    def decode(self, wire: Array, work: Array) -> None:  # noqa: D102
        if self.kind.wire != self.kind.work:
            with self.stream:
                self._decode(wire, work)

    def encode(self, work: Array, wire: Array) -> None:  # noqa: D102
        if self.kind.wire != self.kind.work:
            with self.stream:
                self._encode(work, wire)

    def add(self, work: Array, wire: Array) -> None:  # noqa: D102
        with self.stream:
            self._add(wire, work)

    def add_all(  # noqa: D102
        self, work: Array, wire: Array, terms: list[Array], answers: list[Array]
    ) -> None:
        while len(terms) > _MOST_ARGUMENTS:
            self._sum(work, None, terms[:_MOST_ARGUMENTS], [])
            terms = terms[_MOST_ARGUMENTS:]
        first, rest = answers[:_MOST_ARGUMENTS], answers[_MOST_ARGUMENTS:]
        self._sum(work, None if self.kind.wire == self.kind.work else wire, terms, first)
        for answer in rest:
            self.assign(answer, wire)

    def _sum(self, work: Array, wire: Array | None, terms: list[Array], into: list[Array]) -> None:
        """One kernel: every element is read once, added to in order, and written everywhere."""
        if wire is not None:
            into = [wire, *into]
        shape = len(terms), len(into)
        if shape not in self._sums:
            storage = self._storage.name
            code = "".join(f"x += {self._widened(f't{i}')};" for i in range(len(terms)))
            outs = [f"a{i}" for i in range(len(into))]
            self._sums[shape] = self._cupy.ElementwiseKernel(
                ", ".join(f"{storage} t{i}" for i in range(len(terms))),
                ", ".join([f"{self.kind.work.name} x", *(f"{storage} {out}" for out in outs)]),
                code + (self._rounded(outs) if outs else ""),
                f"commbench_sum_{len(terms)}_{len(into)}",
            )
        with self.stream:
            self._sums[shape](*terms, work, *into)

    def to_host(self, wire: Array, slot: Bytes | None) -> Bytes:  # noqa: D102
        assert slot is not None
        host = slot[: wire.nbytes]
        wire.view(np.uint8).get(out=host, stream=self.stream)
        self.stream.synchronize()
        return host

    def from_host(self, host: Bytes, wire: Array) -> None:  # noqa: D102
        wire.view(np.uint8).set(host, stream=self.stream)
        # The slot is reused as soon as this returns.
        self.stream.synchronize()

    def host_slot(self, nbytes: int) -> Bytes | None:  # noqa: D102
        memory = self._cupy.cuda.alloc_pinned_memory(nbytes)
        return np.frombuffer(memory, np.uint8, nbytes)

    def synchronize(self) -> None:  # noqa: D102
        self.stream.synchronize()


def gpu_count() -> int:
    """How many CUDA devices CuPy can use; 0 without CuPy or without a driver."""
    try:
        import cupy

        return int(cupy.cuda.runtime.getDeviceCount())
    except Exception:  # CuPy's own errors cannot be named where it is not installed.
        return 0


def arrays_for(device: str, dtype: str, local_rank: int = 0) -> Arrays:
    """The array library for ``cpu`` or ``cuda`` buffers of the named element type.

    Ranks of a node share its GPUs out in turn, by `local_rank`.

    Raises:
        UserError: an unknown element type or device, or no usable GPU.
    """
    kind = element_type(dtype)
    if device == "cpu":
        return NumpyArrays(kind)
    if device == "cuda":
        gpus = gpu_count()
        if gpus == 0:
            raise UserError("--device cuda: CuPy finds no CUDA device here; use --device cpu")
        return CupyArrays(kind, local_rank % gpus)
    raise UserError(f"no device {device!r}: choose cpu or cuda")


def to_torch(array: Array) -> torch.Tensor:
    """The tensor that shares a float32 array's memory, on the CPU or a GPU; never a copy."""
    import torch

    if isinstance(array, np.ndarray):
        return torch.from_numpy(array)
    return torch.utils.dlpack.from_dlpack(array)
