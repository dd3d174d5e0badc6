"""Sweeps held against each other, or the exchanges of one sweep.

Exchanges of one sweep took turns, so their times pair up round by round, and the sign test gives
the interval of the median ratio. Times of two sweeps do not pair; see `commbench.resampling`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from commbench.errors import UserError
from commbench.report import Timing, read_report
from commbench.resampling import Estimate, median, ratio_of_medians


@dataclass(frozen=True)
class Cell:
    """Two times of one size on as many ranks.

    Attributes:
        size: of the buffer, in bytes.
        ranks: of the first and the second; the same unless it was forced.
        first_exchange, second_exchange: as the sweeps name them.
        first_s, second_s: their medians, of the slowest rank, in seconds.
        first_iterations, second_iterations: how many were timed.
        ratio: the second's time over the first's.
        paired: whether they took turns.
    """

    size: int
    ranks: tuple[int, int]
    first_exchange: str
    second_exchange: str
    first_s: Estimate
    second_s: Estimate
    first_iterations: int
    second_iterations: int
    ratio: Estimate
    paired: bool


def within(path: Path, against: str | None) -> list[Cell]:
    """Every other exchange of a sweep against one: `against`, else `native`, else the first.

    `none`, the floor, is held against nothing unless it is the one.

    Raises:
        UserError: there is no such exchange, or no other.
    """
    timings = read_report([path]).timings
    names = list(dict.fromkeys(timing.exchange for timing in timings))
    real = [name for name in names if name != "none"]
    own = against or ("native" if "native" in names else (real or names)[0])
    if own not in names:
        raise UserError(f"{path} has no exchange {own}: --against takes {', '.join(names)}")
    if set(real) <= {own}:
        raise UserError(f"{path} has no exchange but {own}, and nothing to compare it with")
    firsts = {timing.size: timing for timing in timings if timing.exchange == own}
    return [
        _cell(firsts[timing.size], timing, timing.over(firsts[timing.size]), paired=True)
        for timing in timings
        if timing.exchange not in (own, "none") and timing.size in firsts
    ]


def between(first: Path, second: Path) -> list[Cell]:
    """The exchanges and sizes that two sweeps have in common.

    Where each has one exchange alone, and not the same, those two are held against each other.

    Raises:
        UserError: they have nothing in common.
    """
    ones, others = (read_report([path]).timings for path in (first, second))
    partners = _partners(ones, others)
    cells = [
        _cell(a, b, ratio_of_medians(b.slowest_s, a.slowest_s), paired=False)
        for b in others
        for a in ones
        if a.size == b.size and partners.get(b.exchange) == a.exchange
    ]
    if not cells:
        raise UserError(
            f"{first} ({_told(ones)}) and {second} ({_told(others)}) have no exchange and size in "
            "common: sweep the same, or the exchanges together in one sweep, where they take turns"
        )
    return cells


def _partners(ones: list[Timing], others: list[Timing]) -> dict[str, str]:
    """Which exchange of the first sweep each of the second's is held against."""
    own = list(dict.fromkeys(timing.exchange for timing in ones))
    theirs = list(dict.fromkeys(timing.exchange for timing in others))
    if len(own) == len(theirs) == 1:
        return {theirs[0]: own[0]}
    return {name: name for name in theirs if name in own}


def _told(timings: list[Timing]) -> str:
    names = ", ".join(dict.fromkeys(timing.exchange for timing in timings))
    sizes = [timing.size for timing in timings]
    return f"{names} from {min(sizes)} to {max(sizes)} bytes"


def _cell(first: Timing, second: Timing, ratio: Estimate, *, paired: bool) -> Cell:
    return Cell(
        size=first.size,
        ranks=(first.ranks, second.ranks),
        first_exchange=first.exchange,
        second_exchange=second.exchange,
        first_s=median(first.slowest_s),
        second_s=median(second.slowest_s),
        first_iterations=len(first.slowest_s),
        second_iterations=len(second.slowest_s),
        ratio=ratio,
        paired=paired,
    )
