"""Which ranges of elements overlap is found once for each pair; here it is looked up every time."""

import pytest

from commbench import cutting
from commbench.registry import parse_exchange

WHOLE = 1 << 60


class Plain:
    """What `_Ranges` does, in as few words as can be."""

    def __init__(self, _: object) -> None:
        self.held: dict[int, tuple[int, int]] = {}

    def add(self, start: int, stop: int, number: int) -> None:
        self.held[number] = start, stop

    def over(self, start: int, stop: int) -> tuple[int, ...]:
        return tuple(sorted(n for n, (a, b) in self.held.items() if a < stop and start < b))

    def within(self, start: int, stop: int) -> tuple[int, ...]:
        return tuple(sorted(n for n, (a, b) in self.held.items() if start <= a and b <= stop))

    def drop(self, numbers: tuple[int, ...]) -> None:
        for number in numbers:
            self.held.pop(number, None)


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        *(("ring", 7), ("ring@segments=3", 5), ("tree@segments=4", 6), ("double-tree", 9)),
        *(("binary-blocks", 13), ("recursive-doubling", 6), ("sharded-server@servers=2", 8)),
        *(("hierarchical@inner=tree@outer=double-tree@group=3", 12), ("torus", 12)),
    ],
)
@pytest.mark.parametrize("longest", [WHOLE, 97, 7])
def test_ranges_are_those_looked_up_every_time(
    monkeypatch: pytest.MonkeyPatch, spec: str, size: int, longest: int
) -> None:
    choice = parse_exchange(spec)
    for rank in range(size):
        schedule = choice.schedule(rank, size)
        for count in (0, 1, size - 1, 1001):
            quick = cutting.cut(schedule, count, lambda _: longest)
            with monkeypatch.context() as patch:
                patch.setattr(cutting, "_Ranges", Plain)
                assert cutting.cut(schedule, count, lambda _: longest) == quick
