"""`commbench advise`: which exchange wins, and why."""

import json

import pytest
from click.testing import CliRunner

from commbench.cli.advise import command
from commbench.errors import UserError
from commbench.network.advice import Training, advise, candidates
from commbench.network.cluster import load_cluster
from commbench.network.cost import price
from commbench.network.iteration import Compute, Load

NIN = ["--model", "nin", "--cluster", "ethernet-1g", "--ranks", "8", "--images-per-s", "100"]


def run(*arguments: str) -> str:
    return CliRunner().invoke(command, arguments, catch_exceptions=False).stdout


def test_one_line_says_which_and_why() -> None:
    text = run(*NIN, "--exchange", "parameter-server,ring", "--fusion-bytes", "all")
    assert text.startswith("ring --fusion-bytes all: ")
    assert text.count("\n") == 1
    # 14 messages of an eighth each; everything behind the one bucket, which is ready last.
    assert "14 messages and 1.75 x the gradient one after another" in text
    assert "0% hidden behind backward; parameter-server, the next: 14 messages and 14 x" in text


def test_the_numbers_are_those_of_the_prices() -> None:
    options = ["--exchange", "ring,tree", "--fusion-bytes", "all", "--no-overlap", "--json"]
    told = json.loads(run(*NIN, *options))
    assert told["gradient_bytes"] == 4 * 7_595_176
    cluster = load_cluster("ethernet-1g")
    for option in told["options"]:
        expected = 0.32 + price(option["exchange"], 8, 4 * 7_595_176, cluster).seconds
        assert option["seconds"] == pytest.approx(expected)
        assert option["efficiency"] == pytest.approx(0.32 / expected)
    assert told["best"] == "ring"


def test_half_the_bytes_are_half_the_exchange() -> None:
    options = ["--exchange", "ring", "--fusion-bytes", "all", "--json"]
    whole, half = (
        json.loads(run(*NIN, *options, "--wire", wire))["options"][0]["exposed_s"]
        for wire in ("float32", "float16")
    )
    assert half == pytest.approx(whole / 2, rel=0.02)


def test_all_exchanges_are_told_and_those_that_cannot_run() -> None:
    text = run(*NIN[:-4], "--ranks", "6", "--images-per-s", "100", "-v")
    assert "left out: --exchange halving-doubling on 6 ranks" in text
    assert all(name in text for name in ("double-tree", "parameter-server", "hierarchical"))
    assert "native" not in text


def test_nodes_bring_exchanges_of_their_own() -> None:
    big_basin = load_cluster("big-basin")
    assert any("group=node" in one for one in candidates(16, big_basin))
    assert not any("group=node" in one for one in candidates(8, big_basin))
    training = Training(32, big_basin, Compute.of(0.01), {"all": [Load(1e8, 1.0)]})
    advice = advise(["ring", "hierarchical@group=node", "hierarchical@group=8"], training)
    # Four servers of eight: one thing by two names.
    assert len(advice.options) == 2


def test_what_is_as_good_is_told() -> None:
    training = Training(
        8, load_cluster("ethernet-10g"), Compute.of(10.0), {"none": [Load(1e3, 0.1)]}
    )
    advice = advise(["ring", "tree", "double-tree", "sharded-server", "torus"], training)
    assert "100% hidden behind backward; as good within 1 %: " in advice.reason
    assert advice.reason.endswith(" and 1 more")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model", "nine"], "unknown model 'nine'"),
        (["--cluster", "titan"], "unknown cluster 'titan'"),
        (["--ranks", "129", "--cluster", "fat-tree"], "cannot hold 129"),
        (["--exchange", "native"], "leaves its work to the MPI library"),
        (["--exchange", "rings"], "no exchange 'rings'"),
        (["--fusion-bytes", "much"], "give a size such as 16M"),
    ],
)
def test_bad_requests_are_one_line(arguments: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        run(*NIN, *arguments)


def test_a_rate_is_needed() -> None:
    with pytest.raises(UserError, match="give --images-per-s"):
        run(*NIN[:-2])
