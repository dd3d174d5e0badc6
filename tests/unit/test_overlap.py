"""What is exchanged when, while backward goes on."""

import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from commbench.buckets import Bucket, Fusion, lay_out, plan_buckets
from commbench.headroom import RUNGS, Headroom, rungs
from commbench.overlap import Courier, Watch
from commbench.telemetry import PHASES, Took


def courier(exchanges: list[Callable[[], None]], *, overlap: bool = True) -> Courier:
    return Courier(exchanges, overlap=overlap, arrived=lambda: lambda: None, enter=lambda: None)


@pytest.mark.parametrize("overlap", [True, False])
def test_buckets_are_exchanged_in_order_in_every_step(overlap: bool) -> None:
    done: list[tuple[int, int]] = []

    def exchange(number: int) -> Callable[[], None]:
        return lambda: done.append((number, threading.get_ident()))

    three = courier([exchange(number) for number in range(3)], overlap=overlap)
    for begun in (0, 1, 3):
        done.clear()
        three.begin_until(begun)
        spans = three.finish()
        assert [number for number, _ in done] == [0, 1, 2] == [span.bucket for span in spans]
        assert {thread == threading.get_ident() for _, thread in done} == {not overlap}
        assert all(span.ready <= span.start <= span.stop for span in spans)


def test_an_exchange_begins_while_others_are_awaited() -> None:
    first, rest = threading.Event(), threading.Event()
    two = courier([first.set, lambda: rest.wait(20) or pytest.fail("too late")])
    two.begin_until(1)
    assert first.wait(20)  # before anybody asked for the end
    rest.set()
    assert len(two.finish()) == 2


def test_what_fails_in_the_thread_fails_in_the_step() -> None:
    def fails() -> None:
        raise ValueError("a peer is gone")

    bad = courier([fails, fails])
    bad.begin_until(1)
    with pytest.raises(ValueError, match="a peer is gone"):
        bad.finish()


def test_close_ends_the_thread() -> None:
    before, switch_s = threading.active_count(), sys.getswitchinterval()
    one = courier([lambda: None])
    one.finish()
    assert threading.active_count() == before + 1
    one.close()
    one.close()
    assert threading.active_count() == before
    assert sys.getswitchinterval() == pytest.approx(switch_s, abs=2e-6)  # kept in microseconds


def test_close_does_not_wait_for_an_exchange() -> None:
    begun, goes_on = threading.Event(), threading.Event()
    before = threading.enumerate()
    one = courier([lambda: begun.set() or goes_on.wait(20) or None])  # type: ignore[func-returns-value]
    one.begin_until(1)
    assert begun.wait(20)
    one.close()  # the step is never finished
    (thread,) = (each for each in threading.enumerate() if each not in before)
    goes_on.set()
    thread.join(20)
    assert not thread.is_alive()


class Begun:
    """In the place of a courier."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def begin_until(self, count: int) -> None:
        self.counts.append(count)


class Odd(torch.nn.Module):
    """A tensor used twice, one not used, one used in every other pass."""

    def __init__(self) -> None:
        super().__init__()
        self.early = torch.nn.Parameter(torch.ones(3))
        self.unused = torch.nn.Parameter(torch.ones(2))
        self.shared = torch.nn.Parameter(torch.ones(3))
        self.late = torch.nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.late * (self.shared * (self.shared * (self.early * x)))).sum()


def watched(model: torch.nn.Module, fusion: Fusion) -> tuple[tuple[Bucket, ...], Watch, list[int]]:
    buckets = plan_buckets(model.parameters(), fusion)
    lay_out(buckets, torch.zeros)
    begun = Begun()
    return buckets, Watch(buckets, begun), begun.counts  # type: ignore[arg-type]


def test_a_bucket_is_handed_in_when_its_last_gradient_is_there() -> None:
    model = Odd()
    del model.unused
    buckets, watch, counts = watched(model, Fusion(nbytes=0))
    assert len(buckets) == 3
    for _ in range(2):
        counts.clear()
        model(torch.ones(3)).backward()  # of an earlier micro-batch
        assert counts == []
        watch.arm()
        model(torch.ones(3)).backward()
        watch.disarm()
        # The shared one is complete with its second use, after which only `early` is left.
        assert counts == [1, 2, 3]


def test_a_tensor_without_a_gradient_holds_back_what_comes_after_it() -> None:
    model = Odd()
    _, watch, counts = watched(model, Fusion(nbytes=0))
    watch.arm()
    model(torch.ones(3)).backward()
    watch.disarm()
    assert counts == [1, 2]  # late, shared; unused never comes, and early waits for the end
    assert model.early.grad is not None
    assert model.early.grad.tolist() == [1, 1, 1]
    assert model.unused.grad is not None
    assert model.unused.grad.tolist() == [0, 0]


def took(handed_in: float, *, exchange: float, exchanging: float, last: float) -> Took:
    seconds = np.zeros(len(PHASES))
    for name, value in {"forward": 2.0, "backward": 4.0, "exchange": exchange}.items():
        seconds[PHASES.index(name)] = value
    return Took(0.0, seconds, exchanging, last, handed_in)


def test_the_rungs_of_a_step() -> None:
    # Exchanges of 7 s, of which 1 is waiting, beside a backward pass of 4; the last of 1.5 + 1.
    one = took(0, exchange=4.0, exchanging=7.0, last=2.5)
    assert rungs(one, waiting=1.0).tolist() == [6.0, 8.0, 8.0, 10.0]
    # Short exchanges: all but the last hide behind backward.
    one = took(0, exchange=1.0, exchanging=3.0, last=0.75)
    assert rungs(one, waiting=0.25).tolist() == [6.0, 6.0, 6.5, 7.0]


def test_the_slowest_rank_is_named_and_waited_for() -> None:
    headroom = Headroom([1, 2])
    assert headroom.told() == ""
    server = took(0.0, exchange=9.0, exchanging=9.0, last=9.0)
    for step in range(3):
        fast = took(10.0 * step + 1, exchange=2.0, exchanging=2.0, last=2.0)
        slow = took(10.0 * step + 2.5, exchange=0.5, exchanging=0.5, last=0.5)
        waiting = headroom.add([server, fast, slow])
        assert waiting[1:].tolist() == [1.5, 0.0]
    known = headroom.attributes()
    assert known["headroom_rungs"] == list(RUNGS)
    assert known["headroom_s"] == pytest.approx([6.0, 6.0, 6.5, 7.25])
    assert known["waiting_s"] == pytest.approx(0.75)
    assert (known["slowest_rank"], known["slowest_rank_share"]) == (2, 1.0)
    assert "last was rank 2 in 100% of the steps" in headroom.told()


def test_where_nobody_waits_there_is_no_ladder() -> None:
    headroom = Headroom([0, 1])
    for _ in range(2):
        assert np.isnan(headroom.add([took(np.nan, exchange=1, exchanging=0, last=0)] * 2)).all()
    assert headroom.attributes() == {}
