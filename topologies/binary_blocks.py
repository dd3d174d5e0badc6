"""Binary blocks: halving and doubling on any number of ranks.

The ranks form blocks, the powers of two in the binary form of p, the largest first: 13 = 8+4+1.
Every block scatters its sum by halving. From the smallest block up, each rank then cuts its piece
among the ranks of the next larger block that own the parts, and they add; the sums go back down,
and every block gathers by doubling (Goyal et al., "Accurate, Large Minibatch SGD", arXiv
1706.02677, 2017, section 4; Gloo).

A rank deals with one of the next smaller block, but with many of a much larger one. Where ranks
send one message at a time, and receive one, two neighbours as 8+4 cost (2L+2)*alpha + 2n*beta +
n*gamma, L = log2 of the largest block; but 8+1 cost 12*alpha, and 8+4+2+1 3.125n*beta.

Rounds 2L+2. Messages 2b*log2 b inside a block of b, and 2b between it and the next smaller one. The
busiest rank sends and receives 2n, of two blocks 2n-n/b; together the ranks send 2n(p-1), no more
than in a ring. On a power of two it is ``halving-doubling``. Any number of ranks.
"""

from fractions import Fraction

from commbench.compose import backwards, lasting, on_ranks, then
from commbench.schedule import ClosedForm, Grid, Recv, Round, Schedule, Send, Terms
from commbench.topologies import halving_doubling


def schedule(rank: int, size: int) -> Schedule:
    """Scatter the sum over the largest block, then everything backwards."""
    up = _reduce(rank, size)
    return then(up, backwards(up))


def _reduce(rank: int, size: int) -> Schedule:
    """A block of b receives from the next smaller one in round log2 b, its own sum scattered.

    Whose parts make up a small rank's piece? Pieces go by place with the bits reversed, so it is
    the large ranks whose places end in the same bits.
    """
    blocks = _blocks(size)
    number = next(number for number, block in enumerate(blocks) if rank in block)
    block, place = blocks[number], rank - blocks[number][0]
    up = on_ranks(halving_doubling.reduce_scatter(place, len(block)), block)
    for small in blocks[number + 1 :][:1]:
        piece = halving_doubling.finished(place, len(block))
        up = then(up, Schedule((Round((Recv(piece, small[place % len(small)]),)),)))
    for large in blocks[:number][-1:]:
        owners = range(place, len(large), len(block))
        parts = [Send(halving_doubling.finished(at, len(large)), large[at]) for at in owners]
        # Not in the order of ranks: 0 and 1 swap with each other first, and both would be busy.
        parts.sort(key=lambda part: part.piece)
        up = then(lasting(up, _level(large)), Schedule((Round(tuple(parts)),)))
    return lasting(up, _level(blocks[0]) + (len(blocks) > 1))


def closed_form(size: int) -> ClosedForm:
    """A rank moves 2-2/b of the buffer in its block, and 1/b for each neighbour the block has."""
    blocks = _blocks(size)
    last = len(blocks) - 1
    busiest = max(
        2 - Fraction(2 - (number > 0) - (number < last), len(block))
        for number, block in enumerate(blocks)
    )
    inside = sum(2 * len(block) * _level(block) for block in blocks)
    return ClosedForm(
        rounds=2 * (_level(blocks[0]) + (last > 0)),
        messages=inside + sum(2 * len(block) for block in blocks[:-1]),
        sent=busiest,
        received=busiest,
        total=Fraction(2 * (size - 1)),
    )


def terms(size: int) -> Terms | None:
    """The docstring's cost, on a power of two or two neighbours."""
    blocks = _blocks(size)
    if len(blocks) == 1:
        return halving_doubling.terms(size)
    if len(blocks) == 2 and len(blocks[0]) == 2 * len(blocks[1]):
        return Terms(Fraction(2 * _level(blocks[0]) + 2), Fraction(2), Fraction(1))
    return None


def symmetry(size: int) -> Grid | None:
    """All ranks are alike on a power of two."""
    return halving_doubling.symmetry(size) if size.bit_count() == 1 else None


def _blocks(size: int) -> list[range]:
    """The ranks of every block, the largest block first."""
    # A block of b begins where the bits of p above b end.
    widths = [1 << bit for bit in reversed(range(size.bit_length())) if size >> bit & 1]
    starts = (size & -2 * width for width in widths)
    return [range(start, start + width) for start, width in zip(starts, widths, strict=True)]


def _level(block: range) -> int:
    """Log2 of the size of a block."""
    return len(block).bit_length() - 1
