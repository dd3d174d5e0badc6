"""The communication library's own all-reduce: MPI_Allreduce over MPI.

Which algorithm runs, and how many bytes it moves, is the library's choice and differs with its
version, the size of the buffer and the number of ranks; so it is timed, not counted.

Any number of ranks.
"""

from commbench.schedule import WHOLE, AllReduce, Round, Schedule


def schedule(rank: int, size: int) -> Schedule:
    """Call the library once."""
    return Schedule((Round((AllReduce(WHOLE),)),))
