"""Choices by buffer size: `tree:64K:ring` and `hybrid`."""

import json
from fractions import Fraction

import pytest
from click.testing import CliRunner

from commbench.cli.verify import command
from commbench.errors import UserError
from commbench.groups import Groups
from commbench.plans import make_all, prove_all
from commbench.proof import prove
from commbench.registry import admitted, parse_exchange, parse_exchanges
from commbench.topologies.hybrid import choose, crossover_bytes
from commbench.units import Bytes

LADDER = "tree:64K:halving-doubling:1M:ring"


@pytest.mark.parametrize(
    ("text", "value", "again"),
    [
        ("0", 0, "0"),
        ("4096", 4096, "4K"),
        ("1.5M", 3 << 19, "1536K"),
        ("2g", 2 << 30, "2G"),
        ("1023", 1023, "1023"),
        ("8KiB", 8192, "8K"),
    ],
)
def test_bytes_are_read_and_written(text: str, value: int, again: str) -> None:
    size = Bytes(text)
    assert (size, str(size), f"{size}", f"{size:,}") == (value, again, again, f"{value:,}")
    assert Bytes(str(size)) == size


def test_thresholds_are_inclusive() -> None:
    choice = parse_exchange(LADDER)
    sizes = [0, 65535, 65536, 65537, 1 << 20, (1 << 20) + 1, 1 << 40]
    assert [choice.for_bytes(size, 8).spec for size in sizes] == [
        *["tree"] * 3,
        *["halving-doubling"] * 2,
        *["ring"] * 2,
    ]
    assert [part.spec for part in choice.parts(8)] == ["tree", "halving-doubling", "ring"]


def test_a_plain_choice_is_its_own() -> None:
    tree = parse_exchange("tree@segments=2")
    assert tree.plain
    assert tree.for_bytes(10, 4) is tree
    assert tree.parts(4) == [tree]


@pytest.mark.parametrize(
    ("given", "spec"),
    [
        (LADDER, LADDER),
        ("tree:65536:ring", "tree:64K:ring"),
        ("tree@segments=2:1000:ring@segments=4", "tree@segments=2:1000:ring@segments=4"),
        ("hybrid@threshold=1048576@group=4", "hybrid@threshold=1M@group=4"),
        ("tree:4K:hybrid@group=2", "tree:4K:hybrid@group=2"),
    ],
)
def test_the_spec_reads_back(given: str, spec: str) -> None:
    choice = parse_exchange(given)
    assert choice.spec == spec
    assert parse_exchange(choice.spec) == choice


def test_an_option_goes_to_the_parts_that_take_it() -> None:
    choice = parse_exchange("tree:1K:hierarchical:1M:ring@segments=3", {"segments": "2"})
    assert choice.spec == "tree@segments=2:1K:hierarchical:1M:ring@segments=3"
    (listed, plain) = parse_exchanges("tree:1K:hierarchical,ring", {"group": "2"})
    assert (listed.spec, plain.spec) == ("tree:1K:hierarchical@group=2", "ring")


@pytest.mark.parametrize(
    ("spec", "options", "told"),
    [
        ("tree:64K", {}, "write NAME:SIZE:NAME"),
        ("tree:64K:", {}, "write NAME:SIZE:NAME"),
        ("tree:big:ring", {}, "'big' is not a size such as"),
        ("tree:1M:ring:64K:native", {}, "the sizes must increase, not 1M then 64K"),
        ("tree:64K:ring:65536:native", {}, "the sizes must increase, not 64K then 64K"),
        ("tree:64K:rign", {}, "no exchange 'rign'"),
        ("tree:64K:ring", {"server": "dedicated"}, "tree, ring has an option server"),
        ("tree:64K:ring@x=1", {}, "exchange ring has no option x"),
        ("hybrid@threshold=much", {}, "threshold=much: 'much' is not a size"),
    ],
)
def test_bad_choices_are_told(spec: str, options: dict[str, str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse_exchange(spec, options)


def test_all_parts_must_have_the_same_workers() -> None:
    mixed = parse_exchange("tree:64K:parameter-server@server=dedicated")
    with pytest.raises(UserError, match="do not have the same workers"):
        make_all([mixed], 4)
    assert parse_exchange("tree:64K:parameter-server").workers(3) == [0, 1, 2]


def test_every_part_is_planned_and_proved() -> None:
    plans = make_all(parse_exchanges("ring,tree:64K:halving-doubling:1M:ring"), 4)
    assert list(plans) == ["ring", "tree", "halving-doubling"]
    prove_all(plans)
    with pytest.raises(UserError, match=r"exchange tree is wrong on 4 ranks: "):
        prove_all({**plans, "tree": [*plans["tree"][:3], plans["ring"][3]]})


def test_a_part_that_does_not_fit_leaves_all_of_it_out() -> None:
    choices = parse_exchanges(f"ring,{LADDER}")
    assert admitted(choices, 8) == (choices, [])
    fit, reasons = admitted(choices, 6)
    assert fit == choices[:1]
    assert "powers of two" in reasons[0]


def test_the_crossover_is_five_hundred_alpha_over_beta() -> None:
    # 1860 rounds saved, 3.72 buffers more: by hand from the terms of the two costs.
    more = Fraction(15, 4) + Fraction(2 * 63, 64) - Fraction(2 * 1023, 1024)
    exact = Fraction(1860) / more
    assert float(exact) == pytest.approx(500, rel=1e-3)
    assert crossover_bytes(1024, 16, 64, alpha_us=1, beta_gb_s=1) == int(exact * 1000)
    assert crossover_bytes(1024, 16, 64, alpha_us=5, beta_gb_s=6) == pytest.approx(15e6, rel=1e-3)
    assert crossover_bytes(1024, 16, 64, alpha_us=5, beta_gb_s=12.5) == pytest.approx(
        31.2e6, rel=2e-3
    )


def test_hybrid_is_hierarchical_below_and_ring_above() -> None:
    hybrid = parse_exchange("hybrid@threshold=1M@group=4")
    assert hybrid.for_bytes(1 << 20, 8).spec == "hierarchical@group=4"
    assert hybrid.for_bytes((1 << 20) + 1, 8).spec == "ring"
    jia = parse_exchange("hybrid@group=16")
    # AlexNet's fc7 and ResNet-50's largest tensor, both of 16-bit elements.
    assert jia.for_bytes(34_000_000, 1024).spec == "ring"
    assert jia.for_bytes(4_700_000, 1024).spec == "hierarchical@group=16"
    slower = parse_exchange("hybrid@group=16@alpha_us=50")
    assert slower.for_bytes(34_000_000, 1024).spec == "hierarchical@group=16"


def test_hybrid_by_node() -> None:
    hybrid = parse_exchange("tree:1K:hybrid@group=node@threshold=1M")
    block, dealt = (hybrid.placed(nodes) for nodes in ([0] * 4 + [4] * 4, [0, 1] * 4))
    assert block.for_bytes(5000, 8).spec == "hierarchical@group=4"
    assert dealt.spec == "tree:1K:hybrid@group=0+2+4+6/1+3+5+7@threshold=1M"
    assert dealt.for_bytes(5000, 8).spec == "hierarchical@group=0+2+4+6/1+3+5+7"
    for part in dealt.parts(8):
        prove(part.schedules(8))
    # The crossover is that of the largest group and the number of groups.
    uneven = Groups("0-3/4-9/10-13/14-17/18-21/22-25/26-29")
    limit = crossover_bytes(30, 6, 7, alpha_us=5, beta_gb_s=6)
    assert choose(30, group=uneven) == f"hierarchical@group={uneven}:{Bytes(limit)}:ring"


def test_hybrid_is_only_a_ring_where_groups_save_no_round() -> None:
    for size in (1, 2, 3, 4):
        assert choose(size) == "ring"
    assert choose(8, group=Groups(1)) == "ring"
    assert choose(8, group=Groups(8)) == "ring"


def test_hybrid_is_right_at_every_size() -> None:
    for size in (*range(1, 18), 24, 33, 64):
        for part in parse_exchange("hybrid").parts(size):
            assert prove(part.schedules(size)).closed_form() == part.closed_form(size)


@pytest.mark.parametrize("option", ["alpha_us=0", "beta_gb_s=-1", "alpha_us=nan", "group=node"])
def test_an_impossible_hybrid_is_told(option: str) -> None:
    with pytest.raises(UserError, match=r"hybrid.* on 8 ranks: .*give"):
        parse_exchange(f"hybrid@{option}").parts(8)


def test_verify_counts_the_part_that_sums_this_buffer() -> None:
    arguments = ["--exchange", "tree:64K:ring", "--ranks", "4", "--json", "--count"]
    rounds = {}
    for count in (16384, 16385):
        result = CliRunner().invoke(command, [*arguments, str(count)])
        assert result.exit_code == 0
        (verdict,) = json.loads(result.output)
        assert verdict["exchange"] == "tree:64K:ring"
        rounds[count] = (verdict["counted"]["rounds"], verdict["note"])
    assert rounds == {16384: (4, "tree sums 65,536 bytes"), 16385: (6, "ring sums 65,540 bytes")}
