"""Exchanges buckets while backward goes on, on a thread of their own.

Backward hands in a bucket when the last of its gradients is there, and the thread exchanges the
buckets one after another. A bucket is begun when all before it are, so all ranks exchange them in
one order, whatever order their gradients come in; those that got no gradient in a step, which is
zero then, are handed in at its end.

While buckets are under way the thread is the only one of its process in MPI.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from queue import SimpleQueue
from time import perf_counter

import torch

from commbench.buckets import Bucket

# A thread that wants Python's lock asks its holder to let go after so long; 5 ms by default, which
# would keep backward waiting while the other thread polls.
_SWITCH_S = 1e-4

Work = Callable[[], None]


class _End(Enum):
    """What follows the last bucket."""

    OF_STEP = 1
    OF_ALL = 2


@dataclass(frozen=True)
class Span:
    """When a bucket was exchanged, in `perf_counter`'s seconds.

    Attributes:
        bucket: its number.
        ready: its gradients were there, and those of all before it.
        start, stop: of its exchange.
    """

    bucket: int
    ready: float
    start: float
    stop: float


class Courier:
    """Runs the exchanges of a step in order, beside the caller or, without overlap, for it."""

    def __init__(
        self,
        exchanges: Sequence[Work],
        *,
        overlap: bool,
        arrived: Callable[[], Work],
        enter: Work,
    ) -> None:
        """Start the thread, if there is to be one.

        Args:
            exchanges: of every bucket.
            overlap: whether to exchange on a thread.
            arrived: called when a bucket's gradients are on their way: gives what waits for them,
                which is then called by the thread that exchanges them.
            enter: called once in the thread, to choose the device.
        """
        self._exchanges = exchanges
        self._arrived = arrived
        self._begun = 0
        self._waiting: SimpleQueue[tuple[int, float, Work] | _End] = SimpleQueue()
        self._done: SimpleQueue[list[Span] | BaseException] = SimpleQueue()
        self.overlaps = overlap
        self._thread: threading.Thread | None = None
        self._busy = False
        if overlap:
            self._switch_s = sys.getswitchinterval()
            sys.setswitchinterval(_SWITCH_S)
            self._thread = threading.Thread(
                target=self._serve, args=(enter,), name="commbench-exchange", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """End the thread; one that a step was broken off in may still be in an exchange."""
        if self._thread is None:
            return
        self._waiting.put(_End.OF_ALL)
        # Never to wait for an exchange: why the step was broken off is to be told first.
        if not self._busy:
            self._thread.join()
        self._thread = None
        sys.setswitchinterval(self._switch_s)

    def begin_until(self, count: int) -> None:
        """Begin to exchange the first `count` buckets, those that are not yet; never blocks."""
        while self._begun < count:
            self._busy = True
            self._waiting.put((self._begun, perf_counter(), self._arrived()))
            self._begun += 1

    def finish(self) -> list[Span]:
        """Exchange what is left, and return when all buckets hold their sums.

        Raises:
            PeerTimeout: of an exchange; any other exception of it likewise.
        """
        self.begin_until(len(self._exchanges))
        self._begun = 0
        self._waiting.put(_End.OF_STEP)
        if not self.overlaps:
            return self._exchange_waiting()[0]
        self._busy = True
        outcome = self._done.get()
        self._busy = False
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _exchange_waiting(self) -> tuple[list[Span], _End]:
        """Exchange what comes, up to the end of the step, or of all."""
        spans = []
        while not isinstance(one := self._waiting.get(), _End):
            number, ready, await_arrival = one
            await_arrival()
            start = perf_counter()
            self._exchanges[number]()
            spans.append(Span(number, ready, start, perf_counter()))
        return spans, one

    def _serve(self, enter: Work) -> None:
        try:
            enter()
            while True:
                spans, end = self._exchange_waiting()
                if end is _End.OF_ALL:
                    return
                self._done.put(spans)
        except BaseException as error:  # for the thread that waits
            self._done.put(error)


class Watch:
    """Hands buckets to a courier as soon as backward has filled them."""

    def __init__(self, buckets: Sequence[Bucket], courier: Courier) -> None:
        """Hook into the parameters' gradients."""
        self._courier = courier
        self._counts = [len(bucket.parameters) for bucket in buckets]
        self._missing: list[int] = []
        self._complete = 0
        for number, bucket in enumerate(buckets):
            for parameter in bucket.parameters:
                hook = partial(self._came, number)
                parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]

    def arm(self) -> None:
        """The backward pass that follows is the last of the step: its gradients are complete."""
        self._missing = list(self._counts)
        self._complete = 0

    def disarm(self) -> None:
        """It is over."""
        self._missing = []

    def _came(self, number: int, _: torch.Tensor) -> None:
        if not self._missing:
            return
        self._missing[number] -= 1
        if self._missing[number] or number != self._complete:
            return
        while self._complete < len(self._missing) and not self._missing[self._complete]:
            self._complete += 1
        self._courier.begin_until(self._complete)
