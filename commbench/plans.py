"""The schedules of all the exchanges that a run may use, proved before it starts.

A schedule names every rank, so those of all ranks together grow with the square of their number, or
faster. Rank 0 makes and proves them for the whole job; every other rank makes its own alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from commbench.job import Job
from commbench.load import workers_of
from commbench.registry import Choice, parse_exchange
from commbench.schedule import Schedule
from commbench.verify import require_proof


@dataclass(frozen=True)
class Plans:
    """What a rank knows of the plain exchanges of a run, each by its spec.

    Attributes:
        own: this rank's schedules.
        workers: the ranks that bring a gradient.
        everyone: the schedules of all ranks; on rank 0 only, elsewhere empty.
    """

    own: Mapping[str, Schedule]
    workers: Mapping[str, list[int]]
    everyone: Mapping[str, list[Schedule]]


def plan_all(job: Job, choices: Iterable[Choice]) -> Plans:
    """Make and prove the schedules of every part of the choices; collective.

    Raises:
        UserError: on every rank: a topology refuses this size, the parts of a choice do not have
            the same workers, or a schedule is wrong.
    """
    choices = list(choices)
    everyone: dict[str, list[Schedule]] = {}

    def make() -> dict[str, list[int]]:
        everyone.update(make_all(choices, job.size))
        prove_all(everyone)
        return {spec: workers_of(schedules) for spec, schedules in everyone.items()}

    workers = job.on_root(make)
    own = {
        part.spec: everyone[part.spec][0] if everyone else part.schedule(job.rank, job.size)
        for choice in choices
        for part in choice.parts(job.size)
    }
    return Plans(own, workers, everyone)


def make_all(choices: Iterable[Choice], size: int) -> dict[str, list[Schedule]]:
    """The schedules of all ranks for every part of the choices, by the part's spec.

    Raises:
        UserError: a topology refuses this size, or the parts of a choice do not have the same
            workers.
    """
    plans: dict[str, list[Schedule]] = {}
    for choice in choices:
        parts = {part.spec: part.schedules(size) for part in choice.parts(size)}
        choice.same_workers(parts)
        plans.update(parts)
    return plans


def prove_all(plans: Mapping[str, Sequence[Schedule]]) -> None:
    """A wrong schedule would give a wrong sum, or hang.

    Raises:
        UserError: a schedule is wrong; names the exchange and tells why.
    """
    for spec, schedules in plans.items():
        require_proof(parse_exchange(spec), schedules)
