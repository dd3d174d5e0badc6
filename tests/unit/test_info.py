"""`commbench info`, and the facts about the environment that it and the run file tell."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import commbench
from commbench import environment
from commbench.cli.info import command
from commbench.errors import UserError
from commbench.record import Bucket, RunFile, sweep_groups, training_groups


def started(path: Path, *, kind: str = "train") -> RunFile:
    groups = {
        "train": training_groups(
            steps=4,
            ranks=2,
            phases=["forward", "exchange"],
            evaluations=1,
            buckets=[
                Bucket(4096, "tree", [1, 1], [1, 1], [4096, 4096], [4096, 4096], 4096.0),
                Bucket(512, "native", bound_bytes=512.0),
            ],
        ),
        "sweep": sweep_groups(
            sizes_bytes=[1024, 4096],
            exchanges=["ring", "parameter-server"],
            iterations=3,
            ranks=2,
            hottest_rank_bytes=[[2048, 4096], [8192, 16384]],
        ),
    }
    return RunFile.create(
        path,
        kind=kind,
        options={"lr": 0.05},
        seed=3,
        hosts=["a", "a"],
        devices=["cpu", "cpu"],
        groups=groups[kind],
        attributes={"model": "nin", "parameters": 966_986, "exchange": "ring", "ranks": 2},
    )


def trained(path: Path) -> RunFile:
    run = started(path)
    for i in range(2):
        run["steps/loss"][i] = 2.5 - i
        run["steps/images_per_s"][i] = 640.0
        run["timing/seconds"][i] = [[0.25, 0.125], [0.25, 0.125]]
    run["eval/top1"][0] = 0.875
    return run


def info(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_json_of_a_completed_run_is_one_object(tmp_path: Path) -> None:
    trained(tmp_path / "run.h5").finish(top1=0.9)
    told = json.loads(info(str(tmp_path / "run.h5"), "--json"))
    expected = {
        "model": "nin",
        "parameters": 966_986,
        "exchange": "ring",
        "ranks": 2,
        "status": "completed",
        "top1": 0.9,
        "top5": None,
        "steps": 4,
        "steps_recorded": 2,
        "loss_last": 1.5,
        "options": {"lr": 0.05},
        "phases_s": {"forward": 0.25, "exchange": 0.125},
    }
    assert {key: told[key] for key in expected} == expected


def test_tables_of_a_killed_run(tmp_path: Path) -> None:
    trained(tmp_path / "run.h5")
    lines = [" ".join(line.split()) for line in info(str(tmp_path / "run.h5")).splitlines()]
    assert "status running, or killed: 2 of 4 steps recorded" in lines
    assert "parameters 966986" in lines
    assert "images_per_s 640" in lines
    assert "top1 0.875" in lines
    assert "forward 250.000 ms" in lines
    assert "lr 0.05" in lines
    assert "tree 4096 2 0 4096 100.0 %" in lines
    assert "native 512 - - - -" in lines


def test_tables_of_a_run_killed_before_its_first_step(tmp_path: Path) -> None:
    started(tmp_path / "run.h5")
    lines = [" ".join(line.split()) for line in info(str(tmp_path / "run.h5")).splitlines()]
    assert "status running, or killed: 0 of 4 steps recorded" in lines
    assert "forward -" in lines


def test_table_of_a_sweep_has_a_row_an_exchange_and_size(tmp_path: Path) -> None:
    run = started(tmp_path / "run.h5", kind="sweep")
    run["sweep/seconds"][:] = np.array([0.5, 1.5, 1.0])[:, None] * [0.5, 1.0]
    run["sweep/wrong"][:] = 0
    run.finish()
    rows = [line.split() for line in info(str(tmp_path / "run.h5")).splitlines()]
    assert ["parameter-server", "4096", "1000.000", "ms", "3", "16384", "0"] in rows
    assert sum(row[0] in ("ring", "parameter-server") for row in rows if row) == 4


def test_a_file_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        info(str(tmp_path / "run.h5"))


def test_without_a_file_it_tells_the_installation_and_starts_no_mpi() -> None:
    code = """
import sys
from commbench.cli.info import command
assert not {"h5py", "mpi4py", "numpy", "rich", "torch"} & set(sys.modules), "slow --help"
command(sys.argv[1:], standalone_mode=False)
from mpi4py import MPI
assert not MPI.Is_initialized()
"""

    def told(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout

    installation = json.loads(told("--json"))
    assert installation["versions"]["commbench"] == commbench.__version__
    assert installation["mpi_library"].split()[-1][0].isdigit()
    assert {"none", "native", "ring", "tree"} <= set(installation["exchanges"])
    assert "mpi" in installation["transports"]
    assert installation["mpi_library"] in told()


def test_models_are_listed_with_their_costs() -> None:
    models = {told["model"]: told for told in json.loads(info("--models", "--json"))}
    assert models["nin"] == {
        "model": "nin",
        "takes": "images",
        "shape": [3, 224, 224],
        "parameters": 7_595_176,
        "tensors": 24,
        "macs": 1_100_188_800,
        "inputs": 1_414_240,
    }
    assert models["lstm-ptb@size=medium"]["shape"] == [35]
    rows = [line.split() for line in info("--models").splitlines()]
    row = ["alexnet", "images", "3x227x227", "62,378,344", "16", "1,135,256,096", "415,035"]
    assert row in rows
    with pytest.raises(UserError, match=r"drop run\.h5, or drop --models"):
        info("run.h5", "--models")


def test_versions_are_those_installed() -> None:
    found = environment.versions()
    assert found["numpy"] == np.__version__
    assert found["commbench"] == commbench.__version__
    assert found["python"] == sys.version.split()[0]
    assert "mpi4py" in found


def test_the_git_revision_is_that_of_the_checkout_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "outer" / "tree" / "commbench"
    package.mkdir(parents=True)
    source = package / "__init__.py"
    source.write_text("x = 1\n")
    monkeypatch.setattr(commbench, "__file__", str(source))

    def git(*arguments: str, folder: Path) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        return subprocess.run(
            ["git", "-C", str(folder), *identity, *arguments],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    git("init", folder=tmp_path / "outer")
    git("add", ".", folder=tmp_path / "outer")
    git("commit", "-m", "someone else's", folder=tmp_path / "outer")
    assert environment.git_revision() is None
    tree = package.parent
    git("init", folder=tree)
    assert environment.git_revision() is None  # no commit yet
    git("add", ".", folder=tree)
    git("commit", "-m", "ours", folder=tree)
    commit = git("rev-parse", "HEAD", folder=tree)
    assert environment.git_revision() == commit
    source.write_text("x = 2\n")
    assert environment.git_revision() == f"{commit}-dirty"
    monkeypatch.setenv("PATH", "")
    assert environment.git_revision() is None


def test_only_variables_that_matter_are_kept() -> None:
    kept = {"UCX_TLS": "tcp", "OMPI_MCA_btl": "self", "OMP_NUM_THREADS": "2", "FI_PROVIDER": "tcp"}
    assert environment.variables({**kept, "HOME": "/root", "API_TOKEN": "secret"}) == kept


@pytest.mark.parametrize("error", [ImportError, RuntimeError, None])
def test_devices_are_those_cupy_sees(
    error: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count() -> int:
        if error is not None:
            raise error("no driver")
        return 2

    runtime = types.SimpleNamespace(
        getDeviceCount=count, getDeviceProperties=lambda i: {"name": f"GPU {i}".encode()}
    )
    for name, attributes in (("cupy", {}), ("cupy.cuda", {"runtime": runtime})):
        module = types.ModuleType(name)
        module.__dict__.update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    assert environment.devices() == ([] if error else ["GPU 0", "GPU 1"])


def test_the_processor_is_told() -> None:
    assert environment.cpu_model()
    assert environment.cpu_count() == len(os.sched_getaffinity(0))
    assert environment.facts()["cpu_count"] == environment.cpu_count()
