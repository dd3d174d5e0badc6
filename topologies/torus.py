"""Two-dimensional torus: p ranks as Y rows of X; a ring along the rows, then along the columns.

Every row reduce-scatters, every column sums its n/X in a ring, every row all-gathers. It moves as
little as the one ring, in 2(X-1)+2(Y-1) rounds instead of 2(p-1) (Mikami et al., "Massively
Distributed SGD", arXiv 1811.05233, 2018). Cost (2(X-1)+2(Y-1))*alpha + 2n(p-1)/p*beta +
n(p-1)/p*gamma.

* ``x=X`` (default 0: the largest divisor of p up to its root). Of a prime number of ranks only the
  1 x p torus can be made, which is the ring.

Rounds 2(X-1)+2(Y-1). Messages 2p(X+Y-2). Every rank sends and receives 2n(p-1)/p. Any number of
ranks.
"""

from fractions import Fraction
from math import isqrt

from commbench.compose import on_ranks, then, within
from commbench.schedule import ClosedForm, Grid, Schedule, Terms
from commbench.topologies import ring


def schedule(rank: int, size: int, *, x: int = 0) -> Schedule:
    """Rank r stands in row r // X and column r % X.

    Raises:
        ValueError: X does not divide the number of ranks.
    """
    width = _width(size, x)
    row, column = divmod(rank, width)
    in_row = range(row * width, (row + 1) * width)
    in_column = range(column, size, width)
    return then(
        on_ranks(ring.reduce_scatter(column, width), in_row),
        within(
            on_ranks(ring.schedule(row, len(in_column)), in_column), ring.finished(column, width)
        ),
        on_ranks(ring.all_gather(column, width), in_row),
    )


def closed_form(size: int, *, x: int = 0) -> ClosedForm:
    """As many bytes as the ring."""
    turns = _width(size, x) - 1 + size // _width(size, x) - 1
    share = Fraction(2 * (size - 1), size)
    return ClosedForm(
        rounds=2 * turns,
        messages=2 * size * turns,
        sent=share,
        received=share,
        total=share * size,
    )


def terms(size: int, *, x: int = 0) -> Terms:
    """The docstring's cost."""
    turns = _width(size, x) - 1 + size // _width(size, x) - 1
    share = Fraction(size - 1, size)
    return Terms(Fraction(2 * turns), 2 * share, share)


def symmetry(size: int, *, x: int = 0) -> Grid:
    """All ranks are alike, along the rows and along the columns."""
    return Grid((size // _width(size, x), _width(size, x)), (1, 1))


def _width(size: int, x: int) -> int:
    divisors = [d for d in range(1, size + 1) if size % d == 0]
    if x == 0:
        return max(d for d in divisors if d <= isqrt(size))
    if x not in divisors:
        allowed = ", ".join(map(str, divisors))
        raise ValueError(f"x={x} does not divide {size}: choose one of {allowed}")
    return x
