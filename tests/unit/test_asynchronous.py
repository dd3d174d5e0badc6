"""The asynchronous parameter server without MPI: its books, its shard, its name."""

import itertools
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from commbench.arrays import arrays_for
from commbench.asynchronous.histogram import MEASURES, Histogram, describe
from commbench.asynchronous.ledger import Answer, Ledger, Message, Take, Update, most_updates
from commbench.asynchronous.shard import Shard
from commbench.asynchronous.wire import shares_of, sources_of
from commbench.buckets import lay_out, plan_buckets
from commbench.errors import UserError
from commbench.registry import admitted, parse_exchange, parse_exchanges
from commbench.units import Staleness
from commbench.verify import verify
from commbench.workloads.recipes import load_recipe
from commbench.workloads.recipes.groups import parameter_groups
from commbench.workloads.recipes.optimizers import make_optimizer, take_step

INF = math.inf


def answered(actions: list[object]) -> list[int]:
    return [action.worker for action in actions if isinstance(action, Answer)]


def push(ledger: Ledger, worker: int, step: int, meets: bool = False) -> list[object]:
    return list(ledger.handle(Message(worker, step, step + 1, meets)))


def counted(ledger: Ledger, measure: str) -> list[list[int]]:
    return ledger.histogram.counts[MEASURES.index(measure)].astype(int).tolist()


def test_staleness_0_adds_in_the_given_order_and_answers_everybody_at_once() -> None:
    ledger = Ledger([2, 3, 1], staleness=0, bins=1)
    assert push(ledger, 1, 0) == []
    assert push(ledger, 3, 0) == []
    # Only now may they be added: 2 comes first, whoever arrived first.
    assert push(ledger, 2, 0) == [
        Take(2, first=True),
        Take(3, first=False),
        Take(1, first=False),
        Update(0),
        Answer(1),
        Answer(3),
        Answer(2),
    ]
    assert push(ledger, 2, 1) == [Take(2, first=True)]
    assert ledger.awaited == [1, 3]
    push(ledger, 1, 1)
    assert push(ledger, 3, 1)[:3] == [Take(3, first=False), Take(1, first=False), Update(1)]
    assert (ledger.version, ledger.complete) == (2, 2)
    assert counted(ledger, "updates") == counted(ledger, "clocks") == [[2], [2], [2]]


def test_staleness_1_lets_a_worker_be_one_step_ahead() -> None:
    ledger = Ledger([1, 2], staleness=1, bins=5)
    assert push(ledger, 1, 0) == [Take(1, first=True), Update(0), Answer(1)]
    assert push(ledger, 1, 1) == [Take(1, first=True), Update(1)]
    assert ledger.awaited == [2]
    # Rank 2's first gradient was computed from weights that two updates have changed since.
    assert push(ledger, 2, 0) == [Take(2, first=True), Update(0), Answer(1), Answer(2)]
    assert counted(ledger, "updates") == [[2, 0, 0, 0, 0], [0, 0, 1, 0, 0]]
    # Rank 1's second one lacked rank 2's first.
    assert counted(ledger, "clocks") == [[1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]


def test_without_a_bound_nobody_waits_but_at_a_meeting() -> None:
    ledger = Ledger([1, 2], staleness=INF, bins=10)
    for step in range(4):
        assert answered(push(ledger, 1, step)) == [1]
    assert answered(push(ledger, 1, 4, meets=True)) == []
    for step in range(4):
        assert answered(push(ledger, 2, step)) == [2]
    assert answered(push(ledger, 2, 4, meets=True)) == [1, 2]
    assert counted(ledger, "updates")[1] == [4, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert counted(ledger, "clocks")[0] == [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
    assert ledger.complete == 5


@pytest.mark.parametrize("staleness", [0, 1, INF])
def test_a_worker_that_ends_early_no_longer_counts(staleness: float) -> None:
    ledger = Ledger([1, 2, 3], staleness, bins=20)
    last = 6

    def all_push(workers: list[int], step: int) -> list[int]:
        meets = step == last - 1
        return sorted(w for worker in workers for w in answered(push(ledger, worker, step, meets)))

    assert all_push([1, 2, 3], 0) == [1, 2, 3]
    assert answered(list(ledger.handle(Message(3, 1, last, meets=True)))) == []
    for step in range(1, last - 1):
        assert all_push([1, 2], step) == [1, 2]
    assert all_push([1, 2], last - 1) == [1, 2, 3]
    # In the next stretch it has nothing at all, and says so at once, before or after the others.
    assert answered(push(ledger, 1, last, meets=True)) == []
    assert answered(list(ledger.handle(Message(3, None, last + 1, meets=True)))) == []
    assert sorted(answered(push(ledger, 2, last, meets=True))) == [1, 2, 3]
    assert ledger.complete == last + 1
    gradients = 2 * (last + 1) + 2
    assert ledger.histogram.counts[0].sum() == gradients
    assert ledger.version == (last + 1 if staleness == 0 else gradients)


def test_at_staleness_0_the_last_one_to_be_missed_may_have_nothing_to_add() -> None:
    ledger = Ledger([1, 2], staleness=0, bins=1)
    assert push(ledger, 2, 0) == []
    assert ledger.handle(Message(1, None, 3, meets=True)) == [
        Take(2, first=True),
        Update(0),
        Answer(2),
    ]


def test_messages_out_of_turn_are_bugs() -> None:
    ledger = Ledger([1, 2], staleness=0, bins=1)
    push(ledger, 1, 0)
    with pytest.raises(RuntimeError, match="out of turn, rank 1's clock is 0"):
        push(ledger, 1, 1)
    with pytest.raises(RuntimeError, match="out of turn"):
        ledger.handle(Message(2, 3, 3))


@given(
    workers=st.integers(1, 5),
    staleness=st.sampled_from([0, 1, 2, 3, INF]),
    seed=st.integers(0, 1000),
)
def test_in_any_order_of_arrival_the_bounds_hold_and_everybody_gets_through(
    workers: int, staleness: float, seed: int
) -> None:
    chance = random.Random(seed)
    steps, meeting = 12, 6
    # Some end before each meeting; all take part in it.
    ends = [
        {worker: chance.choice([stop, stop, stop - 2]) for worker in range(workers)}
        for stop in (meeting, steps)
    ]
    ledger = Ledger(range(workers), staleness, bins=64)
    following = dict.fromkeys(range(workers), 0)
    computing = set(following)
    applied = dict.fromkeys(range(workers), 0)
    while any(step < steps for step in following.values()) or len(computing) < workers:
        assert computing, "all workers wait"
        worker = chance.choice(sorted(computing))
        step = following[worker]
        if step >= steps:
            computing.remove(worker)
            continue
        # Never ahead of the slowest by more than the bound.
        assert step - ledger.complete <= staleness
        stretch, stop = (0, meeting) if step < meeting else (1, steps)
        last = step + 1 >= ends[stretch][worker]
        following[worker] = stop if last else step + 1
        computing.remove(worker)
        actions = ledger.handle(Message(worker, step, following[worker], meets=last))
        applied[worker] += 1
        computing |= set(answered(list(actions)))
        if all(step >= steps for step in following.values()) and len(computing) == workers:
            break
    assert ledger.complete == steps
    assert ledger.histogram.counts[0].sum(axis=1).tolist() == list(applied.values())
    assert ledger.histogram.largest[1].max() <= staleness
    assert ledger.histogram.largest[0].max() <= most_updates(workers, staleness, steps)


def test_the_bound_in_updates_is_reached() -> None:
    # Rank 1 pulls when the others are s steps behind, then they run as far as they may.
    s = 2
    ledger = Ledger([1, 2], staleness=s, bins=10)
    for step in range(s):
        push(ledger, 1, step)
    assert ledger.complete == 0
    for step in range(2 * s + 1):
        assert push(ledger, 2, step)
    push(ledger, 1, s)
    assert ledger.histogram.largest[0].tolist() == [2 * s + 1, s]
    assert most_updates(2, s, 100) == 2 * s + 1


def test_histograms_keep_long_tails_and_are_told_in_a_line() -> None:
    histogram = Histogram(2, bins=3)
    for updates in (0, 0, 1, 2, 40):
        histogram.add(1, updates, min(updates, 1))
    assert histogram.counts[0].tolist() == [[0, 0, 0], [2, 1, 2]]
    assert (histogram.sums[0, 1], histogram.largest[0, 1]) == (43, 40)
    assert describe(histogram.packed()[None]) == (
        "staleness in updates: mean 8.60, at most 40 (0: 40%, 1: 20%, 2: 40%); "
        "in steps: mean 0.60, at most 1"
    )
    assert "no gradient" in describe(Histogram(2, 3).packed()[None])


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first = torch.nn.Linear(37, 29)
        self.second = torch.nn.Linear(29, 11)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("name", ["firecaffe-nin", "goyal-resnet50", "akiba-resnet50-32k"])
def test_shards_take_the_optimizers_steps_bit_by_bit(count: int, name: str) -> None:
    recipe = load_recipe(name)
    plan = recipe.plan(64, 10)
    net = Net()
    gradients = lay_out(plan_buckets(net.parameters()), torch.zeros)
    n = gradients.flat.numel()
    shards = [
        Shard(
            net,
            gradients.parameters,
            (index * n // count, (index + 1) * n // count),
            arrays=arrays_for("cpu", "float32"),
            recipe=recipe,
            plan=plan,
            share=1.0,
            synchronize=lambda: None,
        )
        for index in range(count)
    ]
    optimizer = make_optimizer(parameter_groups(net, recipe), plan)
    for step in range(3):
        terms = torch.randn(2, n)
        gradients.flat.copy_(terms[0] + terms[1])
        take_step(optimizer, plan, step)
        for index, shard in enumerate(shards):
            length = len(shard.weights)
            own = terms[:, index * n // count :][:, :length].numpy()
            middle = length // 3
            for bounds in ((0, middle), (middle, length)):
                shard.take(bounds, own[0][slice(*bounds)], first=True)
                shard.take(bounds, own[1][slice(*bounds)], first=False)
            shard.update(step)
    expected = torch.cat([p.detach().reshape(-1) for p in gradients.parameters]).numpy()
    assert np.array_equal(np.concatenate([shard.weights for shard in shards]), expected)


@pytest.mark.parametrize(("size", "servers"), [(2, 1), (3, 1), (4, 2), (7, 3), (5, 4)])
def test_workers_and_servers_share_the_buffer_as_the_synchronous_ones_do(
    size: int, servers: int
) -> None:
    choice = parse_exchange("ps-async", {"servers": str(servers)}).scheduled(size)
    assert choice.spec == f"sharded-server@servers={servers}"
    schedules = choice.schedules(size)
    workers = list(range(servers, size))
    for server in range(servers):
        order, bounds = sources_of(schedules[server], 1001)
        assert sorted(order) == workers
        for worker in workers:
            shares = {share.server: share for share in shares_of(schedules[worker], 1001)}
            assert (shares[server].start, shares[server].stop) == bounds
            assert len(shares) == servers
    ends = [sources_of(schedules[server], 1001)[1] for server in range(servers)]
    assert [0, *itertools.chain(*ends), 1001][::2] == [0, *itertools.chain(*ends), 1001][1::2]


def test_the_exchange_by_name() -> None:
    choice = parse_exchange("ps-async", {"staleness": "inf", "servers": "2"})
    assert choice.spec == "ps-async@staleness=inf@servers=2"
    assert parse_exchange(choice.spec).options == choice.options
    assert choice.asynchronous
    assert not choice.plain
    assert choice.value("staleness") == INF
    assert str(parse_exchange("ps-async").value("staleness")) == "1"
    assert f"{Staleness('007')} {Staleness('0'):.1f}" == "7 0.0"
    assert parse_exchange("ring").scheduled(4).spec == "ring"


@pytest.mark.parametrize(
    ("spec", "options", "told"),
    [
        ("ring", {"staleness": "2"}, "exchange ring has no option staleness: it takes segments"),
        ("ps-async@staleness=-1", {}, "'-1' is not a number of steps such as 0 or 2, or inf"),
        ("ps-async@staleness=some", {}, "staleness=some: 'some' is not"),
        ("ring:64K:ps-async", {}, "ps-async is asynchronous, and no part of a choice by size"),
        ("ps-async:64K:ring", {}, "ps-async is asynchronous, and no part of a choice by size"),
        ("ps-async@server=here", {}, "server=here is not one of dedicated, colocated"),
    ],
)
def test_bad_choices_are_told(spec: str, options: dict[str, str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse_exchange(spec, options)


@pytest.mark.parametrize(
    ("spec", "size", "told"),
    [
        ("ps-async", 1, "servers=1 leaves no worker: that takes at least 2 ranks"),
        ("ps-async@servers=0", 4, "it takes at least 1, and they are dedicated"),
        ("ps-async@server=colocated", 4, "cannot serve at any moment while it computes"),
    ],
)
def test_impossible_servers_are_told(spec: str, size: int, told: str) -> None:
    with pytest.raises(UserError, match=f"--exchange {spec} on {size} ranks: .*{told}"):
        parse_exchange(spec).scheduled(size)


def test_only_training_runs_it() -> None:
    choice = parse_exchange("ps-async")
    told = "--exchange ps-async: .* follows no schedule .* only `commbench train` runs it"
    for use in (
        lambda: verify(choice, 4, 100),
        lambda: choice.workers(4),
        lambda: choice.for_bytes(8, 4),
    ):
        with pytest.raises(UserError, match=told):
            use()
    fit, reasons = admitted(parse_exchanges("all"), 4)
    assert "ps-async" not in [one.spec for one in fit]
    assert any("ps-async" in reason for reason in reasons)
