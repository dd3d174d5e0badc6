"""What the model says beside what was measured."""

from typing import Any

import pytest

from commbench.errors import UserError
from commbench.network.cluster import load_cluster
from commbench.network.cost import price
from commbench.network.predicted import (
    cluster_of,
    predict_step,
    row_seconds,
    sweep_lines,
)
from commbench.sweep_table import Row

GIGABIT = load_cluster("ethernet-1g")
OPTIONS = {
    "model": "nin",
    "classes": 10,
    "image_size": 48,
    "width": 0.5,
    "fusion_bytes": "4M",
    "fusion_split": "",
    "overlap": True,
}


def row(exchange: str, size: int, median_us: float) -> Row:
    times = dict.fromkeys(("min", "median", "p99", "max"), median_us)
    return Row(exchange, "mpi", size, size // 4, "float32", times, 1, 1, 1, 1, 1, None)


def run(**options: Any) -> dict[str, Any]:
    return {
        "phases_s": {"forward": 0.04, "backward": 0.06, "exchange": 0.03},
        "ranks": 4,
        "buckets": [
            {"bytes": 4_612_136, "algorithm": "ring"},
            {"bytes": 2_017_664, "algorithm": "tree"},
        ],
        "options": {**OPTIONS, **options},
    }


def test_rows_and_their_prices() -> None:
    rows = [row("ring", 65536, 2000.0), row("native", 65536, 1000.0), row("none", 65536, 1.0)]
    seconds = row_seconds(rows, 4, GIGABIT)
    assert seconds == [price("ring", 4, 65536, GIGABIT).seconds, None, 0.0]
    lines = [line.split() for line in sweep_lines(rows, 4, GIGABIT)]
    assert lines[0] == ["#", "predicted", "on", "ethernet-1g"]
    # 6 messages of 50 us and a quarter of 65,536 bytes at 125 MB/s each, and three additions.
    assert lines[2] == ["65536", "ring", "1096.3", "2000.0", "+82.4%"]
    assert lines[3] == ["65536", "native", "N/A", "1000.0", "N/A"]
    assert lines[4][2] == "N/A"


def test_a_step_is_put_together_from_the_runs_own_numbers() -> None:
    told = predict_step(run(), GIGABIT)
    first, second = (
        price(one["algorithm"], 4, one["bytes"], GIGABIT).seconds for one in run()["buckets"]
    )
    assert told.exchange_s == pytest.approx(first + second)
    assert told.compute_s == 0.1
    # The first bucket, of the last layers, is ready within backward; the second at its end.
    assert told.seconds < 0.1 + first + second
    bare = predict_step(run(overlap=False), GIGABIT)
    assert bare.seconds == pytest.approx(0.1 + first + second)


def test_buckets_that_are_not_the_models_are_ready_last() -> None:
    told = predict_step(run(fusion_bytes="all"), GIGABIT)
    assert told.seconds == pytest.approx(0.1 + told.exchange_s)


def test_what_has_no_price_is_told() -> None:
    without = {**run(), "buckets": []}
    with pytest.raises(UserError, match="no buckets"):
        predict_step(without, GIGABIT)
    library = {**run(), "buckets": [{"bytes": 4, "algorithm": "native"}]}
    with pytest.raises(UserError, match="leaves its work"):
        predict_step(library, GIGABIT)


def test_the_cluster_of_an_option() -> None:
    assert cluster_of(None, 4) is None
    assert cluster_of("ethernet-1g", 4) == GIGABIT
    with pytest.raises(UserError, match="cannot hold 200"):
        cluster_of("fat-tree", 200)
