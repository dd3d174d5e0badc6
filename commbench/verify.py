"""Proof, counts and closed form of one exchange at one size, put side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from typing import Any

from commbench.errors import UserError
from commbench.proof import ProofError, prove
from commbench.registry import Choice
from commbench.schedule import ClosedForm, Schedule, traffic

_FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Cost:
    """What an exchange costs for a buffer of known length; bytes of float32."""

    rounds: int
    messages: int
    most_sent_bytes: int
    most_received_bytes: int
    all_sent_bytes: int


@dataclass(frozen=True)
class Verdict:
    """The outcome for one exchange on one number of ranks.

    Attributes:
        counted: from the schedules; None when the proof failed or the library does the work.
        formula: from the topology's closed form, rounded to bytes; None where it states none.
        ok: proved, and equal to the formula where there is one.
        note: why not, or what the reader should know.
    """

    exchange: str
    ranks: int
    counted: Cost | None
    formula: Cost | None
    ok: bool
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def cells(self) -> list[str]:
        """The costs as the cells of a table: the count, and below it the formula."""
        pairs = [
            [f"{getattr(cost, field.name):,}" if cost else "-" for field in fields(Cost)]
            for cost in (self.counted, self.formula)
        ]
        return ["\n".join(pair) for pair in zip(*pairs, strict=True)]


def verify(choice: Choice, size: int, count: int) -> Verdict:
    """Prove and count one exchange; of a choice by size, count what sums this buffer, prove all.

    Args:
        choice: the exchange.
        size: number of ranks.
        count: elements of the buffer for which bytes are told.

    Raises:
        UserError: the exchange does not admit this size.
    """
    nbytes = _FLOAT32_BYTES * count
    chosen = choice.for_bytes(nbytes, size)
    verdict = _verify_plain(chosen, size, count)
    if choice.plain:
        return verdict
    choice.workers(size)
    others = [
        _verify_plain(part, size, count) for part in choice.parts(size) if part.spec != chosen.spec
    ]
    wrong = [f"{other.exchange}: {other.note}" for other in others if not other.ok]
    notes = [f"{chosen.spec} sums {nbytes:,} bytes", verdict.note, *wrong]
    return replace(
        verdict,
        exchange=choice.spec,
        ok=verdict.ok and not wrong,
        note="; ".join(note for note in notes if note),
    )


def _verify_plain(choice: Choice, size: int, count: int) -> Verdict:
    schedules = choice.schedules(size)
    formula = choice.closed_form(size)
    expected = _formula_cost(formula, count) if formula else None
    try:
        counts = prove(schedules)
    except ProofError as error:
        return Verdict(choice.spec, size, None, expected, ok=False, note=str(error))
    if counts.native:
        note = "the library's own algorithm: timed, not counted"
        return Verdict(choice.spec, size, None, expected, ok=True, note=note)
    moved = [traffic(schedule, count) for schedule in schedules]
    counted = Cost(
        counts.rounds,
        counts.messages,
        _FLOAT32_BYTES * max(one.elements_sent for one in moved),
        _FLOAT32_BYTES * max(one.elements_received for one in moved),
        _FLOAT32_BYTES * sum(one.elements_sent for one in moved),
    )
    ok = formula is None or counts.closed_form() == formula
    note = "" if ok else f"counted {counts.closed_form()}, the formula says {formula}"
    if not any(schedule.reduces for schedule in schedules):
        note = "no exchange: the floor, every rank keeps its own gradient"
    return Verdict(choice.spec, size, counted, expected, ok, note)


def require_proof(choice: Choice, schedules: Sequence[Schedule]) -> None:
    """Refuse an exchange whose schedules are no all-reduce: it would hang, or sum wrong.

    Raises:
        UserError: with the proof's reason.
    """
    try:
        prove(schedules)
    except ProofError as error:
        raise UserError(
            f"exchange {choice.spec} is wrong on {len(schedules)} ranks: {error}"
        ) from error


def _formula_cost(formula: ClosedForm, count: int) -> Cost:
    def in_bytes(share: Fraction) -> int:
        return _FLOAT32_BYTES * round(share * count)

    return Cost(
        formula.rounds,
        formula.messages,
        in_bytes(formula.sent),
        in_bytes(formula.received),
        in_bytes(formula.total),
    )
