"""In which form gradients travel: ``--wire float32|float16|bfloat16|topk:F|powersgd:R``.

The gradient is float32 for the model and the optimizer. A codec turns it into what is exchanged,
and what comes back into the sum; `commbench.wire.codec` has their interface, and one file each the
codecs. Here is what a format sends, which needs neither torch nor MPI.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from commbench.arrays import ELEMENT_TYPES
from commbench.errors import UserError
from commbench.gathering import slot_count
from commbench.registry import Choice

CHOICES = "float32, float16, bfloat16, topk:F with 0 < F <= 1, or powersgd:R with R >= 1"
# Positions of entries travel as int32.
_MOST_ENTRIES = 1 << 31


@dataclass(frozen=True)
class WireBuffer:
    """One buffer of an exchange: `count` elements of type `dtype`."""

    count: int
    dtype: str

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return ELEMENT_TYPES[self.dtype].itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer."""
        return self.count * self.itemsize


@dataclass(frozen=True)
class WireFormat:
    """A choice of `--wire`.

    Attributes:
        name: float32, float16, bfloat16, topk or powersgd.
        fraction: of topk, how many of all entries are sent.
        rank: of powersgd, of the approximation.
    """

    name: str = "float32"
    fraction: float = 1.0
    rank: int = 0

    @property
    def spec(self) -> str:
        """The text that chooses it: ``topk:0.01``."""
        if self.name == "topk":
            return f"topk:{self.fraction:g}"
        return f"powersgd:{self.rank}" if self.name == "powersgd" else self.name

    @property
    def plain(self) -> bool:
        """Whether the gradient travels as it is."""
        return self.name == "float32"

    @property
    def gathers(self) -> bool:
        """Whether everybody gets all contributions, for none can be added on the way."""
        return self.name == "topk"

    @property
    def dtype(self) -> str:
        """The type of the elements that are sent."""
        return self.name if self.name in ELEMENT_TYPES else "float32"

    def entries(self, count: int) -> int:
        """Of topk: how many of `count` entries each worker sends, at least one."""
        return min(count, max(1, math.ceil(self.fraction * count)))

    def buffers(self, shapes: Sequence[Sequence[int]], workers: int) -> list[WireBuffer]:
        """What is exchanged of gradients of these shapes; at least one buffer.

        Raises:
            UserError: too many entries for topk.
        """
        count = sum(map(math.prod, shapes))
        if self.name == "topk":
            if count >= _MOST_ENTRIES:
                raise UserError(
                    f"--wire {self.spec}: {count} entries; their positions travel as 32 bits, so "
                    f"use another format from {_MOST_ENTRIES} on"
                )
            return [WireBuffer(slot_count(workers) * 2 * self.entries(count), self.dtype)]
        if self.name == "powersgd":
            matrices = [low for low in (low_rank(shape, self.rank) for shape in shapes) if low]
            rest = count - sum(low.rows * low.columns for low in matrices)
            left = sum(low.rows * low.rank for low in matrices)
            right = sum(low.columns * low.rank for low in matrices)
            own = [WireBuffer(left + rest, self.dtype)]
            return [*own, WireBuffer(right, self.dtype)] if matrices else own
        return [WireBuffer(count, self.dtype)]

    def handed_in(self, shapes: Sequence[Sequence[int]]) -> int:
        """Bytes that one worker contributes to an exchange."""
        if self.gathers:
            return 8 * self.entries(sum(map(math.prod, shapes)))
        return sum(buffer.nbytes for buffer in self.buffers(shapes, 1))


def describe(wire: WireFormat, shapes: Sequence[Sequence[int]]) -> str:
    """What a format makes of gradients of these shapes, in a line; "" of float32."""
    if wire.plain:
        return ""
    gradient, handed_in = 4 * sum(map(math.prod, shapes)), wire.handed_in(shapes)
    ratio = gradient / handed_in if handed_in else math.nan
    return (
        f"wire {wire.spec}: a worker hands in {handed_in / 1e6:.3g} MB of a gradient of "
        f"{gradient / 1e6:.3g} MB, {ratio:.3g} times less"
    )


@dataclass(frozen=True)
class LowRank:
    """A parameter as a matrix of `rows` by `columns`, approximated by one of rank `rank`."""

    rows: int
    columns: int
    rank: int


def low_rank(shape: Sequence[int], rank: int) -> LowRank | None:
    """How PowerSGD sees a parameter; None where its two factors would not be smaller than it."""
    rows = shape[0] if len(shape) > 1 else 1
    columns = math.prod(shape) // rows if rows else 0
    rank = min(rank, rows, columns)
    if rank * (rows + columns) >= rows * columns:
        return None
    return LowRank(rows, columns, rank)


FLOAT32 = WireFormat()
"""The gradient as it is."""


def parse_wire(spec: str) -> WireFormat:
    """Read ``topk:0.01`` and the like.

    Raises:
        UserError: there is no such format.
    """
    name, colon, value = spec.partition(":")
    if not colon and name in ("float32", "float16", "bfloat16"):
        return WireFormat(name)
    try:
        if name == "topk" and 0 < float(value) <= 1:
            return WireFormat(name, fraction=float(value))
        if name == "powersgd" and int(value) >= 1:
            return WireFormat(name, rank=int(value))
    except ValueError:
        pass
    raise UserError(f"--wire {spec}: choose {CHOICES}")


def check_exchange(wire: WireFormat, exchange: Choice) -> None:
    """Refuse what a format cannot travel by.

    Raises:
        UserError: tells why, and what to do.
    """
    if wire.plain:
        return
    if exchange.asynchronous:
        raise UserError(
            f"--wire {wire.spec} with --exchange {exchange.spec}: its servers apply float32 "
            "gradients as they come, and only exchanges on a schedule are compressed; use "
            "sharded-server or leave out --wire"
        )
    if wire.gathers and exchange.name in ("none", "native") and not exchange.smaller:
        raise UserError(refusal(wire, exchange.spec))


def carrying(wire: WireFormat, choices: Sequence[Choice]) -> tuple[list[Choice], list[str]]:
    """The exchanges that a format can travel by, and why each of the others cannot."""
    fit, reasons = [], []
    for choice in choices:
        try:
            check_exchange(wire, choice)
        except UserError as error:
            reasons.append(str(error))
        else:
            fit.append(choice)
    return fit, reasons


def refusal(wire: WireFormat, spec: str) -> str:
    """Why entries cannot be gathered by an exchange."""
    why = (
        "the library adds up where nobody can take the sums apart, and each rank's largest "
        "entries lie elsewhere"
    )
    if spec == "none":
        why = "it exchanges nothing that could be gathered"
    return f"--wire {wire.spec} with --exchange {spec}: {why}; use any other exchange"
