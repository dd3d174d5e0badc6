"""How a rank waits for its peers: politely, and never for ever."""

from __future__ import annotations

import ctypes
import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from commbench.units import seconds_given

# Many ranks share few cores on a workstation. A short wait only gives way to the other ranks; a
# longer one sleeps, ever longer, so that a hundred waiting ranks leave the cores to the others: a
# millisecond, and once it has lasted, a tenth of its own length where there are fewer cores than
# ranks.
_FEWEST_YIELDS = 200
# A rank that sleeps does not feed the library, which moves long messages piece by piece; so with a
# core to itself it stays awake for about two milliseconds.
_MOST_YIELDS = 4000
_PATIENT_YIELDS = 2
# Nor does the library move more than a piece when it is asked; so who has slept asks some times.
_MOST_AWAKE = 32
_FIRST_SLEEP_S = 20e-6
_SHORT_WAIT_SLEEP_S = 1e-3
_LONGEST_SLEEP_S = 50e-3


# Of a patient wait that has lasted: the kernel's buffers of a slow link hold what comes meanwhile.
_PATIENT_LONGEST_S = 8e-3
# Where ranks talk over links slower than this machine, a wait sleeps from the start, at first never
# longer than so many seconds: nobody else would move what lies in the kernel's small buffers.
PATIENCE = "COMMBENCH_LONGEST_SLEEP_S"


# Of Linux's prctl: by how much the kernel may put off the end of a sleep.
_PR_SET_TIMERSLACK = 29


@dataclass
class _Manners:
    """How often a wait of this process gives way before it sleeps, and how long it sleeps.

    Attributes:
        yields: polls between which it only gives way.
        awake: polls between two sleeps of a millisecond and more.
        crowded: whether there are more ranks than cores.
        longest_sleep_s: no sleep of a patient wait is longer, unless it lasts; else None.
        next_event: the moment, of `time.monotonic`, up to which polling is no use; inf if unknown.
    """

    yields: int = _FEWEST_YIELDS
    awake: int = 1
    crowded: bool = True
    longest_sleep_s: float | None = None
    next_event: Callable[[], float] = lambda: math.inf

    def longest(self, waited_s: float) -> float:
        """The longest sleep of a wait that has lasted so long."""
        if self.longest_sleep_s is None:
            lasting = waited_s / 10 if self.crowded else 0.0
            return min(_LONGEST_SLEEP_S, max(_SHORT_WAIT_SLEEP_S, lasting))
        return max(self.longest_sleep_s, min(_PATIENT_LONGEST_S, waited_s / 200))


_manners = _Manners()


class PeerTimeout(Exception):  # noqa: N818
    """A peer did not answer within the time limit; the message names who waited for whom."""


def yields_before_sleep() -> int:
    """How often a wait of this process gives way before it sleeps."""
    return _manners.yields


def wait_until(
    ready: Callable[[], bool],
    timeout_s: float,
    waiting_for: Callable[[], str],
    *,
    yields: int | None = None,
) -> None:
    """Poll `ready` until it is true, yielding the core.

    Args:
        ready: what is waited for.
        timeout_s: the longest wait, in seconds.
        waiting_for: says what, if it comes to that.
        yields: polls before the first sleep; None: `yields_before_sleep`.

    Raises:
        PeerTimeout: after `timeout_s` seconds, saying what `waiting_for` tells.
    """
    for _ in range(_manners.yields if yields is None else yields):
        if ready():
            return
        os.sched_yield()
    start = time.monotonic()
    pause = _FIRST_SLEEP_S
    while not ready():
        waited_s = time.monotonic() - start
        if waited_s > timeout_s:
            raise PeerTimeout(f"{waiting_for()}: nothing came within {timeout_s:g} s (--timeout)")
        time.sleep(max(0.0, min(pause, _manners.next_event() - start - waited_s)))
        if pause >= _SHORT_WAIT_SLEEP_S:
            for _ in range(_manners.awake - 1):
                if ready():
                    return
        pause = min(2 * pause, _manners.longest(waited_s))


def share_cores(cores: int, ranks: int) -> None:
    """Suit this process's waits to so many cores and ranks on its node.

    The fewer cores there are for them, the sooner a wait sleeps. And sleeps end when they are over:
    Linux puts that off by 50 microseconds, to wake several processes at once, which is more than
    twice the first sleep of a wait.
    """
    if given := os.environ.get(PATIENCE):
        be_patient(seconds_given(PATIENCE, given))
    else:
        share = min(1.0, cores / ranks)
        _manners.yields = max(_FEWEST_YIELDS, int(_MOST_YIELDS * share))
        _manners.awake = max(1, int(_MOST_AWAKE * share))
        _manners.crowded = share < 1
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl:
        prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(1), 0, 0, 0)


def be_patient(longest_sleep_s: float, next_event: Callable[[], float] | None = None) -> None:
    """Have this process's waits sleep from the start, because links and not cores are slow.

    Args:
        longest_sleep_s: how late a wait may end, in seconds; one that has lasted long, up
            to a two-hundredth of that.
        next_event: tells the moment, of `time.monotonic`, at which something is known to come.
    """
    _manners.yields = _PATIENT_YIELDS
    _manners.longest_sleep_s = longest_sleep_s
    if next_event is not None:
        _manners.next_event = next_event


class Watchdog:
    """Puts a time limit on blocking library calls, which cannot be polled.

    One daemon thread for the process; entering and leaving a guarded call only writes a variable.
    """

    def __init__(self, timeout_s: float, expired: Callable[[str], None]) -> None:
        """Call `expired(what)` from the thread when a guarded call takes over `timeout_s`."""
        self._timeout_s = timeout_s
        self._expired = expired
        self.guarded: tuple[float, str] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="commbench-watchdog", daemon=True)
        self._thread.start()

    def guard(self, what: str) -> AbstractContextManager[None]:
        """Limits the time of a block, or of one after another.

        Args:
            what: completes "rank 3 waited for ...".
        """
        return _Guard(self, self._timeout_s, what)

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(min(1.0, self._timeout_s / 4)):
            guarded = self.guarded
            if guarded is not None and time.monotonic() > guarded[0]:
                self._expired(
                    f"{guarded[1]}: nothing came within {self._timeout_s:g} s (--timeout)"
                )
                return


class _Guard(AbstractContextManager[None]):
    """A block of a watchdog; as `contextlib` would write it, without its microseconds."""

    __slots__ = ("_outer", "_timeout_s", "_watchdog", "_what")

    def __init__(self, watchdog: Watchdog, timeout_s: float, what: str) -> None:
        self._watchdog = watchdog
        self._timeout_s = timeout_s
        self._what = what

    def __enter__(self) -> None:
        self._outer = self._watchdog.guarded
        self._watchdog.guarded = time.monotonic() + self._timeout_s, self._what

    def __exit__(self, *raised: object) -> None:
        self._watchdog.guarded = self._outer
