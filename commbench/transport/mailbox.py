"""Tokens between the ranks of a node: small notices in shared memory, without a system call.

For every ordered pair of ranks there is a *lane*, a ring of slots in the receiver's box. The sender
fills a slot and then writes the token's number into it; the receiver finds it by that number, and
writes the number once more when it is done, which frees the slot and tells the sender. A lane that
is full holds tokens back at the sender until a slot is free.
"""

from __future__ import annotations

import ctypes
import os
import platform
from array import array
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from mpi4py import MPI

from commbench.errors import UserError
from commbench.job import Job
from commbench.transport import Question
from commbench.transport.pages import make_huge, map_shared

# A slot is a cache line of eight words: the token's number, its four words, who took it.
_SLOTS = 16
_WORDS = 8
_TAKEN = 5

Token = tuple[int, int, int, int]


class _Full(NamedTuple):
    """A token that waits for a free slot."""

    number: int
    token: memoryview


class Mailbox:
    """This rank's lanes to and from every rank of its node."""

    def __init__(self, job: Job, meanwhile: Callable[[], None]) -> None:
        """Open it; collective over the ranks of the node.

        Args:
            job: the ranks.
            meanwhile: called whenever something asked for is not here yet.
        """
        self._meanwhile = meanwhile
        lane_bytes = 8 * _WORDS * _SLOTS
        with job.watchdog.guard(f"rank {job.rank} waits for its node to open mailboxes"):
            boxes = share(job, lane_bytes * job.local_size)
            ranks: list[int] = job.node.allgather(job.rank)
        words = {rank: box.cast("q") for rank, box in boxes.items()}
        place = {rank: index * _WORDS * _SLOTS for index, rank in enumerate(ranks)}
        # Of each lane to a rank, and of each from one, the number of the last token.
        sent, expected = (array("q", [0] * len(ranks)) for _ in range(2))
        barrier = fence()
        self._to = {
            rank: _Out(words[rank], place[job.rank], memoryview(sent)[index:], barrier)
            for index, rank in enumerate(ranks)
        }
        self._from = {
            rank: _In(words[job.rank], place[rank], memoryview(expected)[index:], barrier)
            for index, rank in enumerate(ranks)
        }
        self._held_back: list[_Out] = []

    def poster(self, to: int, token: Token) -> Callable[[], Question]:
        """Prepare a token: what sends it, and returns the question whether the receiver is done."""
        lane = self._to[to]
        words = memoryview(array("q", token))

        def post() -> Question:
            number = lane.post(words)
            if lane.backlog and lane not in self._held_back:
                self._held_back.append(lane)
            return partial(self._taken, lane, number)

        return post

    def letter(self, source: int) -> Letter:
        """For tokens from a rank, one at a time."""
        return Letter(self._from[source])

    def progress(self) -> None:
        """Go on with what other ranks may wait for, while this one waits."""
        if self._held_back:
            self._held_back = [lane for lane in self._held_back if not lane.flush()]
        self._meanwhile()

    def _taken(self, lane: _Out, number: int) -> bool:
        if lane.taken(number):
            return True
        self.progress()
        return False

    @property
    def idle(self) -> bool:
        """Whether nothing is held back."""
        return not self._held_back

    def lanes(self) -> dict[int, tuple[int, int, int, int]]:
        """Where the lanes of each rank are, for code that is not Python.

        Returns:
            Addresses: of the slots of the lane to it and of the one from it, and of the numbers
            of their last tokens.
        """
        return {
            rank: (
                _address(out.words, out.base),
                _address(self._from[rank].words, self._from[rank].base),
                _address(out.last),
                _address(self._from[rank].last),
            )
            for rank, out in self._to.items()
        }


class _Out:
    """The sending end of a lane."""

    __slots__ = ("_fence", "backlog", "base", "last", "words")

    def __init__(
        self, words: memoryview, base: int, last: memoryview, fence: Callable[[], None] | None
    ) -> None:
        self.words, self.base, self._fence = words, base, fence
        self.last = last  # first of it, the number of the last token that has been posted
        self.backlog: deque[_Full] = deque()

    def post(self, token: memoryview) -> int:
        self.last[0] = number = self.last[0] + 1
        if self.backlog or not self._write(number, token):
            self.backlog.append(_Full(number, token))
        return number

    def flush(self) -> bool:
        while self.backlog and self._write(*self.backlog[0]):
            self.backlog.popleft()
        return not self.backlog

    def taken(self, number: int) -> bool:
        at = self.base + number % _SLOTS * _WORDS + _TAKEN
        if self.words[at] < number:
            return False
        if self._fence:
            self._fence()
        return True

    def _write(self, number: int, token: memoryview) -> bool:
        words, at = self.words, self.base + number % _SLOTS * _WORDS
        if words[at + _TAKEN] < number - _SLOTS:
            return False
        words[at + 1 : at + 5] = token
        if self._fence:
            self._fence()
        words[at] = number
        return True


class _In:
    """The receiving end of a lane."""

    __slots__ = ("base", "fence", "last", "words")

    def __init__(
        self, words: memoryview, base: int, last: memoryview, fence: Callable[[], None] | None
    ) -> None:
        self.words, self.base, self.fence = words, base, fence
        self.last = last  # first of it, the number of the last token that has been expected


class Letter:
    """A token on its way to this rank, and after it another one."""

    __slots__ = ("_at", "_fence", "_lane", "_number", "_words")

    def __init__(self, lane: _In) -> None:
        self._lane, self._words, self._fence = lane, lane.words, lane.fence
        self._at = self._number = 0

    def expect(self) -> None:
        """From here on it is the next token of the lane that nobody has expected yet."""
        lane = self._lane
        lane.last[0] = self._number = number = lane.last[0] + 1
        self._at = lane.base + number % _SLOTS * _WORDS

    def here(self) -> bool:
        """Whether it has arrived."""
        if self._words[self._at] != self._number:
            return False
        if self._fence:
            self._fence()
        return True

    def told(self) -> bytes:
        """The bytes of its four words, once it is here: quickly compared with those before."""
        return self._words[self._at + 1 : self._at + 5].tobytes()

    def done(self) -> None:
        """Tell the sender that it, and what it is about, has been read."""
        if self._fence:
            self._fence()
        self._words[self._at + _TAKEN] = self._number


def _address(words: memoryview, first: int = 0) -> int:
    return ctypes.addressof(ctypes.c_int64.from_buffer(words, 8 * first))


def share(job: Job, nbytes: int, used: int = 0) -> dict[int, memoryview]:
    """New memory of every rank of the node, by rank; collective over them.

    It is anonymous (a memfd, reached through /proc), so it has no name that could stay behind in
    /dev/shm when ranks are killed, and no size limit but the machine's. Of each rank's, the first
    `used` bytes get their pages at once, huge ones if possible.

    Raises:
        UserError: the ranks of a node cannot reach each other's, on all of them.
    """
    handle = os.memfd_create("commbench")
    os.ftruncate(handle, nbytes)
    own = map_shared(handle, nbytes)
    make_huge(own, used)
    places = job.node.allgather((job.rank, os.getpid(), handle))
    memory, problem = {}, ""
    try:
        for rank, pid, number in places:
            there = f"/proc/{pid}/fd/{number}"
            memory[rank] = own if rank == job.rank else _opened(there, nbytes)
    except OSError as error:
        problem = f"rank {job.rank} on {job.host} cannot map the memory of rank {rank}: {error}"
    # All have opened it: from here on the mappings keep the memory alive, and only they.
    problems = list(filter(None, job.node.allgather(problem)))
    os.close(handle)
    if problems:
        raise UserError(f"{problems[0]}; ranks in containers of their own need --transport mpi")
    return memory


def share_one(job: Job, nbytes: int) -> memoryview:
    """New memory that all ranks of the node map, all zero; collective over them."""
    if job.local_rank == 0:
        handle = os.memfd_create("commbench")
        os.ftruncate(handle, nbytes)
        memory = map_shared(handle, nbytes)
        job.node.bcast(f"/proc/{os.getpid()}/fd/{handle}", root=0)
        job.node.Barrier()
        os.close(handle)
    else:
        memory = _opened(job.node.bcast(None, root=0), nbytes)
        job.node.Barrier()
    return memory


def _opened(path: str, nbytes: int) -> memoryview:
    handle = os.open(path, os.O_RDWR)
    try:
        return map_shared(handle, nbytes)
    finally:
        os.close(handle)


def fence() -> Callable[[], None] | None:
    """What keeps reads and writes in order: MPI's memory barrier, where the processor needs one."""
    if platform.machine() in ("x86_64", "AMD64", "i686"):
        # Stores become visible in order, and no load is put off beyond a later store.
        return None
    return MPI.Win.Create(None, comm=MPI.COMM_SELF).Sync
