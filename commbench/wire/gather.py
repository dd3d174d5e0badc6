"""All-gathers in the place of a run's all-reduces."""

from __future__ import annotations

from commbench.errors import UserError
from commbench.gathering import gathered, prove_gathered
from commbench.job import Job
from commbench.load import by_library
from commbench.matching import ProofError
from commbench.plans import Plans
from commbench.schedule import Schedule


def gather_plans(job: Job, plans: Plans) -> Plans:
    """Turn all-reduces into all-gathers, and prove these; collective.

    Left out are exchanges of which nothing can be gathered, `none` and what the library adds up.

    Raises:
        UserError: on every rank, if a schedule is wrong.
    """

    def make() -> dict[str, list[Schedule]]:
        made = {}
        for spec, schedules in plans.everyone.items():
            if by_library(schedules) or not all(one.reduces for one in schedules):
                continue
            try:
                made[spec] = gathered(schedules)
                prove_gathered(made[spec])
            except ProofError as error:
                raise UserError(f"--exchange {spec} cannot be gathered: {error}") from error
        return made

    everyone = job.keep_on_root(make) or {}
    shares = [{spec: one[rank] for spec, one in everyone.items()} for rank in range(job.size)]
    own = job.scatter(shares if job.rank == 0 else None)
    return Plans(own, plans.workers, everyone)
