"""Emulated clusters, as far as it needs no privileges: layouts, theory, labels, refusals."""

import dataclasses
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from commbench.cli import commands
from commbench.emulation import machine
from commbench.emulation.launch import command
from commbench.emulation.layout import Layout, address, hardware_address
from commbench.emulation.rows import Row, fit
from commbench.emulation.settings import Timing
from commbench.emulation.theory import theory
from commbench.errors import UserError
from commbench.registry import parse_exchange
from commbench.transport.link import Link, Rate

FAST = Layout(8, Rate("100mbit"))


@pytest.mark.parametrize(
    ("text", "bits", "shown"),
    [
        ("100mbit", 10**8, "100mbit"),
        ("2.5GBIT", 2_500_000_000, "2500mbit"),
        ("1000kbit", 10**6, "1mbit"),
        ("12345bit", 12345, "12345bit"),
    ],
)
def test_rates_are_read_and_written(text: str, bits: int, shown: str) -> None:
    assert (Rate(text), str(Rate(text)), Rate(shown)) == (bits, shown, bits)


@pytest.mark.parametrize("text", ["100", "mbit", "0mbit", "-1mbit", "100mbps", "1 gbit/s", ""])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a speed such as 100mbit"):
        Rate(text)


def test_links_are_read() -> None:
    assert Link.parse("1gbit") == Link(Rate("1gbit"), 0.0)
    assert Link.parse("100mbit, 2ms") == Link(Rate("100mbit"), 0.002)
    for text, why in (("100mbit,", "not a time"), ("100mbit,5", "not a time"), ("5us", "speed")):
        with pytest.raises(UserError, match=why):
            Link.parse(text)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"hosts": 0}, "give 1 to 1000"),
        ({"racks": 3}, "divisor of --hosts"),
        ({"racks": 0}, "divisor of --hosts"),
        ({"racks": 2, "oversubscription": 0.5}, "give 1 or more"),
        ({"oversubscription": 2}, "give --racks too"),
        ({"place": "anywhere"}, "choose from block, round-robin"),
        ({"burst": 1500}, "never passes"),
    ],
)
def test_layouts_that_cannot_be_had_are_refused(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(UserError, match=why):
        dataclasses.replace(FAST, **wrong)


def test_hosts_have_racks_names_and_addresses() -> None:
    racks = Layout(8, Rate("100mbit"), racks=2, oversubscription=4)
    assert [racks.rack(host) for host in range(8)] == [0] * 4 + [1] * 4
    dealt = dataclasses.replace(racks, place="round-robin")
    assert [dealt.rack(host) for host in range(8)] == [0, 1] * 4
    assert racks.uplink() == Rate("100mbit")  # of 4 x 100, a fourth
    assert len({address(host) for host in range(1000)}) == 1000
    assert len({hardware_address(host) for host in range(1000)}) == 1000
    assert Layout.from_json(dealt.to_json()) == dealt


# The closed forms of the literature, in times that the link needs for the buffer.
FORMS = {
    "parameter-server": lambda p: 2 * (p - 1),
    "tree": lambda p: 2 * math.ceil(math.log2(p)),
    "ring": lambda p: 2 * (p - 1) / p,
    "halving-doubling": lambda p: 2 * (p - 1) / p,
    "none": lambda p: 0,
}


@pytest.mark.parametrize("spec", FORMS)
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_theory_is_the_closed_form(spec: str, ranks: int) -> None:
    count = 1 << 12
    found = theory(parse_exchange(spec).schedules(ranks), count, 4, FAST)
    buffer_s = 4 * count / FAST.net(FAST.rate)
    assert found.transfer_s == pytest.approx(FORMS[spec](ranks) * buffer_s)
    assert found.seconds(1e-3) == pytest.approx(found.transfer_s + found.levels * 1e-3)
    counts = parse_exchange(spec).closed_form(ranks)
    if counts is not None:
        assert found.levels == counts.rounds
        assert sum(found.received_bytes) == counts.total * 4 * count


def test_uplinks_are_part_of_the_theory() -> None:
    # 16 hosts in 4 racks, uplinks 4:1: as much as one host's link. Dealt round-robin, all four
    # ranks of a rack send to another rack in the first two levels of a tree and two do in the
    # second: of 8, 4, 2 and 1 messages each rack sends 4, 4 (from two racks), ... by count below.
    layout = Layout(16, Rate("100mbit"), racks=4, oversubscription=4, place="round-robin")
    count = 1 << 12
    buffer_s = 4 * count / layout.net(layout.rate)
    ring = theory(parse_exchange("ring").schedules(16), count, 4, layout)
    # Every message of a ring goes to the next rack: four ranks share each uplink.
    assert ring.transfer_s == pytest.approx(4 * 2 * 15 / 16 * buffer_s)
    block = theory(
        parse_exchange("ring").schedules(16), count, 4, dataclasses.replace(layout, place="block")
    )
    assert block.transfer_s == pytest.approx(2 * 15 / 16 * buffer_s)
    tree = theory(parse_exchange("tree").schedules(16), count, 4, layout)
    # Level by level 1, 2, 4 and 8 ranks apart: 4 messages share an uplink, then 4, then none
    # leaves its rack (ranks 4 or 8 apart are in the same one).
    assert tree.transfer_s == pytest.approx(2 * (4 + 4 + 1 + 1) * buffer_s)


def row(ratio: float, **changes: object) -> Row:
    values = {
        "exchange": "ring",
        "ranks": 4,
        "seconds": [ratio],
        "theory_s": 1.0,
        "cpu_share": 0.1,
        "late_share": 0.0,
        "machine_share": 0.1,
        "wire": 1.01,
        "wrong": 0,
    }
    return Row(**{**values, **changes})


def test_cpu_bound_rows_are_labelled_and_not_fitted() -> None:
    rows = [row(1.25), row(1.25), row(5.0, cpu_share=0.9), row(3.0, late_share=0.5)]
    assert [one.cpu_bound for one in rows] == [False, False, True, True]
    assert "network-bound" in rows[0].line()
    assert "CPU-bound" in rows[2].line()
    fitted = fit(rows, [0.0] * 4, 1e6)
    assert (fitted.rows, fitted.bytes_per_s) == (2, pytest.approx(8e5))
    assert fit(rows[2:], [0.0] * 2, 1e6).rows == 0
    assert " - " in row(1.0, theory_s=math.nan).line()


def test_long_exchanges_are_timed_less_often() -> None:
    timing = Timing(
        layout=FAST,
        exchanges=["ring"],
        ranks=[2],
        nbytes=4096,
        iterations=5,
        row_seconds=30.0,
        timeout_s=60.0,
        output=None,
        results=Path("results"),
        command_line=["commbench", "emulate"],
    )
    assert [timing.repeats(s) for s in (0, 1, 6, 15, 31, math.nan)] == [5, 5, 5, 2, 1, 5]
    assert Timing.from_json(timing.to_json()) == timing
    # A hundred ranks may not poll as often as two.
    assert timing.sleep_s(2, 0.001) < timing.sleep_s(2, 1.0) < timing.sleep_s(128, 0.001)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--rate", "fast"], "is not a speed"),
        (["--hosts", "4", "--ranks", "2,8"], "from 2 to --hosts 4"),
        (["--hosts", "4", "--ranks", "two"], "from 2 to --hosts 4"),
        (["--bytes", "3"], "give 4 or more"),
        (["--exchange", "ps-async"], "no schedule that could be timed"),
        (["--output", "/nowhere/run.h5"], "there is no folder"),
        (["--output", "/dev/shm/run.h5"], "have a /dev/shm of their own"),
        (["--hosts", "0", "--", "sweep"], "give 1 to 1000"),
    ],
)
def test_bad_input_is_one_line(options: list[str], why: str) -> None:
    result = CliRunner().invoke(commands, ["emulate", *options])
    assert isinstance(result.exception, UserError)
    assert why in str(result.exception)


def test_without_privileges_the_other_way_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_capabilities", lambda: 0)
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/bin/{name}")
    result = CliRunner().invoke(commands, ["emulate"])
    assert isinstance(result.exception, UserError)
    assert "CAP_NET_ADMIN" in str(result.exception)
    assert "--transport emulated --link" in str(result.exception)
    monkeypatch.setattr(machine.shutil, "which", lambda name: None if name == "tc" else name)
    assert "there is no tc here" in machine.why_not()


def test_mpirun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMI_RANK", "0")
    result = CliRunner().invoke(commands, ["emulate"])
    assert "run it without mpirun" in str(result.exception)


def test_both_libraries_are_started_over_tcp(tmp_path: Path) -> None:
    line, variables = command(FAST, "mpirun", "MPICH", tmp_path, ["prog"])
    assert line[-1] == "prog"
    assert variables["MPIR_CVAR_NOLOCAL"] == "1"
    assert (tmp_path / "enter").stat().st_mode & 0o111
    line, variables = command(FAST, "mpirun", "Open MPI", tmp_path, ["prog"])
    assert str(tmp_path / "agent") in line
    assert variables["OMPI_MCA_btl"] == "tcp,self"
