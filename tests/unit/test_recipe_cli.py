"""`commbench recipe` as a user types it."""

import json

import pytest
from click.testing import CliRunner

from commbench.cli import commands
from commbench.errors import UserError
from commbench.workloads.recipes import recipe_names


def run(*args):
    result = CliRunner().invoke(commands, ["recipe", *args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("args", [(), ("list",)])
def test_the_list(args):
    lines = run(*args).splitlines()
    assert [line.split()[0] for line in lines] == recipe_names()
    assert list(json.loads(run(*args, "--json"))) == recipe_names()


def test_numbers_at_a_batch():
    told = json.loads(run("goyal-resnet50", "--batch-size", "8192", "--json"))
    assert (told["peak_lr"], told["steps"], told["warmup_steps"]) == (3.2, 14_040, 780)
    assert told["decays"] == "weights, biases"
    after = told["moments"][1]
    assert after == {"what": "after warmup", "step": 780, "epoch": 5.0, "lr": 3.2, "batch": 8192}
    text = run("goyal-resnet50", "--batch-size", "8192")
    assert "after warmup" in text
    assert "0.0032" in text


def test_a_run_of_ones_own():
    told = json.loads(
        run("smith-resnet50", "--batch", "100", "--epochs", "9", "--images", "1000", "--json")
    )
    assert told["steps"] == 3 * 10 + 6 * 5
    assert [moment["batch"] for moment in told["moments"]][-1] == 200


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_prints(name):
    assert run(name).split()[1] == name


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_figure(tmp_path, suffix):
    path = tmp_path / f"lr.{suffix}"
    run("smith-resnet50", "--plot", str(path))
    assert path.stat().st_size > 5000
    if suffix == "svg":
        words = path.read_text()
        assert all(word in words for word in ("learning rate", "global batch", "momentum"))


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["goyal"], "unknown recipe 'goyal': choose from akiba-resnet50-32k"),
        (["list", "--batch", "3"], "name a recipe"),
        (["goyal-resnet50", "--plot", "lr.pdf"], "--plot lr.pdf: a figure's name ends in .png"),
        (["goyal-resnet50", "--plot", "/nowhere/lr.png"], "there is no folder /nowhere"),
        (["goyal-resnet50", "--batch", "9", "--images", "8"], "exceeds the 8"),
    ],
)
def test_bad_input(args, told):
    result = CliRunner().invoke(commands, ["recipe", *args])
    assert isinstance(result.exception, UserError)
    assert told in str(result.exception)
