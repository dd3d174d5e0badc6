"""What an exchange moves through each rank, counted from its schedules, and the least it could."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from commbench.schedule import AllReduce, Schedule, Traffic, traffic


def workers_of(schedules: Sequence[Schedule]) -> list[int]:
    """The ranks that bring a gradient; the others only serve."""
    return [rank for rank, schedule in enumerate(schedules) if schedule.contributes]


def by_library(schedules: Sequence[Schedule]) -> bool:
    """Whether the library's own all-reduce has a part in it: nobody knows what that moves."""
    steps = (step for schedule in schedules for step in schedule.rounds)
    return any(isinstance(op, AllReduce) for step in steps for op in step.ops)


def only_by_library(schedules: Sequence[Schedule]) -> bool:
    """Whether the library's own all-reduce does all of it."""
    ops = [op for schedule in schedules for step in schedule.rounds for op in step.ops]
    return bool(ops) and all(isinstance(op, AllReduce) for op in ops)


def loads(schedules: Sequence[Schedule], count: int) -> list[Traffic] | None:
    """What every rank moves for a buffer of `count` elements; None where nobody knows."""
    if by_library(schedules):
        return None
    return [traffic(schedule, count) for schedule in schedules]


def hottest(schedules: Sequence[Schedule], count: int) -> float:
    """Elements through the busiest rank, in the direction that has more of them; NaN if unknown."""
    moved = loads(schedules, count)
    if moved is None:
        return math.nan
    return max(max(one.elements_sent, one.elements_received) for one in moved)


def least(schedules: Sequence[Schedule]) -> Fraction:
    """The least that any all-reduce moves through its busiest rank, each way, in buffers.

    For p workers 2(p-1)/p: of each element w-1 messages bring w contributions together, and w-1
    take the sum to those who lack it (Patarasuk and Yuan, JPDC 2009). Ranks that only serve share
    in these; but every one of w > 1 workers still sends each element once and receives it once.
    """
    workers = sum(schedule.contributes for schedule in schedules)
    if workers < 2:
        return Fraction(0)
    return max(Fraction(1), Fraction(2 * (workers - 1), len(schedules)))
