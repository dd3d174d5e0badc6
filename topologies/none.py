"""No exchange at all: the floor every other one is timed against.

Each worker keeps its own gradient, so the replicas drift apart; a run with it measures what
training costs when communication is free.

Rounds 0, bytes 0. Any number of ranks.
"""

from fractions import Fraction

from commbench.schedule import ClosedForm, Grid, Schedule, Terms


def schedule(rank: int, size: int) -> Schedule:
    """Do nothing."""
    return Schedule(rounds=(), reduces=False)


def closed_form(size: int) -> ClosedForm:
    """Nothing is sent."""
    return ClosedForm(0, 0, Fraction(0), Fraction(0), Fraction(0))


def terms(size: int) -> Terms:
    """Nothing."""
    return Terms(Fraction(0), Fraction(0), Fraction(0))


def symmetry(size: int) -> Grid:
    """All ranks are alike."""
    return Grid((size,), (1,))
