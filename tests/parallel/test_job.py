from collections.abc import Iterator

import numpy as np
import pytest
from mpi4py import MPI

from commbench.clocks import clock_offset
from commbench.errors import UserError
from commbench.job import Job
from commbench.telemetry import PHASES, Telemetry, Took


@pytest.fixture(scope="module")
def job() -> Iterator[Job]:
    job = Job(MPI.COMM_WORLD.Dup(), timeout_s=60)
    yield job
    job.close()


def test_collectives(job: Job) -> None:
    mine = np.array([job.rank, 10 * job.rank])
    everyone = np.array([[rank, 10 * rank] for rank in range(job.size)])
    np.testing.assert_array_equal(job.all_gather(mine), everyone)
    np.testing.assert_array_equal(job.all_sum(mine), everyone.sum(axis=0))
    gathered = job.gather(mine)
    if job.rank == 0:
        np.testing.assert_array_equal(gathered, everyone)
    else:
        assert gathered is None
    job.broadcast(mine)
    np.testing.assert_array_equal(mine, [0, 0])
    assert job.all_gather_text(f"rank {job.rank}") == [f"rank {r}" for r in range(job.size)]


def test_an_error_on_one_rank_is_raised_on_all(job: Job) -> None:
    last = job.size - 1

    def fails_on_last() -> int:
        if job.rank == last:
            raise UserError(f"told by rank {job.rank}")
        return job.rank

    with pytest.raises(UserError, match=f"told by rank {last}"):
        job.agree(fails_on_last)
    assert job.agree(lambda: job.rank) == job.rank


def test_rank_0_decides(job: Job) -> None:
    assert job.on_root(lambda: {"rank": job.rank}) == {"rank": 0}

    def fails() -> None:
        raise UserError("no such file")

    with pytest.raises(UserError, match="no such file"):
        job.on_root(fails)


def test_rank_0_keeps_what_cannot_travel(job: Job) -> None:
    kept = job.keep_on_root(lambda: lambda: "no pickle of this")
    assert (kept is not None) == (job.rank == 0)
    assert kept is None or kept() == "no pickle of this"

    def fails() -> None:
        raise UserError("no such folder")

    with pytest.raises(UserError, match="no such folder"):
        job.keep_on_root(fails)


def test_telemetry_brings_every_row_to_rank_0_in_order(job: Job) -> None:
    rows: list[tuple[int, int, Took]] = []

    def took(rank: int, step: int) -> Took:
        return Took(
            100.0 * rank + step, np.arange(len(PHASES)) + 0.5 * step, step / 2, step / 4, 7.0
        )

    telemetry = Telemetry(job, lambda *row: rows.append(row))
    steps = 50
    for step in range(steps):
        telemetry.add(step, took(job.rank, step))
    telemetry.close()
    if job.rank:
        assert rows == []
        return
    for rank in range(job.size):
        own = [(step, row) for source, step, row in rows if source == rank]
        assert [step for step, _ in own] == list(range(steps))
        assert all(repr(row) == repr(took(rank, step)) for step, row in own)


def test_rank_0_waits_for_no_rows_and_keeps_their_order(job: Job) -> None:
    """Their sender may be waiting for rank 0, in an exchange that does not move its message."""

    class Request:
        done = True

        def Test(self) -> bool:  # noqa: N802, MPI names it so
            return self.done

    def block(*steps: int) -> np.ndarray:
        return np.concatenate([one.row(step) for step in steps])

    rows: list[tuple[int, int]] = []
    telemetry = Telemetry(job, lambda rank, step, took: rows.append((rank, step)))
    one = Took(0.0, np.zeros(len(PHASES)), 0.0, 0.0, 0.0)
    late = Request()
    late.done = False
    telemetry._coming = [
        (1, late, block(0, 1)),
        (1, Request(), block(2)),
        (2, Request(), block(0)),
    ]
    telemetry._collect()
    assert rows == [(2, 0)]
    late.done = True
    telemetry._collect()
    assert rows == [(2, 0), (1, 0), (1, 1), (1, 2)]


def test_ranks_of_one_node_have_one_clock(job: Job) -> None:
    assert clock_offset(job) == 0
