"""One MPI job as a rank sees it: who takes part, agreeing on errors, ending together."""

from __future__ import annotations

import fcntl
import os
import pickle
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from commbench import launcher
from commbench.errors import EXIT_BUG, EXIT_USER, UserError
from commbench.memory import told_of_memory
from commbench.transport.waiting import PeerTimeout, Watchdog, share_cores, wait_until

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")

# How long a rank that meets bad input waits for the others to meet it too, before it ends the job:
# rank 0 may first have to write its run file to a slow disk.
_PARTING_S = 10.0


class Job:
    """This rank's place in the job, and the few collective calls that set-up and recording need.

    Every call is collective over all ranks unless it says otherwise, and has the job's time limit.

    Attributes:
        comm: the communicator, commbench's own duplicate of COMM_WORLD.
        rank, size: this rank and the number of ranks.
        host: this node's name; `local_rank` and `local_size` count the ranks on it.
        node_cores: the cores that the ranks of this node may use, all together.
        timeout_s: the longest wait for a peer, in seconds.
    """

    def __init__(self, comm: MPI.Intracomm, timeout_s: float) -> None:
        self.comm = comm
        self.rank: int = comm.Get_rank()
        self.size: int = comm.Get_size()
        self.host = socket.gethostname()
        self.timeout_s = timeout_s
        self._said = False
        self.watchdog = Watchdog(timeout_s, self._expired)
        with self.watchdog.guard(f"rank {self.rank} in set-up waits for all other ranks"):
            # Of its own, so that nobody takes a rank that parts for one that comes to a meeting.
            self._meeting = comm.Dup()
            self.node = comm.Split_type(_shared_type())
            self.local_rank: int = self.node.Get_rank()
            self.local_size: int = self.node.Get_size()
            # Launchers may give each rank cores of its own.
            usable = self.node.allgather(os.sched_getaffinity(0))
            self.node_cores = len(set().union(*usable))
            share_cores(self.node_cores, self.local_size)
            self._first_to_fail = self._open_lock()

    def barrier(self) -> None:
        """Wait for all ranks."""
        with self._waiting("at a barrier"):
            self.comm.Barrier()

    def gather(self, array: NDArray[Any]) -> NDArray[Any] | None:
        """Collect equal-shaped arrays: ``(size, *shape)`` on rank 0, None elsewhere."""
        array = np.ascontiguousarray(array)
        into = np.empty((self.size, *array.shape), array.dtype) if self.rank == 0 else None
        with self._waiting("gathering"):
            self.comm.Gather(array, into, root=0)
        return into

    def all_gather(self, array: NDArray[Any]) -> NDArray[Any]:
        """Collect equal-shaped arrays on every rank, ``(size, *shape)``."""
        array = np.ascontiguousarray(array)
        into = np.empty((self.size, *array.shape), array.dtype)
        with self._waiting("gathering"):
            self.comm.Allgather(array, into)
        return into

    def all_gather_text(self, text: str) -> list[str]:
        """Collect one text from every rank, in rank order."""
        with self._waiting("gathering"):
            texts: list[str] = self.comm.allgather(text)
        return texts

    def gather_objects(self, value: T) -> list[T]:
        """Collect one value from every rank on rank 0, in rank order; empty elsewhere."""
        with self._waiting("gathering"):
            values: list[T] | None = self.comm.gather(value, root=0)
        return values or []

    def nodes(self) -> list[int]:
        """For every rank the lowest rank of its node."""
        with self._waiting("for the ranks of its node"):
            lowest = self.node.bcast(self.rank, root=0)
        return [int(rank) for rank in self.all_gather(np.array([lowest]))[:, 0]]

    def all_sum(self, array: NDArray[Any]) -> NDArray[Any]:
        """Add equal-shaped arrays over all ranks."""
        array = np.ascontiguousarray(array)
        into = np.empty_like(array)
        with self._waiting("summing"):
            self.comm.Allreduce(array, into)
        return into

    def broadcast(self, array: NDArray[Any]) -> None:
        """Overwrite `array` on every rank with rank 0's."""
        with self._waiting("for rank 0's values"):
            self.comm.Bcast(array, root=0)

    def agree(self, action: Callable[[], T]) -> T:
        """Run `action` on every rank; where any met a UserError, all raise the lowest rank's."""
        error: UserError | None = None
        result: T
        try:
            result = action()
        except UserError as raised:
            error = raised
        failed = self.all_gather(np.array([error is not None]))[:, 0]
        if failed.any():
            root = int(np.argmax(failed))
            with self._waiting(f"for rank {root}'s error"):
                message = self.comm.bcast(str(error) if self.rank == root else None, root=root)
            raise UserError(message)
        return result

    def on_root(self, action: Callable[[], T]) -> T:
        """Run `action` on rank 0 and hand every rank its result, or its UserError."""
        outcome: bytes | None = None
        if self.rank == 0:
            try:
                outcome = pickle.dumps((action(), None))
            except UserError as error:
                outcome = pickle.dumps((None, str(error)))
        with self._waiting("for rank 0's decision"):
            outcome = self.comm.bcast(outcome, root=0)
        assert outcome is not None
        result, message = pickle.loads(outcome)
        if message is not None:
            raise UserError(message)
        return result  # type: ignore[no-any-return]

    def scatter(self, values: Sequence[T] | None) -> T:
        """Hand every rank its own of rank 0's values, one for each rank."""
        with self._waiting("for its share from rank 0"):
            value: T = self.comm.scatter(values, root=0)
        return value

    def keep_on_root(self, action: Callable[[], T]) -> T | None:
        """Run `action` on rank 0, which keeps its result; the others get None, or its UserError."""
        kept: list[T] = []
        self.on_root(lambda: kept.append(action()))
        return kept[0] if kept else None

    def part(self, message: str) -> NoReturn:
        """End on bad input: one line for the job, exit status 2 on every rank."""
        # When all ranks meet the same error they leave together, and rank 0 speaks for them. A rank
        # that is alone with it cannot know; it finds out by waiting for the others a moment.
        leaving = self.comm.Ibarrier()
        try:
            if self.rank == 0:
                self._say_once(f"commbench: error: {message}")
            wait_until(leaving.Test, _PARTING_S, lambda: "")
        except PeerTimeout:
            self.abort(f"commbench: error: {message}", EXIT_USER)
        self.watchdog.close()
        sys.exit(EXIT_USER)

    def abort(self, text: str, status: int = EXIT_BUG) -> NoReturn:
        """End the whole job at once; the first rank of a node to fail prints `text`."""
        self._say_once(text)
        launcher.unlink_shared_memory()
        self.comm.Abort(status)
        os._exit(status)

    def close(self) -> None:
        """Give back what the job holds, after a good end."""
        self.watchdog.close()
        os.close(self._first_to_fail)

    @contextmanager
    def _waiting(self, what: str) -> Iterator[None]:
        """Wait for all ranks to come to the call in the block, asleep, and give it a time limit.

        Inside the call the library would keep a core busy, and rank 0 may be working for long.
        """
        told = f"rank {self.rank} on {self.host} waits {what}"
        with self.watchdog.guard(told):
            wait_until(self._meeting.Ibarrier().Test, self.timeout_s, lambda: told)
            yield

    def _open_lock(self) -> int:
        """A file without a name, open in all ranks of the node; the kernel frees its lock."""
        path = None
        if self.local_rank == 0:
            handle, path = tempfile.mkstemp(prefix="commbench-")
        path = self.node.bcast(path, root=0)
        if self.local_rank != 0:
            handle = os.open(path, os.O_RDWR)
        self.node.Barrier()
        if self.local_rank == 0:
            os.unlink(path)
        return handle

    def _say_once(self, text: str) -> None:
        if self._said:  # a process may take its own lock again
            return
        try:
            fcntl.flock(self._first_to_fail, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        self._said = True
        launcher.say_last_words(text)

    def _expired(self, what: str) -> None:
        # From the watchdog's thread, while the main thread is inside MPI: calling Abort here would
        # need MPI_THREAD_MULTIPLE. A rank that exits uncleanly makes the launcher end the others.
        self._say_once(f"commbench: error: {what}")
        launcher.unlink_shared_memory()
        os._exit(EXIT_BUG)


def _shared_type() -> int:
    from mpi4py import MPI

    return MPI.COMM_TYPE_SHARED


def _start_mpi() -> MPI.Intracomm:
    # Read by the libraries as they start: let waiting ranks give way where cores are short.
    os.environ.setdefault("MPIR_CVAR_CH4_PROGRESS_THROTTLE", "1")
    os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")

    # mpi4py's default, MPI_THREAD_MULTIPLE, stays: below it MPICH 5.0.2 hangs in an Allreduce of
    # 24 MB over 3 or more ranks of a node.
    from mpi4py import MPI

    if not MPI.Is_initialized():  # imported before this process was forked
        MPI.Init_thread(MPI.THREAD_MULTIPLE)
    comm = MPI.COMM_WORLD.Dup()
    # Nobody leaves Dup before all are past MPI_Init and have MPICH's memory mapped. Without its
    # name, a job that is killed leaves nothing in /dev/shm.
    launcher.unlink_shared_memory("mpich_shm_")
    return comm


@contextmanager
def mpi_job(timeout_s: float = 300.0) -> Iterator[Job]:
    """Start MPI and run the block as one job.

    A UserError ends it with one line and status 2 on every rank. Any other exception is a bug: the
    rank that failed first prints its traceback, once, and the whole job ends with status 1.
    """
    job = Job(_start_mpi(), timeout_s)
    try:
        yield job
    except SystemExit:
        job.close()
        raise
    except UserError as error:
        job.part(str(error))
    except PeerTimeout as error:
        job.abort(f"commbench: error: {error}")
    except KeyboardInterrupt:
        job.abort("commbench: interrupted", 130)
    except BaseException as error:
        if told := told_of_memory(error):
            job.abort(f"commbench: error: rank {job.rank} on {job.host}: {told}", EXIT_USER)
        job.abort(f"commbench: rank {job.rank} on {job.host} failed:\n{traceback.format_exc()}")
    job.close()
