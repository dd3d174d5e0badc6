"""Threads that make the next batches while the current one is used.

Threads and not processes: reading, decoding, scaling and colouring run outside Python's lock, so
threads use all cores; a picture goes straight to its place in the batch; nothing is forked, which a
rank must not do once MPI and its threads run; and nothing lies in /dev/shm that a killed job could
leave there. They end with their process whatever they do.

Which numbers a batch has depends on what was asked for alone, so any number of threads gives the
same bits, and so does none, where each batch is made when it is asked for.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from commbench.workloads.data.dataset import Begun, Split

AHEAD = 2
"""Batches begun before they are asked for; there is memory for as many, and for the one in use."""


@dataclass(frozen=True)
class Request:
    """What a batch is to hold; see `Split.batch`."""

    indices: NDArray[np.int64]
    keys: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Batch:
    """A batch on the device of its loader, and what was asked for."""

    inputs: torch.Tensor
    targets: torch.Tensor
    request: Request


class _Task:
    """A batch that the threads share out among themselves, part by part."""

    def __init__(self, request: Request, begun: Begun, threads: int) -> None:
        self.request = request
        self.begun = begun
        self.error: BaseException | None = None
        self.made = threading.Event()
        self.handed_over: tuple[torch.Tensor, torch.Tensor] | None = None
        self._parts = itertools.count()  # `next` of it is one step under Python's lock
        self._working = threads
        self._lock = threading.Lock()

    def work(self) -> None:
        """A thread's share: parts until there are none left; the last thread seals."""
        try:
            while self.error is None and (part := next(self._parts)) < self.begun.parts:
                self.begun.make(part)
        except BaseException as error:
            self.error = error
        with self._lock:
            self._working -= 1
            if self._working:
                return
        try:
            if self.error is None:
                self.begun.seal()
        except BaseException as error:
            self.error = error
        self.made.set()


class Loader:
    """Makes batches for one device, in order; a context manager that ends its threads."""

    def __init__(
        self, threads: int, device: torch.device | None = None, *, timeout_s: float = 300.0
    ) -> None:
        """Start so many threads, or none.

        Args:
            threads: their number.
            device: where batches are used; None for the CPU.
            timeout_s: the longest wait for a batch, in seconds.
        """
        self._device = device or torch.device("cpu")
        self._timeout_s = timeout_s
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._threads = threads
        # Copies to a GPU and work on it go beside the step that it is busy with.
        self._stream: Any = None
        if self._device.type != "cpu" and threads:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._start()

    def _start(self) -> None:
        """Start the threads, each of which computes by itself."""
        started = threading.Barrier(self._threads + 1)

        def run() -> None:
            # torch keeps this number by thread, but takes it for threads to come as well, and for
            # this one when it first asks; hence the order here, and the call below.
            torch.get_num_threads()
            torch.set_num_threads(1)
            started.wait()
            while task := self._tasks.get():
                task.work()

        own = torch.get_num_threads()
        for number in range(self._threads):
            threading.Thread(target=run, name=f"loader-{number}", daemon=True).start()
        started.wait()
        if self._threads:
            torch.set_num_threads(own)

    def close(self) -> None:
        """Let the threads end once they are done with what they have begun."""
        for _ in range(self._threads):
            self._tasks.put(None)
        self._threads = 0

    def __enter__(self) -> Self:
        """The loader itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """See `close`."""
        self.close()

    def batches(self, split: Split, requests: Iterable[Request]) -> Iterator[Batch]:
        """One batch for each request, in their order.

        Raises:
            UserError: more pictures are corrupt than may be.
            TimeoutError: a batch was not made in time.
            Exception: whatever a thread met.
        """
        waiting: deque[_Task] = deque()
        for request in requests:
            begun = split.begin(request.indices, request.keys, self._device)
            waiting.append(self._begin(begun, request))
            if len(waiting) > (AHEAD if self._threads else 0):
                yield self._end(waiting.popleft(), waiting)
        while waiting:
            yield self._end(waiting.popleft(), waiting)

    def share_out(self, begun: Begun) -> Batch:
        """Have the threads make one batch, of any kind, and wait for it; raises as `batches`."""
        return self._end(self._begin(begun, Request(np.empty(0, np.int64))), deque())

    def _begin(self, begun: Begun, request: Request) -> _Task:
        # The calling thread makes it where there is no other.
        task = _Task(request, begun, max(1, self._threads))
        for _ in range(self._threads):
            self._tasks.put(task)
        return task

    def _end(self, task: _Task, following: deque[_Task]) -> Batch:
        if not self._threads:
            task.work()
        if not task.made.wait(self._timeout_s):
            raise TimeoutError(f"a batch of {task.begun.parts} parts was not made in time")
        if task.error:
            raise task.error
        task.begun.settle()
        inputs, targets = self._handed_over(task)
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)
            for one in (inputs, targets):
                one.record_stream(torch.cuda.current_stream())
            # The next one goes to the GPU while this one is used there.
            if following and following[0].made.is_set() and following[0].error is None:
                self._handed_over(following[0])
        return Batch(inputs, targets, task.request)

    def _handed_over(self, task: _Task) -> tuple[torch.Tensor, torch.Tensor]:
        if task.handed_over is None:
            with torch.cuda.stream(self._stream) if self._stream else nullcontext():
                task.handed_over = task.begun.hand_over()
        return task.handed_over
