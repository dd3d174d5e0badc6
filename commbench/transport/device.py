"""The few things that transports ask of a GPU, so that tests can drive them without one.

Work runs in *streams*, each in order, all beside one another; an *event* marks a point in a stream.
The arrays' own work, additions for instance, runs in the stream `main`.
"""

from __future__ import annotations

from typing import Any, Protocol

from commbench.arrays import Array, Arrays, CupyArrays

# CuPy ships no types to check against.
Stream = Any
Event = Any

# The unit of the driver's own memory blocks. A handle refers to a whole block, so what is shared
# must have its blocks to itself.
_BLOCK_BYTES = 2 << 20


class Device(Protocol):
    """One GPU, as a transport sees it.

    Attributes:
        main: the stream that the arrays' work runs in.
        identity: names the physical GPU, alike in every process of its node.
    """

    main: Stream
    identity: str

    def stream(self) -> Stream:
        """A new stream."""

    def record(self, stream: Stream) -> Event:
        """The point that a stream has when all it was given so far is done."""

    def wait(self, stream: Stream, event: Event) -> None:
        """Let what a stream is given from now on wait for an event; the host does not wait."""

    def done(self, event: Event) -> bool:
        """Whether an event has come; never blocks."""

    def copy(self, target: Array, source: Array, stream: Stream) -> None:
        """Start a copy in a stream, to or from pinned host memory or between two GPUs' memory."""

    def memory(self, nbytes: int) -> Array:
        """Bytes, all zero, that `handle` can share; never given back."""

    def handle(self, memory: Array) -> bytes:
        """What another process of the node opens the whole of such memory with.

        Raises:
            OSError: memory of this GPU cannot be shared.
        """

    def open(self, handle: bytes, nbytes: int) -> Array:
        """Another process's memory; a handle is opened once.

        Raises:
            OSError: this process cannot reach it.
        """

    def address(self, array: Array) -> int:
        """Where an array's elements begin."""


def device_of(arrays: Arrays) -> Device:
    """The GPU that some arrays are on."""
    assert isinstance(arrays, CupyArrays)
    return CupyDevice(arrays)


class CupyDevice:
    """The GPU of some `CupyArrays`."""

    def __init__(self, arrays: CupyArrays) -> None:
        """Serve the arrays' transports."""
        import cupy

        self._cupy = cupy
        self._runtime = cupy.cuda.runtime
        self._index = int(arrays.device.partition(":")[2])
        self.main = arrays.stream
        # Slices of a GPU (MIG) have its address on the bus, and CuPy cuts a UUID at its first zero.
        uuid = self._runtime.getDeviceProperties(self._index).get("uuid", b"")
        self.identity = f"{self._runtime.deviceGetPCIBusId(self._index)} {bytes(uuid).hex()}"

    def stream(self) -> Stream:  # noqa: D102
        return self._cupy.cuda.Stream(non_blocking=True)

    def record(self, stream: Stream) -> Event:  # noqa: D102
        event = self._cupy.cuda.Event(disable_timing=True)
        event.record(stream)
        return event

    def wait(self, stream: Stream, event: Event) -> None:  # noqa: D102
        stream.wait_event(event)

    def done(self, event: Event) -> bool:  # noqa: D102
        return bool(event.done)

    def copy(self, target: Array, source: Array, stream: Stream) -> None:  # noqa: D102
        # "Default" lets the driver tell host from device memory by the addresses.
        self._runtime.memcpyAsync(
            self.address(target),
            self.address(source),
            source.nbytes,
            self._runtime.memcpyDefault,
            stream.ptr,
        )

    def memory(self, nbytes: int) -> Array:  # noqa: D102
        # Not of CuPy's pool, whose blocks hold several arrays, and never freed: to free what
        # another process may still have open is undefined. It ends with the process.
        nbytes = max(1, nbytes)
        whole = -(-nbytes // _BLOCK_BYTES) * _BLOCK_BYTES
        pointer = self._runtime.malloc(whole)
        self._runtime.memset(pointer, 0, whole)
        self._runtime.deviceSynchronize()
        return self._bytes_at(pointer, nbytes)

    def handle(self, memory: Array) -> bytes:  # noqa: D102
        try:
            return bytes(self._runtime.ipcGetMemHandle(memory.data.ptr))
        except self._runtime.CUDARuntimeError as error:
            raise OSError(str(error)) from error

    def open(self, handle: bytes, nbytes: int) -> Array:  # noqa: D102
        try:
            pointer = self._runtime.ipcOpenMemHandle(handle)
        except self._runtime.CUDARuntimeError as error:
            raise OSError(str(error)) from error
        return self._bytes_at(pointer, nbytes)

    def address(self, array: Array) -> int:  # noqa: D102
        return int(array.data.ptr) if hasattr(array.data, "ptr") else int(array.ctypes.data)

    def _bytes_at(self, pointer: int, nbytes: int) -> Array:
        # Mapped memory of another GPU counts as our own: our kernels reach it at this address.
        memory = self._cupy.cuda.UnownedMemory(pointer, nbytes, self, self._index)
        return self._cupy.ndarray(
            (nbytes,), self._cupy.uint8, self._cupy.cuda.MemoryPointer(memory, 0)
        )
