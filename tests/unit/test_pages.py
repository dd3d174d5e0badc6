import gc
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from commbench.transport.pages import HUGE_PAGE_BYTES, make_huge, map_shared

LONG = 3 * HUGE_PAGE_BYTES


@pytest.fixture
def handle() -> Iterator[int]:
    number = os.memfd_create("commbench-test")
    os.ftruncate(number, LONG)
    yield number
    os.close(number)


def mappings() -> str:
    return Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("nbytes", [mmap.PAGESIZE, LONG])
def test_two_mappings_are_one_memory(handle: int, nbytes: int) -> None:
    one, other = (np.frombuffer(map_shared(handle, nbytes), np.uint8) for _ in range(2))
    assert not one.any()
    one[-1] = 7
    assert other[-1] == 7


def test_long_memory_begins_a_huge_page_and_is_zero(handle: int) -> None:
    memory = map_shared(handle, LONG)
    make_huge(memory, LONG)
    array = np.frombuffer(memory, np.uint8)
    assert array.ctypes.data % HUGE_PAGE_BYTES == 0
    assert not array.any()


def test_it_is_unmapped_when_the_last_array_is_gone(handle: int) -> None:
    array = np.frombuffer(map_shared(handle, LONG), np.float32)[10:]
    gc.collect()
    assert "commbench-test" in mappings()
    array[:] = 1  # would end the process if it were not there
    del array
    gc.collect()
    assert "commbench-test" not in mappings()


def test_what_cannot_be_mapped_is_an_error() -> None:
    reading, writing = os.pipe()
    with pytest.raises(OSError, match="Permission denied"):
        map_shared(reading, LONG)
    os.close(reading)
    os.close(writing)
