"""Memory that ranks share, on huge pages where the kernel gives them.

NumPy's own memory has them from 4 MiB on; shared memory has pages of 4 KiB, for that is the default
(``/sys/kernel/mm/transparent_hugepage/shmem_enabled`` is ``never``). But since Linux 6.1 a process
may ask for the pages that it has to be put together (MADV_COLLAPSE), whatever the default, if they
are mapped from an address on at which a huge page could begin.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref

HUGE_PAGE_BYTES = 2 << 20
# Shorter memory is left as it is.
_LONG_BYTES = 4 << 20

# Of Linux's mman.h; `mmap` has not all of them.
_MAP_FIXED, _MAP_NORESERVE, _MADV_COLLAPSE = 0x10, 0x4000, 25
_PROT_NONE = 0

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_FAILED = ctypes.c_void_p(-1).value


def map_shared(handle: int, nbytes: int) -> memoryview:
    """Map the first bytes of a file of shared memory; unmapped when nobody uses them any more.

    Raises:
        OSError: it cannot be mapped.
    """
    if nbytes < _LONG_BYTES:
        return memoryview(mmap.mmap(handle, nbytes))
    # The kernel chooses an address for more than is needed, of which a part is aligned.
    room = nbytes + HUGE_PAGE_BYTES
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    reserved = _mapped(None, room, _PROT_NONE, private, -1)
    start = -(-reserved // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
    access = mmap.PROT_READ | mmap.PROT_WRITE
    try:
        _mapped(start, nbytes, access, mmap.MAP_SHARED | _MAP_FIXED, handle)
    except OSError:
        _libc.munmap(reserved, room)
        raise
    memory = (ctypes.c_ubyte * nbytes).from_address(start)
    weakref.finalize(memory, _libc.munmap, reserved, room).atexit = False
    return memoryview(memory).cast("B")


def make_huge(memory: memoryview, nbytes: int) -> None:
    """Give the first bytes of `map_shared` their pages, huge ones as far as can be had.

    Before anybody else maps them, who would get the pages that are there.
    """
    if nbytes < _LONG_BYTES:
        return
    for first in range(0, nbytes, mmap.PAGESIZE):
        memory[first] = 0
    start = ctypes.addressof(ctypes.c_ubyte.from_buffer(memory))
    whole = nbytes // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES
    _libc.madvise(start, whole, mmap.MADV_HUGEPAGE)
    # Older kernels, or memory in too small pieces: it stays as it is.
    _libc.madvise(start, whole, _MADV_COLLAPSE)


def _mapped(at: int | None, nbytes: int, access: int, flags: int, handle: int) -> int:
    start: int | None = _libc.mmap(at, nbytes, access, flags, handle, 0)
    if start is None or start == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return start
