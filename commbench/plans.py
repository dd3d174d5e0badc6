"""The schedules of all the exchanges that a run may use, proved before it starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from commbench.registry import Choice, parse_exchange
from commbench.schedule import Schedule
from commbench.verify import require_proof

Plans = Mapping[str, list[Schedule]]
"""The schedules of all ranks, by the spec of each plain exchange."""


def plan_all(choices: Iterable[Choice], size: int) -> Plans:
    """Make the schedules of every part of the choices, on `size` ranks.

    Raises:
        UserError: a topology refuses this size, or the parts of a choice do not have the same
            workers.
    """
    plans = {}
    for choice in choices:
        choice.workers(size)
        for part in choice.parts(size):
            plans[part.spec] = part.schedules(size)
    return plans


def prove_all(plans: Plans) -> None:
    """A wrong schedule would give a wrong sum, or hang.

    Raises:
        UserError: a schedule is wrong; names the exchange and tells why.
    """
    for spec, schedules in plans.items():
        require_proof(parse_exchange(spec), schedules)
