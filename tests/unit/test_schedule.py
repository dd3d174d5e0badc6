from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from commbench.schedule import WHOLE, Piece, Recv, Round, Schedule, Send, traffic


@given(st.integers(0, 500), st.integers(1, 40))
def test_pieces_tile_the_buffer_with_sizes_that_differ_by_one_at_most(count: int, of: int) -> None:
    bounds = [Piece(index, of).bounds(count) for index in range(of)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == count
    assert all(left[1] == right[0] for left, right in pairwise(bounds))
    sizes = [stop - start for start, stop in bounds]
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(0, 500), st.integers(1, 12), st.integers(1, 12), st.data())
def test_cuts_nest_for_every_length(
    count: int, outer: int, inner: int, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, outer - 1))
    parts = [Piece(index * inner + part, outer * inner).bounds(count) for part in range(inner)]
    assert (parts[0][0], parts[-1][1]) == Piece(index, outer).bounds(count)


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_overlap_is_sharing_an_element_of_a_long_buffer(
    a: int, b: int, data: st.DataObject
) -> None:
    left = Piece(data.draw(st.integers(0, a - 1)), a)
    right = Piece(data.draw(st.integers(0, b - 1)), b)
    count = a * b * 2
    (start, stop), (other_start, other_stop) = left.bounds(count), right.bounds(count)
    assert left.overlaps(right) == (start < other_stop and other_start < stop)


def test_traffic_leaves_empty_pieces_out() -> None:
    schedule = Schedule(
        (
            Round((Send(Piece(0, 4), 1), Send(Piece(3, 4), 2), Recv(WHOLE, 1))),
            Round((Recv(Piece(1, 2), 2, reduce=False),)),
        )
    )
    moved = traffic(schedule, 2)
    assert (moved.messages_sent, moved.elements_sent) == (1, 1)
    assert (moved.messages_received, moved.elements_received) == (2, 3)
