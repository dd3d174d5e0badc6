"""Groups of ranks, as options name them and as a job's nodes make them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

NODE = "node"
_RANKS = r"[0-9]+(-[0-9]+)?(\+[0-9]+(-[0-9]+)?)*"


class Groups(str):
    """Which ranks belong together, as plain data that a schedule can depend on.

    ``4``: four neighbours each, ranks 0-3, 4-7 and so on, the last group perhaps smaller.
    ``0+2/1+3`` or ``0-3/4-6``: these ranks; the first of each group is its master.
    ``node``: those of one node. No schedule can be made of that: `placed` gives what it means.
    ``0``: left open, for a topology to choose.

    Raises:
        ValueError: text that is not of one of these forms.
    """

    def __new__(cls, value: str | int) -> Groups:
        """Read text, or take a number of neighbours."""
        text = str(value)
        if text != NODE and not re.fullmatch(rf"{_RANKS}(/{_RANKS})*", text):
            raise ValueError(
                f"{text!r} is not a number of neighbours such as 4, nor node, nor the ranks of "
                "each group such as 0-3/4-7 or 0+2/1+3"
            )
        return super().__new__(cls, text)

    @property
    def open(self) -> bool:
        """Whether it is left to the topology."""
        return self.isdecimal() and int(self) == 0

    def of(self, size: int) -> list[Sequence[int]]:
        """The ranks of each group, of `size` ranks.

        Raises:
            ValueError: nodes that are not known, or not each rank once.
        """
        if self == NODE:
            raise ValueError(
                f"group={NODE} is known only inside a job, where ranks have a place: give a number "
                "of neighbours such as 4, or the ranks of each group such as 0-3/4-7"
            )
        if self.isdecimal():
            width = min(int(self), size)
            return [range(size)[first : first + width] for first in range(0, size, width)]
        listed = [[_range(part) for part in one.split("+")] for one in self.split("/")]
        # Counted before they are listed: a range may be of any length.
        if sum(len(part) for one in listed for part in one) == size:
            groups = [[rank for part in one for rank in part] for one in listed]
            if sorted(rank for one in groups for rank in one) == list(range(size)):
                return list(groups)
        raise ValueError(f"group={self} must name each of the ranks 0 to {size - 1} once")

    def placed(self, nodes: Sequence[int]) -> Groups:
        """Put what it means in the place of ``node``.

        Args:
            nodes: for every rank a number that the ranks of its node share.
        """
        if self != NODE:
            return self
        groups: dict[int, list[int]] = {}
        for rank, node in enumerate(nodes):
            groups.setdefault(node, []).append(rank)
        width = len(groups[nodes[0]])
        if [list(one) for one in Groups(width).of(len(nodes))] == list(groups.values()):
            return Groups(width)
        return Groups("/".join(_written(ranks) for ranks in groups.values()))


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _written(ranks: Sequence[int]) -> str:
    """``0-3+5``, of increasing ranks."""
    starts = [ranks[0], *(after for before, after in pairwise(ranks) if after > before + 1)]
    stops = [*(before for before, after in pairwise(ranks) if after > before + 1), ranks[-1]]
    return "+".join(
        str(start) if start == stop else f"{start}-{stop}"
        for start, stop in zip(starts, stops, strict=True)
    )
