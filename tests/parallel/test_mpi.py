"""The ground that the other parallel tests stand on: ranks that see each other."""

import numpy as np
from mpi4py import MPI


def test_every_rank_is_there_once() -> None:
    world = MPI.COMM_WORLD
    assert world.allgather(world.rank) == list(range(world.size))


def test_sum_of_an_array_over_all_ranks() -> None:
    world = MPI.COMM_WORLD
    array = np.arange(5, dtype=np.float32) * (world.rank + 1)
    world.Allreduce(MPI.IN_PLACE, array)
    times = world.size * (world.size + 1) // 2
    np.testing.assert_array_equal(array, np.arange(5, dtype=np.float32) * times)
