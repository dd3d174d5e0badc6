"""Small run files for the tests of commbench.record."""

import os
from pathlib import Path

import numpy as np

import commbench
from commbench.emulation.layout import Layout
from commbench.emulation.settings import Timing, emulation_group
from commbench.network.simgrid_file import simulation_group
from commbench.record import (
    Bucket,
    Group,
    RunFile,
    staleness_group,
    sweep_groups,
    training_groups,
)
from commbench.transport.link import Rate

README = Path(commbench.__file__).parent.parent / "results" / "README.md"
PHASES = ["forward", "backward", "exchange"]
STEPS, RANKS, EVALUATIONS = 5, 3, 2


def training(steps: int = STEPS) -> list[Group]:
    buckets = [
        Bucket(4000, "ring", [4, 4, 4], [4, 4, 4], [5332, 5332, 5336], [5336, 5332, 5332], 5333.0),
        Bucket(800, "native"),
    ]
    groups = training_groups(
        steps=steps, ranks=RANKS, phases=PHASES, evaluations=EVALUATIONS, buckets=buckets
    )
    return [*groups, staleness_group(servers=[0], workers=[1, 2], bins=4)]


def sweep() -> list[Group]:
    return sweep_groups(
        sizes_bytes=[1024, 65536],
        exchanges=["ring", "tree"],
        iterations=4,
        ranks=RANKS,
        hottest_rank_bytes=[[2732, 4096], [174764, 262144]],
    )


def emulation() -> list[Group]:
    timing = Timing(
        layout=Layout(RANKS, Rate("100mbit")),
        exchanges=["ring"],
        ranks=[2, RANKS],
        nbytes=12,
        iterations=2,
        row_seconds=1.0,
        timeout_s=60.0,
        output=None,
        results=Path("results"),
        command_line=[],
    )
    received = [[12.0, 12.0, 0.0], [16.0, 16.0, 16.0]]
    return [emulation_group(timing, theory_s=[[0.1, 0.2]], received_bytes=[received])]


def simulation() -> list[Group]:
    return [simulation_group(["ring", "tree"], [64, 256])]


def pipeline() -> list[Group]:
    # They load torch, which the processes of the crash tests have no use for.
    from commbench.pipeline.measure import pipeline_group
    from commbench.pipeline.stages import Stage

    stages = [Stage("read", 0, lambda: (0, 0)), Stage("train", 8, lambda: (0, 0))]
    return [pipeline_group(stages)]


def create(path: Path, groups: list[Group] | None = None, **more: object) -> RunFile:
    settings = {
        "kind": "train",
        "options": {
            "lr": 0.1,
            "batch": 64,
            "preset": None,
            "overlap": True,
            "folder": Path("data"),
        },
        "seed": 7,
        "hosts": ["a", "a", "b"],
        "devices": ["cpu"] * RANKS,
        "attributes": {"model": "nin", "parameters": 1000, "exchange": "ring", "ranks": RANKS},
        **more,
    }
    return RunFile.create(path, groups=groups or training(), **settings)


def fill_steps(run: RunFile, count: int) -> None:
    for i in range(count):
        run["steps/epoch"][i] = (i + 1) / 10
        run["steps/lr"][i] = 0.1
        run["steps/loss"][i] = 2.0 - i / 4
        run["steps/images_per_s"][i] = 100.0 + i
        run["timing/seconds"][i] = (i + 1) * np.arange(1, 10).reshape(RANKS, len(PHASES))


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))
