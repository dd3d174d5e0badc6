"""Groups of ranks: read, written, and made of nodes."""

import pytest

from commbench.groups import Groups


def listed(groups: Groups, size: int) -> list[list[int]]:
    return [list(ranks) for ranks in groups.of(size)]


@pytest.mark.parametrize(
    ("text", "size", "groups"),
    [
        ("2", 5, [[0, 1], [2, 3], [4]]),
        ("9", 3, [[0, 1, 2]]),
        ("1", 2, [[0], [1]]),
        ("0-2/3-4", 5, [[0, 1, 2], [3, 4]]),
        ("1+3/0+2", 4, [[1, 3], [0, 2]]),
        ("4+0-1/2-3", 5, [[4, 0, 1], [2, 3]]),
    ],
)
def test_forms(text: str, size: int, groups: list[list[int]]) -> None:
    assert listed(Groups(text), size) == groups


@pytest.mark.parametrize("text", ["", "-1", "1.5", "nodes", "0-", "0/", "+1", "0--3", "0,1", "٣-٤"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number of neighbours such as 4, nor node"):
        Groups(text)


@pytest.mark.parametrize("text", ["0-3", "0-2/2-3", "0-4/6", "3-0/1-2", "0-3/4/4", "0-4/4-4"])
def test_each_rank_once(text: str) -> None:
    with pytest.raises(ValueError, match="must name each of the ranks 0 to 4 once"):
        Groups(text).of(5)


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ([0, 0, 2, 2], "2"),
        ([0, 0, 0, 3, 3], "3"),
        ([0, 0, 0], "3"),
        ([0, 1, 2], "1"),
        ([0, 0, 2, 2, 2], "0-1/2-4"),
        ([0, 1, 0, 1, 0], "0+2+4/1+3"),
        ([0, 0, 2, 2, 0, 0], "0-1+4-5/2-3"),
        ([0, 1, 2, 0, 1, 2], "0+3/1+4/2+5"),
    ],
)
def test_the_ranks_of_each_node(nodes: list[int], text: str) -> None:
    placed = Groups("node").placed(nodes)
    assert placed == text
    expected = [[r for r, node in enumerate(nodes) if node == n] for n in sorted(set(nodes))]
    assert listed(placed, len(nodes)) == expected


def test_what_is_no_node_stays() -> None:
    for text in ("0", "4", "0/1-3"):
        assert Groups(text).placed([0, 0, 0, 0]) == text
    assert [Groups(text).open for text in ("0", "00", "4", "node", "0/1")] == [True] * 2 + [
        False
    ] * 3
