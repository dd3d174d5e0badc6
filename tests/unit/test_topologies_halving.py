"""Sharded server, halving-doubling, binary blocks, recursive doubling: costs, options, limits."""

import heapq
from collections.abc import Iterator
from fractions import Fraction
from itertools import count

import numpy as np
import pytest

from commbench.arrays import Arrays, NumpyArrays, element_type
from commbench.compose import segmented
from commbench.errors import UserError
from commbench.matching import Message, match
from commbench.proof import prove
from commbench.registry import parse_exchange
from commbench.schedule import WHOLE, Piece, Recv, Schedule, Send
from loopback import run_all

SIZES = [*range(2, 34), 44, 48, 64, 100]
POWERS = [1, 2, 4, 8, 16, 32, 64, 128]


def float32() -> Arrays:
    return NumpyArrays(element_type("float32"))


def specs(size: int) -> Iterator[str]:
    """All that is tested here and runs on this many ranks."""
    yield from ("binary-blocks", "recursive-doubling")
    yield from (f"sharded-server@servers={servers}" for servers in range(size))
    if size in POWERS:
        yield "halving-doubling"


def one_port_time(
    schedules: list[Schedule], alpha: int = 0, beta: int = 0, gamma: int = 0
) -> Fraction:
    """Time of an exchange where each rank sends one message at a time, receives one and adds one.

    A message of f of the buffer occupies its sender's port for alpha + f*beta, its receiver's as
    long (at once, or when that is free), then the receiver's adder for f*gamma if it is added.
    Sends leave in order; a receiver takes messages as they left, the shorter first of two at once.
    """
    messages = match(schedules)
    missing = [[len(turn.recvs) for turn in schedule.rounds] for schedule in schedules]
    received_in = {
        id(message): turn
        for (rank, turn, _), message in messages.items()
        if message.receiver == rank
    }
    turns = [-1] * len(schedules)
    out, into, adder = ([Fraction(0)] * len(schedules) for _ in range(3))
    number = count()
    events: list[tuple[Fraction, bool, Fraction, int, Message]] = []

    def proceed(rank: int, now: Fraction) -> None:
        """Begin the next round, and those after it that have nothing to wait for."""
        rounds = schedules[rank].rounds
        while turns[rank] + 1 < len(rounds) and (turns[rank] < 0 or not missing[rank][turns[rank]]):
            turns[rank] += 1
            for index, op in enumerate(rounds[turns[rank]].ops):
                if isinstance(op, Send):
                    share, start = Fraction(1, op.piece.of), max(now, out[rank])
                    out[rank] = start + alpha + beta * share
                    message = messages[rank, turns[rank], index]
                    heapq.heappush(events, (start, True, share, next(number), message))

    for rank in range(len(schedules)):
        proceed(rank, Fraction(0))
    now = Fraction(0)
    while events:
        now, leaves, share, _, message = heapq.heappop(events)
        to = message.receiver
        if leaves:
            into[to] = max(now, into[to]) + alpha + beta * share
            adder[to] = max(into[to], adder[to]) + gamma * share * message.recv.reduce
            heapq.heappush(events, (adder[to], False, share, next(number), message))
        else:
            missing[to][received_in[id(message)]] -= 1
            proceed(to, now)
    return now


def factors(spec: str, size: int) -> tuple[Fraction, Fraction, Fraction]:
    """What alpha, n*beta and n*gamma are multiplied by, each alone."""
    schedules = parse_exchange(spec).schedules(size)
    return (
        one_port_time(schedules, alpha=1),
        one_port_time(schedules, beta=1),
        one_port_time(schedules, gamma=1),
    )


# From another simulation, of the algorithm as published and as Gloo runs it.
@pytest.mark.parametrize(
    ("size", "alpha", "beta", "gamma"),
    [
        (3, 4, 2.0, 1.0),
        (5, 7, 2.0, 1.0),
        (6, 6, 2.0, 1.0),
        (7, 7, 2.75, 1.25),
        (9, 12, 2.0, 1.0),
        (12, 8, 2.0, 1.0),
        (13, 10, 2.375, 1.125),
        (15, 10, 3.125, 1.375),
        (24, 10, 2.0, 1.0),
        (31, 13, 3.3125, 1.4375),
        (33, 38, 2.0, 1.0),
        (44, 14, 2.156, 1.031),
        (48, 12, 2.0, 1.0),
        (100, 19, 2.047, 1.016),
    ],
)
def test_binary_blocks_cost(size: int, alpha: int, beta: float, gamma: float) -> None:
    simulated = [float(factor) for factor in factors("binary-blocks", size)]
    assert simulated == pytest.approx([alpha, beta, gamma], abs=6e-4)


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_binary_blocks_of_two_neighbours_and_of_all(level: int) -> None:
    neighbours = 3 << level - 1  # as 8+4
    assert factors("binary-blocks", neighbours) == (2 * level + 2, 2, 1)
    ones = (2 << level) - 1  # as 8+4+2+1
    alpha, beta, _ = factors("binary-blocks", ones)
    assert (alpha, beta) == (3 * level + 1, 3.5 - 6 / (ones + 1))


@pytest.mark.parametrize("level", [2, 3, 4, 5])
def test_a_rank_alone_beside_a_block_sends_to_all_of_it(level: int) -> None:
    block = 1 << level
    assert block + level < factors("binary-blocks", block + 1)[0] <= block + level + 2


@pytest.mark.parametrize("size", SIZES)
def test_binary_blocks_need_two_rounds_more_and_the_bytes_of_a_ring(size: int) -> None:
    counts = prove(parse_exchange("binary-blocks").schedules(size))
    blocks = f"{size:b}".count("1")
    assert counts.rounds == 2 * (size.bit_length() - 1) + (2 if blocks > 1 else 0)
    assert sum(counts.sent) == 2 * (size - 1)
    assert counts.sent == counts.received
    largest = 1 << size.bit_length() - 1
    most = [2 - Fraction(2, largest), 2 - Fraction(1, largest), Fraction(2)]
    assert max(counts.sent) == most[min(blocks, 3) - 1]


def test_binary_blocks_inside_and_between() -> None:
    # 7 = 4+2+1: ranks 0 to 3, 4 and 5, 6.
    schedules = parse_exchange("binary-blocks").schedules(7)
    up = [[(str(op.piece), op.to) for op in turn.sends] for turn in schedules[6].rounds]
    assert up == [[], [("0/2", 4), ("1/2", 5)], [], [], [], []]
    up = [[(str(op.piece), op.to) for op in turn.sends] for turn in schedules[4].rounds]
    assert up == [[("1/2", 5)], [], [("0/4", 0), ("1/4", 2)], [], [("0/2", 6)], [("0/2", 5)]]
    assert schedules[2].rounds[2].recvs == (Recv(Piece(1, 4), 4),)
    assert schedules[3].rounds[2].recvs == (Recv(Piece(3, 4), 5),)


@pytest.mark.parametrize("size", POWERS)
def test_powers_of_two(size: int) -> None:
    halving = parse_exchange("halving-doubling").schedules(size)
    assert parse_exchange("binary-blocks").schedules(size) == halving
    levels, share = size.bit_length() - 1, Fraction(size - 1, size)
    assert factors("halving-doubling", size) == (2 * levels, 2 * share, share)
    for rank, schedule in enumerate(halving):
        swaps = [(op.to ^ rank, op.piece.of) for turn in schedule.rounds for op in turn.sends]
        there = [(1 << level, 2 << level) for level in range(levels)]
        assert swaps == there + there[::-1]


def test_a_rank_ends_halving_with_the_piece_of_its_bits_reversed() -> None:
    last = [schedule.rounds[2] for schedule in parse_exchange("halving-doubling").schedules(8)]
    assert [turn.recvs[0].piece.index for turn in last] == [0, 4, 2, 6, 1, 5, 3, 7]


@pytest.mark.parametrize("size", SIZES)
def test_recursive_doubling_swaps_whole_buffers(size: int) -> None:
    levels = size.bit_length() - 1
    surplus = size - (1 << levels)
    schedules = parse_exchange("recursive-doubling").schedules(size)
    assert {op.piece for s in schedules for turn in s.rounds for op in turn.sends} == {WHOLE}
    alpha, beta, gamma = factors("recursive-doubling", size)
    if surplus:
        assert levels + 2 <= alpha == beta <= levels + 4
        assert levels + 1 <= gamma <= levels + 3
    else:
        assert alpha == beta == gamma == levels
    counts = prove(schedules)
    assert counts.rounds == levels + (2 if surplus else 0)
    assert counts.sent[1 << levels :] == counts.received[1 << levels :] == (1,) * surplus
    assert counts.sent[surplus : 1 << levels] == (levels,) * (size - 2 * surplus)


@pytest.mark.parametrize("size", [2, 3, 4, 7, 8, 16, 33])
def test_sharded_server_costs_what_the_ring_costs(size: int) -> None:
    share = Fraction(size - 1, size)
    assert factors("sharded-server", size) == (2 * (size - 1), 2 * share, share)
    assert factors("ring", size) == (2 * (size - 1), 2 * share, share)
    counts = prove(parse_exchange("sharded-server").schedules(size))
    assert (counts.rounds, counts.messages) == (2, 2 * size * (size - 1))
    assert set(counts.sent) == set(counts.received) == {2 * share}


@pytest.mark.parametrize(("size", "servers"), [(2, 1), (5, 1), (6, 2), (6, 3), (8, 3), (9, 7)])
def test_dedicated_servers(size: int, servers: int) -> None:
    choice = parse_exchange(f"sharded-server@servers={servers}")
    assert choice.workers(size) == list(range(servers, size))
    workers = size - servers
    if workers >= servers:
        share = Fraction(1, servers)
        costs = (2 * workers, 2 * workers * share, (workers - 1) * share)
        assert factors(choice.spec, size) == costs
    counts = prove(choice.schedules(size))
    assert (counts.rounds, counts.messages) == (2, 2 * workers * servers)
    assert counts.sent[:servers] == (Fraction(workers, servers),) * servers
    assert counts.sent[servers:] == (1,) * workers


def test_one_dedicated_server_costs_what_the_parameter_server_costs() -> None:
    alone = parse_exchange("sharded-server@servers=1").schedules(6)
    assert prove(alone) == prove(parse_exchange("parameter-server@server=dedicated").schedules(6))


@pytest.mark.parametrize("servers", [0, 3])
def test_ranks_begin_with_different_servers(servers: int) -> None:
    schedules = parse_exchange(f"sharded-server@servers={servers}").schedules(6)
    for turn in zip(*(s.rounds[0].sends for s in schedules if s.contributes), strict=True):
        assert len({op.to for op in turn}) == len(turn)
    for turn in zip(*(s.rounds[1].sends for s in schedules if s.rounds[1].sends), strict=True):
        assert len({op.to for op in turn}) == len(turn)


@pytest.mark.parametrize("size", range(2, 18))
def test_every_option_costs_what_its_formula_says(size: int) -> None:
    for spec in specs(size):
        choice = parse_exchange(spec)
        assert prove(choice.schedules(size)).closed_form() == choice.closed_form(size), spec


@pytest.mark.parametrize("size", range(2, 10))
def test_every_option_sums(size: int) -> None:
    # Odd lengths, among them fewer elements than pieces; messages cut as well.
    for spec in specs(size):
        schedules = parse_exchange(spec).schedules(size)
        for length in (1, 3, 101, 257):
            buffers = [((np.arange(length) + 3 * r) % 7).astype(np.float32) for r in range(size)]
            workers = [rank for rank in range(size) if schedules[rank].contributes]
            expected = np.sum([buffers[rank] for rank in workers], axis=0)
            run_all(schedules, buffers, float32, segment_bytes=64)
            for rank in workers:
                np.testing.assert_array_equal(buffers[rank], expected, spec)


@pytest.mark.parametrize("size", [5, 6, 8])
def test_in_a_pipeline_they_are_still_all_reduces(size: int) -> None:
    for spec in specs(size):
        prove([segmented(schedule, 3) for schedule in parse_exchange(spec).schedules(size)])


@pytest.mark.parametrize(
    ("spec", "dtype"),
    [
        ("binary-blocks", "float32"),
        ("binary-blocks", "bfloat16"),
        ("recursive-doubling", "float32"),
        ("recursive-doubling", "bfloat16"),
        ("sharded-server", "bfloat16"),
        ("sharded-server@servers=3", "bfloat16"),
    ],
)
def test_all_workers_get_the_same_bits_and_every_run_does(spec: str, dtype: str) -> None:
    kind = element_type(dtype)
    schedules = parse_exchange(spec).schedules(7)
    results = set()
    for _ in range(3):
        noise = np.random.default_rng(5)
        buffers = [noise.normal(size=300).astype(kind.wire) for _ in schedules]
        run_all(schedules, buffers, lambda: NumpyArrays(kind), segment_bytes=64)
        own = zip(buffers, schedules, strict=True)
        results |= {buffer.tobytes() for buffer, plan in own if plan.contributes}
    assert len(results) == 1


@pytest.mark.parametrize(
    ("spec", "size", "told"),
    [
        ("halving-doubling", 6, "on 6 ranks: works on powers of two: 4 or 8, not 6 ranks"),
        ("halving-doubling", 3, "works on powers of two: 2 or 4, not 3 ranks"),
        ("halving-doubling", 100, "works on powers of two: 64 or 128, not 100 ranks"),
        ("sharded-server@servers=4", 4, "servers=4 leaves no worker: that takes at least 5 ranks"),
        ("sharded-server@servers=1", 1, "servers=1 leaves no worker: that takes at least 2 ranks"),
        ("sharded-server@servers=-1", 4, "servers=-1: give their number, or 0"),
        ("sharded-server@servers=all", 4, "servers=all is not of type int"),
    ],
)
def test_what_is_refused(spec: str, size: int, told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse_exchange(spec).schedules(size)
