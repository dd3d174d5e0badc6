"""MSCCL's XML: what is written and read does the same here, there and by MSCCL's own rules."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from commbench.arrays import Arrays, NumpyArrays, element_type
from commbench.errors import UserError
from commbench.msccl import read, write
from commbench.proof import ProofError, prove
from commbench.registry import parse_exchange, topology_names
from commbench.schedule import Piece, Recv, Round, Schedule, Send
from loopback import run_all
from msccl_machine import run_xml

FILES = sorted((Path(__file__).parent.parent / "msccl").glob("*.xml"))


def float32() -> Arrays:
    return NumpyArrays(element_type("float32"))


def admitted() -> list[tuple[str, int]]:
    cases = []
    for name in topology_names():
        choice = parse_exchange(name)
        for size in range(1, 10):
            if name in ("none", "native") or not choice.plain:
                continue
            try:
                choice.schedule(0, size)
            except UserError:
                continue
            cases.append((name, size))
    return cases


def check_sums(schedules: list[Schedule], count: int) -> None:
    buffers = [((np.arange(count) + 3 * r) % 7).astype(np.float32) for r in range(len(schedules))]
    expected = np.sum(buffers, axis=0)
    run_all(schedules, buffers, float32, segment_bytes=64)
    for buffer in buffers:
        np.testing.assert_array_equal(buffer, expected)


def check_machine(text: str, room: int = 2) -> None:
    head = ET.fromstring(text).attrib
    size, chunks = int(head["ngpus"]), int(head["nchunksperloop"])
    inputs = (1 << np.arange(size))[:, None] * 1000 + np.arange(chunks)
    expected = np.broadcast_to(inputs.sum(axis=0), inputs.shape)
    for seed in range(5):
        np.testing.assert_array_equal(run_xml(text, inputs, room=room, seed=seed), expected)


def moved(schedules: list[Schedule]) -> list[list[object]]:
    """What each rank sends to each other, in order."""
    return [
        sorted(((op.to, op.piece) for turn in one.rounds for op in turn.sends), key=lambda m: m[0])
        for one in schedules
    ]


@pytest.mark.parametrize(("name", "size"), admitted())
def test_round_trip(name: str, size: int) -> None:
    written = parse_exchange(name).schedules(size)
    text = write(written, name)
    check_machine(text, room=1)
    again = read(text, "algo.xml")
    before, after = prove(written), prove(again)
    assert (after.messages, after.sent, after.received) == (
        before.messages,
        before.sent,
        before.received,
    )
    assert moved(again) == moved(written)
    assert len({len(schedule.rounds) for schedule in again}) == 1
    for count in (0, 1, 5, 333):
        check_sums(again, count)


@pytest.mark.parametrize("spec", ["tree", "ring@segments=3", "parameter-server", "double-tree"])
def test_a_round_trip_changes_no_bit(spec: str) -> None:
    schedules = parse_exchange(spec).schedules(7)
    results = []
    for plan in (schedules, read(write(schedules, spec), "algo.xml")):
        noise = np.random.default_rng(5)
        buffers = [noise.normal(size=301).astype(np.float32) for _ in plan]
        run_all(plan, buffers, float32, segment_bytes=64)
        results.append(b"".join(buffer.tobytes() for buffer in buffers))
    assert results[0] == results[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_as_msccl_tools_emits_them(path: Path) -> None:
    text = path.read_text()
    check_machine(text)
    schedules = read(text, str(path))
    prove(schedules)
    for count in (0, 1, 7, 500):
        check_sums(schedules, count)


@pytest.mark.parametrize(
    ("name", "rounds", "messages", "sent"),
    [("ring3", 4, 12, "4/3"), ("ring4", 6, 24, "3/2"), ("doubling4", 2, 8, "2"),
     ("allpairs3", 2, 12, "4/3")],
)  # fmt: skip
def test_files_cost_what_their_algorithm_costs(
    name: str, rounds: int, messages: int, sent: str
) -> None:
    path = next(path for path in FILES if path.stem == name)
    counts = prove(read(path.read_text(), name))
    assert (counts.rounds, counts.messages) == (rounds, messages)
    assert {str(share) for share in counts.sent} == {sent}


def test_there_is_a_file_for_each_test() -> None:
    assert [path.stem for path in FILES] == ["allpairs3", "doubling4", "ring3", "ring4"]


def test_chunks_that_are_no_piece_become_several() -> None:
    # 3 chunks from chunk 1 of 4: no cut into equal parts has them.
    text = swap(
        "s srcoff=1 dstoff=1 cnt=3",
        "rrc srcoff=1 dstoff=1 cnt=3",
        "s srcoff=0 dstoff=0 cnt=1",
        "rrc srcoff=0 dstoff=0 cnt=1",
    )
    check_machine(text)
    schedules = read(text, "algo.xml")
    first = schedules[0].rounds[0]
    assert [op.piece for op in first.sends] == [Piece(1, 4), Piece(1, 2)]
    prove(schedules)
    check_sums(schedules, 101)


def test_the_library_and_what_is_no_sum_are_not_written() -> None:
    with pytest.raises(UserError, match="cannot call the library's own all-reduce"):
        write(parse_exchange("native").schedules(3), "native")
    with pytest.raises(UserError, match="no sum"):
        write(parse_exchange("none").schedules(3), "none")
    dedicated = parse_exchange("parameter-server@server=dedicated").schedules(3)
    with pytest.raises(UserError, match="rank 0 is a dedicated server"):
        write(dedicated, "server")


def test_a_wrong_schedule_is_written_as_it_is_and_stays_wrong() -> None:
    whole = Piece(0, 1)
    lost = [Schedule((Round((op,)),)) for op in (Recv(whole, 1), Send(whole, 0))]
    with pytest.raises(ProofError, match="missing contribution of rank 0"):
        prove(read(write(lost, "lost"), "algo.xml"))


def steps(*told: str) -> str:
    """Steps from ``s srcoff=0 dstoff=0 cnt=1``."""
    lines = []
    for place, one in enumerate(told):
        kind, *pairs = one.split()
        values = {"s": str(place), "type": kind, "srcbuf": "i", "dstbuf": "i"}
        values |= {"depid": "-1", "deps": "-1", "hasdep": "0"}
        values |= dict(pair.split("=") for pair in pairs)
        lines.append(
            "<step " + " ".join(f'{key}="{value}"' for key, value in values.items()) + "/>"
        )
    return "".join(lines)


def file(*gpus: str, head: str = "") -> str:
    attributes = {
        "nchunksperloop": "4",
        "ngpus": str(len(gpus)),
        "coll": "allreduce",
        "inplace": "1",
    }
    attributes |= dict(pair.split("=") for pair in head.split())
    told = " ".join(f'{key}="{value}"' for key, value in attributes.items())
    inside = "".join(f'<gpu id="{number}">{gpu}</gpu>' for number, gpu in enumerate(gpus))
    return f"<algo {told}>{inside}</algo>"


def block(peers: tuple[int, int], *told: str, number: int = 0, channel: int = 0) -> str:
    send, recv = peers
    head = f'<tb id="{number}" send="{send}" recv="{recv}" chan="{channel}">'
    return f"{head}{steps(*told)}</tb>"


def swap(*told: str, head: str = "") -> str:
    """Two GPUs that do the same."""
    return file(block((1, 1), *told), block((0, 0), *told), head=head)


ALL = "srcoff=0 dstoff=0 cnt=4"
GOOD = (f"s {ALL}", f"rrc {ALL}")


def test_the_good_one_is_good() -> None:
    text = swap(*GOOD)
    check_machine(text)
    prove(read(text, "algo.xml"))
    out_of_place = swap(f"s {ALL}", f"rrc {ALL} dstbuf=o", head="inplace=0")
    check_machine(out_of_place)
    prove(read(out_of_place, "algo.xml"))


# Gpu 0 sends chunk 0, waits for an answer and sends chunk 1; gpu 1 takes chunk 1 first.
CROSSING = file(
    block((1, 1), "s srcoff=0 dstoff=0 cnt=1", "r srcoff=2 dstoff=2 cnt=1 hasdep=1")
    + block((1, -1), "s srcoff=1 dstoff=1 cnt=1 depid=0 deps=1", number=1, channel=1),
    block((0, -1), "s srcoff=2 dstoff=2 cnt=1")
    + block((-1, 0), "r srcoff=1 dstoff=1 cnt=1 hasdep=1", number=1, channel=1)
    + block((-1, 0), "r srcoff=0 dstoff=0 cnt=1 depid=1 deps=0", number=2),
)

REFUSED = {
    "not XML": ("<algo", r"not XML: .*line 1"),
    "root": ("<graph/>", r"the root element is <graph>, not MSCCL's <algo>"),
    "collective": (swap(*GOOD, head="coll=allgather"), r"coll='allgather' is not supported"),
    "gpus": (swap(*GOOD, head="ngpus=3"), r"ngpus=3, so .* each id from 0 to 2"),
    "chunks": (swap(*GOOD, head="nchunksperloop=99999"), r"16-bit offsets reach 32768"),
    "number": (swap(*GOOD, head="ngpus=many"), r"algo: ngpus='many' is not a whole number"),
    "attribute": (
        swap(*GOOD).replace(' hasdep="0"', ""),
        r"gpu 0, tb 0, step 0: <step> has no hasdep",
    ),
    "element": (swap(*GOOD).replace("<step", "<op"), r"gpu 0, tb 0: <op>, where .* only be <step>"),
    "order": (swap(*GOOD).replace('s="1"', 's="2"'), r"gpu 0, tb 0, step 1: has s=2"),
    "type": (swap(f"re {ALL}"), r"gpu 0, tb 0, step 0: step type 're' is not supported"),
    "scratch": (
        swap(GOOD[0], f"rrc {ALL} srcbuf=s"),
        r"gpu 0, tb 0, step 1: rrc with srcbuf='s' is not supported: .* no scratch",
    ),
    "moved": (
        swap(GOOD[0], "rrc srcoff=0 dstoff=1 cnt=1"),
        r"gpu 0, tb 0, step 1: rrc from chunk 0 to chunk 1: a chunk that changes place",
    ),
    "moved on the way": (
        swap("s srcoff=0 dstoff=1 cnt=1", "r srcoff=0 dstoff=1 cnt=1"),
        r"gpu 0, tb 0, step 0: chunk 0, which gpu 1, tb 0, step 1 receives as chunk 1",
    ),
    "bounds": (
        swap("s srcoff=2 dstoff=2 cnt=3"),
        r"step 0: chunks 2 to 4, but nchunksperloop=4",
    ),
    "no peer": (
        file(block((-1, 1), *GOOD), block((0, 0), *GOOD)),
        r"gpu 0, tb 0, step 0: s, but the thread block has send=-1",
    ),
    "itself": (file(block((0, 0), *GOOD), ""), r"gpu 0, tb 0: send=0: must be another of gpus"),
    "two owners": (
        file(block((1, 1), *GOOD) + block((1, -1), GOOD[0], number=1), ""),
        r"gpu 0, tb 1 and tb 0 both send with gpu 1 on channel 0",
    ),
    "same block": (file(block((1, 1)) * 2, ""), r"gpu 0, tb 0: there are two thread blocks"),
    "unmatched": (
        file(block((1, 1), *GOOD), block((0, 0), *GOOD, GOOD[0])),
        r"gpu 1 sends 2 messages to gpu 0 on channel 0, which receives 1 there",
    ),
    "unknown dependency": (
        swap(GOOD[0], f"rrc {ALL} depid=3 deps=0"),
        r"gpu 0, tb 0, step 1 waits for step 0 of tb 3, which does not exist",
    ),
    "never woken": (
        swap(GOOD[0], f"rrc {ALL} depid=0 deps=0"),
        r"step 1 waits for step 0 of tb 0, whose hasdep is 0",
    ),
    "circle": (swap(GOOD[1], GOOD[0]), r"steps wait in a circle: gpu \d, tb 0, step \d; "),
    "race": (
        file(
            block((1, -1), GOOD[0]) + block((-1, 1), GOOD[1], number=1),
            block((0, 0), *GOOD),
        ),
        r"gpu 0, tb \d, step 0 and gpu 0, tb \d, step 0 both use chunk 0, and neither waits",
    ),
    "rrs read again": (
        file(
            block((1, 1), f"rrs {ALL}", f"s {ALL}"),
            block((0, 0), f"s {ALL}", f"r {ALL}", f"r {ALL}"),
        ),
        r"gpu 0, tb 0, step 1 reads chunk 0 after gpu 0, tb 0, step 0, an rrs",
    ),
    "rrs as the last": (
        file(block((1, 1), f"rrs {ALL}"), block((0, 0), f"s {ALL}", f"r {ALL}")),
        r"gpu 0, tb 0, step 0: rrs sends chunk 0 on without keeping the sum, and nothing",
    ),
    "input after output": (
        swap(f"s {ALL}", f"rrc {ALL} dstbuf=o", f"s {ALL}", f"r {ALL} dstbuf=o", head="inplace=0"),
        r"gpu 0, tb 0, step 2 reads chunk 0 of the input after the output was written",
    ),
    "output not written": (swap(*GOOD, head="inplace=0"), r"never writes chunk 0 of the output"),
    "output as garbage": (
        swap(GOOD[0], f"rrc {ALL} srcbuf=o dstbuf=o", head="inplace=0"),
        r"gpu 0, tb 0, step 1 reads chunk 0 of the output, which is not yet written",
    ),
    "copy back": (
        swap(f"cpy {ALL} srcbuf=o", *GOOD, head="inplace=0"),
        r"step 0: cpy from the output to the input is not supported",
    ),
    "crossing": (CROSSING, r"gpu 0 sends to gpu 1 on several channels, and the file lets"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    text, message = REFUSED[case]
    with pytest.raises(UserError, match=rf"^algo\.xml: .*{message}"):
        read(text, "algo.xml")
