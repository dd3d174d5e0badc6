"""Schedules made of schedules: what a topology needs to build on another one.

Every function takes and gives the schedule of one rank; all ranks call it alike. They keep to
*lock-step*: all ranks have the same number of rounds, and a message sent in round t is received in
round t. A rank with nothing to do then has an empty round, which costs nothing. Two things follow:

* Nobody waits in a circle. Let all ranks have finished the rounds before t. All that is sent in
  round t is posted as it begins, and its receives wait for nothing else: earlier sends are taken.
* Merging round by round is safe (`together`, `pipelined`). A message of schedule k stays in the
  same round on both sides, delayed or not, and both sides list the schedules of a round in the
  same order. So the messages of two ranks keep one order, and each send meets its own receive. The
  schedules' pieces must be disjoint; then each computes what it would have computed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from commbench.schedule import AllReduce, Op, Piece, Recv, Round, Schedule, Send

IDLE = Schedule(rounds=())


def on_ranks(schedule: Schedule, ranks: Sequence[int]) -> Schedule:
    """Move the schedule of one rank of a group to other ranks: rank i becomes ``ranks[i]``.

    Raises:
        ValueError: it calls the library's all-reduce, which always runs over all ranks.
    """

    def move(op: Op) -> Op:
        if isinstance(op, AllReduce):
            raise ValueError("the library's all-reduce runs over all ranks, not over some")
        if isinstance(op, Send):
            return replace(op, to=ranks[op.to])
        return replace(op, source=ranks[op.source])

    return _each(schedule, move)


def within(schedule: Schedule, piece: Piece) -> Schedule:
    """Let a schedule work on `piece` as if that were the buffer."""

    def nest(op: Op) -> Op:
        index, of = piece.index * op.piece.of + op.piece.index, piece.of * op.piece.of
        return replace(op, piece=Piece(index, of))

    return _each(schedule, nest)


def backwards(schedule: Schedule) -> Schedule:
    """The same messages the other way, last round first: a reduction becomes a broadcast.

    Whoever ended a reduction with the sum of a piece begins its broadcast with it.
    """

    def turn(op: Op) -> Op:
        if isinstance(op, Send):
            return Recv(op.piece, op.to, reduce=False)
        return Send(op.piece, op.source) if isinstance(op, Recv) else op

    flipped = _each(schedule, turn)
    return replace(flipped, rounds=flipped.rounds[::-1])


def lasting(schedule: Schedule, rounds: int) -> Schedule:
    """Append empty rounds until there are `rounds`: keeps lock-step with those who have more to do.

    Raises:
        ValueError: it has more rounds already.
    """
    missing = rounds - len(schedule.rounds)
    if missing < 0:
        raise ValueError(f"a schedule of {len(schedule.rounds)} rounds does not fit in {rounds}")
    return replace(schedule, rounds=schedule.rounds + (Round(()),) * missing)


def then(*schedules: Schedule) -> Schedule:
    """One schedule after the other."""
    return _joined(schedules, [turn for schedule in schedules for turn in schedule.rounds])


def together(*schedules: Schedule) -> Schedule:
    """Schedules for disjoint pieces, at once: round t of all of them is one round."""
    steps = max(len(schedule.rounds) for schedule in schedules)
    turns = [[s.rounds[t] for s in schedules if t < len(s.rounds)] for t in range(steps)]
    return _joined(
        schedules, [Round(tuple(op for turn in step for op in turn.ops)) for step in turns]
    )


def pipelined(*schedules: Schedule) -> Schedule:
    """Schedules for disjoint pieces, each one round behind the one before.

    Round t of schedule k is in round t+k, so C schedules of R rounds take R+C-1.
    """
    late = [
        replace(schedule, rounds=(Round(()),) * delay + schedule.rounds)
        for delay, schedule in enumerate(schedules)
        if schedule.rounds
    ]
    return together(*late) if late else schedules[0]


def segmented(schedule: Schedule, segments: int) -> Schedule:
    """Cut the buffer into equal segments, and let `schedule` sum them as a pipeline.

    Raises:
        ValueError: fewer than one segment.
    """
    if segments < 1:
        raise ValueError(f"segments={segments}: there must be at least 1")
    return pipelined(*(within(schedule, Piece(k, segments)) for k in range(segments)))


def segmented_rounds(rounds: int, segments: int) -> int:
    """How many rounds `segmented` makes of `rounds`."""
    return rounds + segments - 1 if rounds else 0


def _each(schedule: Schedule, change: Callable[[Op], Op]) -> Schedule:
    rounds = (Round(tuple(change(op) for op in turn.ops)) for turn in schedule.rounds)
    return replace(schedule, rounds=tuple(rounds))


def _joined(schedules: Sequence[Schedule], rounds: Sequence[Round]) -> Schedule:
    if len({(schedule.contributes, schedule.reduces) for schedule in schedules}) != 1:
        raise ValueError("one rank cannot be a worker in one schedule and not in another")
    return replace(schedules[0], rounds=tuple(rounds))
