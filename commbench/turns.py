"""Times whatever sums a buffer over the ranks: candidates take turns, and every sum is checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commbench.arrays import Array, Arrays
from commbench.job import Job


@dataclass
class Candidate:
    """One way to sum a buffer.

    Attributes:
        buffer: ``(count,)``, the wire array that `run` sums in place; candidates may share it.
        run: one exchange, called on all ranks.
        expected: ``(count,)``, the right sum; None where this rank does not end with one, or it is
            not to be checked.
        wrong: elements found wrong so far, on this rank.
        seconds: on rank 0, ``(ranks,)`` for each timed iteration.
    """

    buffer: Array
    run: Callable[[], None]
    expected: Array | None
    wrong: int = 0
    seconds: list[NDArray[np.float64]] = field(default_factory=list)


def turn_order(iteration: int, candidates: int) -> list[int]:
    """The order of the candidates in an iteration: 0 1 4 2 3, then 1 2 0 3 4, ... of five.

    Each is first in turn, and over ``2 * candidates`` iterations each follows each other one
    equally often. Going round in a fixed circle, each would always meet the caches, and the ranks
    that are late, which one and the same other has left behind (Williams, 1949).
    """
    zigzag = [(step + 1) // 2 if step % 2 else -(step // 2) for step in range(candidates)]
    order = [(step + iteration) % candidates for step in zigzag]
    return order[::-1] if iteration // candidates % 2 else order


def take_turns(
    job: Job,
    arrays: Arrays,
    inputs: Array,
    candidates: Sequence[Candidate],
    *,
    warmup: int,
    iterations: int,
    keep: Callable[[int, NDArray[Any]], None],
) -> list[int]:
    """Run every candidate `warmup` times, then all of them in turn; collective.

    Args:
        job: the ranks.
        arrays: of the buffers.
        inputs: ``(count,)`` or longer, what this rank contributes.
        candidates: alike on all ranks.
        warmup: untimed, unchecked runs of each.
        iterations: timed runs of each.
        keep: called on rank 0 with the iteration and its seconds, ``(candidates, ranks)``.

    Returns:
        For each candidate the elements found wrong, over all ranks and iterations.
    """
    for _ in range(warmup):
        for candidate in candidates:
            _once(job, arrays, inputs, candidate, check=False)
    for iteration in range(iterations):
        own = np.zeros(len(candidates))
        for number in turn_order(iteration, len(candidates)):
            own[number] = _once(job, arrays, inputs, candidates[number], check=True)
        everyone = job.gather(own)
        if everyone is not None:
            keep(iteration, everyone.T)
            for number, candidate in enumerate(candidates):
                candidate.seconds.append(everyone[:, number])
    wrong = job.all_sum(np.array([candidate.wrong for candidate in candidates]))
    return [int(count) for count in wrong]


def _once(job: Job, arrays: Arrays, inputs: Array, candidate: Candidate, *, check: bool) -> float:
    """One exchange, timed from a barrier to this rank's own end; in seconds."""
    # Fresh inputs each time: sums of sums would soon leave the range of the type.
    arrays.assign(candidate.buffer, inputs[: len(candidate.buffer)])
    arrays.synchronize()
    job.barrier()
    start = perf_counter()
    candidate.run()
    seconds = perf_counter() - start
    # Where ranks share cores, one that checks would take the core of one still to be timed.
    job.barrier()
    if check and candidate.expected is not None:
        candidate.wrong += arrays.differences(candidate.buffer, candidate.expected)
    return seconds
