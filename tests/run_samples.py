"""Run files of sweeps and trainings with numbers as they come from real ones, for the tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from commbench.record import Bucket, RunFile, sweep_groups, training_groups

PHASES = ["input", "forward", "backward", "exchange", "update"]
MACHINE = {"cpu_model": "a processor", "cpu_count": 8, "mpi_library": "MPICH 5.0.2"}


def sweep_file(
    path: Path,
    exchanges: Mapping[str, float],
    *,
    ranks: int = 4,
    sizes: Sequence[int] = (4096, 1 << 20),
    iterations: int = 20,
    seed: int = 0,
    **changes: object,
) -> Path:
    """A sweep whose exchanges take so many ns a byte, times drift that their turns share."""
    options = {"exchanges": list(exchanges), "warmup": 5, "wire": "float32"}
    root = {"ranks": ranks, "transport": "mpi", "dtype": "float32", **changes}
    run = RunFile.create(
        path,
        kind="sweep",
        options={name: root.pop(name, value) for name, value in options.items()},
        seed=0,
        hosts=["a"] * ranks,
        devices=["cpu"] * ranks,
        attributes={**MACHINE, **root},
        groups=sweep_groups(
            sizes_bytes=sizes,
            exchanges=list(exchanges),
            iterations=iterations,
            ranks=ranks,
            hottest_rank_bytes=[[2 * size] * len(exchanges) for size in sizes],
            bound_bytes=[[1.5 * size] * len(exchanges) for size in sizes],
        ),
    )
    random = np.random.default_rng(seed)
    for row, size in enumerate(sizes):
        drift = random.uniform(0.5, 2.0, iterations)
        for column, speed in enumerate(exchanges.values()):
            slowest = 1e-9 * size * speed * drift * random.uniform(0.99, 1.01, iterations)
            run["sweep/seconds"][row, column] = slowest[:, None] * np.linspace(0.5, 1, ranks)
    run["sweep/wrong"][:] = 0
    _finish(run)
    return path


def training_file(
    path: Path,
    exchange: str,
    *,
    exchange_s: float = 0.01,
    top1: Sequence[float] = (0.5, 0.7),
    ranks: int = 4,
    steps: int = 40,
    **changes: object,
) -> Path:
    """A training with an exposed exchange of `exchange_s`; 50 ms of every step are other phases.

    `changes` are options or root attributes, as they are called.
    """
    options = {"exchange": exchange, "lr": 0.01, "image_size": 48, "wire": "float32"}
    attributes = {
        **MACHINE,
        "model": "nin",
        "data": "fashion-mnist-subset",
        "global_batch": 32,
        "exchange": exchange,
        "ranks": ranks,
        "test_images": 2000,
        "gradient_bytes": 4800,
        "headroom_rungs": ["no exchange", "perfect overlap", "last bucket exposed", "measured"],
        "headroom_s": [0.05, 0.05, 0.052, 0.05 + exchange_s],
        "waiting_s": 0.001,
        "slowest_rank": 2,
        "slowest_rank_share": 0.4,
    }
    given = {**options, **attributes, **changes}
    buckets = [Bucket(4000, exchange, *[[4] * ranks] * 2, *[[6000] * ranks] * 2, 6000.0)]
    run = RunFile.create(
        path,
        kind="train",
        options={name: given[name] for name in options},
        seed=1,
        hosts=["a"] * ranks,
        devices=["cpu"] * ranks,
        attributes={name: value for name, value in given.items() if name != "lr"},
        groups=training_groups(
            steps=steps, ranks=ranks, phases=PHASES, evaluations=len(top1), buckets=buckets
        ),
    )
    noise = np.random.default_rng(0).uniform(0.9, 1.1, steps)
    noise[0] = 30  # the first step pays for memory
    phases = np.array([0.002, 0.016, 0.03, exchange_s, 0.002])
    run["timing/seconds"][:] = noise[:, None, None] * phases
    run["steps/batch"][:] = 32
    run["steps/images_per_s"][:] = 32 / (noise * phases.sum())
    run["steps/epoch"][:] = np.arange(1, steps + 1) / steps * len(top1)
    for index, value in enumerate(top1):
        run["eval/step"][index] = (index + 1) * steps / len(top1)
        run["eval/epoch"][index] = index + 1
        run["eval/time_s"][index] = 10.0 * (index + 1) * (0.05 + exchange_s)
        run["eval/top1"][index], run["eval/top5"][index] = value, min(1.0, value + 0.2)
        run["eval/loss"][index] = 2 - value
    _finish(run)
    return path


def _finish(run: RunFile) -> None:
    """With a machine that is the same wherever the tests run."""
    run.finish(**MACHINE)
