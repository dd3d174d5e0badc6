"""A trace of some steps of all ranks, to be opened in Perfetto (ui.perfetto.dev) or chrome://tracing.

Source of the form: "Trace Event Format" (Google, 2016), complete events ("X"): one process for each
rank, one thread for the phases of its steps and one for the exchanges of its buckets, which run
beside backward. Times are in microseconds of rank 0's clock, from the first event on.

With micro-batches a step has several forward and backward passes; each phase is drawn as one block
of all its time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commbench.errors import UserError
from commbench.overlap import Span
from commbench.record import paths
from commbench.telemetry import PHASES
from commbench.units import Window

_STEP, _EXCHANGE = 0, 1
_TRACKS = {_STEP: "step", _EXCHANGE: "exchange"}


@dataclass
class Recorder:
    """What one rank does in the steps of a window.

    Attributes:
        window: the steps.
        offset: what to add to this rank's clock to get rank 0's, in seconds.
        events: name, track, start and stop by rank 0's clock, and the step.
    """

    window: Window
    offset: float
    events: list[tuple[str, int, float, float, int]] = field(default_factory=list)

    def add(self, step: int, start: float, seconds: Sequence[float], spans: Iterable[Span]) -> None:
        """Take note of a step, counted from 1.

        Args:
            step: its number.
            start: when it began, in `perf_counter`'s seconds.
            seconds: of its phases, one after the other.
            spans: of its buckets.
        """
        if not self.window.first <= step <= self.window.last:
            return
        at = start + self.offset
        for name, took in zip(PHASES, seconds, strict=True):
            self.events.append((name, _STEP, at, at + took, step))
            at += took
        for span in spans:
            begin, end = span.start + self.offset, span.stop + self.offset
            self.events.append((f"bucket {span.bucket}", _EXCHANGE, begin, end, step))


def trace_events(ranks: Sequence[Recorder], hosts: Sequence[str]) -> dict[str, Any]:
    """The trace of all ranks, as JSON has it."""
    events = [event for rank in ranks for event in rank.events]
    zero = min((start for _, _, start, _, _ in events), default=0.0)
    told: list[dict[str, Any]] = []
    for number, (rank, host) in enumerate(zip(ranks, hosts, strict=True)):
        process = {"ph": "M", "pid": number, "name": "process_name"}
        told.append({**process, "args": {"name": f"rank {number} on {host}"}})
        told.append({**process, "name": "process_sort_index", "args": {"sort_index": number}})
        for track, name in _TRACKS.items():
            thread = {"ph": "M", "pid": number, "tid": track, "name": "thread_name"}
            told.append({**thread, "args": {"name": name}})
        for name, track, start, stop, step in rank.events:
            told.append(
                {
                    "ph": "X",
                    "name": name,
                    "cat": _TRACKS[track],
                    "pid": number,
                    "tid": track,
                    "ts": round(1e6 * (start - zero), 3),
                    "dur": round(1e6 * (stop - start), 3),
                    "args": {"step": step},
                }
            )
    return {"displayTimeUnit": "ms", "traceEvents": told}


def write(path: Path, ranks: Sequence[Recorder], hosts: Sequence[str]) -> None:
    """Write the trace, whole or not at all.

    Raises:
        UserError: the file cannot be written, or there is one of this name by now.
    """
    part = paths.part(path)
    try:
        part.write_text(json.dumps(trace_events(ranks, hosts)))
        paths.publish(part, path, unique=False)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
