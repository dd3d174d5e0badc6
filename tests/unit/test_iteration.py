"""Training steps put together: what of the exchanges hides behind backward."""

import pytest

from commbench.buckets import Fusion
from commbench.errors import UserError
from commbench.network import curve
from commbench.network.cluster import Cluster, Link, load_cluster
from commbench.network.cost import price
from commbench.network.curve import Curve
from commbench.network.iteration import Compute, Load, iterate, model_loads, rank_compute
from commbench.registry import parse_exchange
from commbench.workloads.models import build_model
from commbench.workloads.models.cost import count_cost, tensor_macs


def byte_s(n_bytes: float) -> float:
    return n_bytes


def test_a_bucket_waits_for_its_gradients_and_for_the_one_before() -> None:
    compute = Compute(1.0, 10.0)
    # Ready at 6, 8 and 11; done at 9 (hidden), 9+4 = 13, and 13+2 = 15.
    loads = [Load(3, 0.5), Load(4, 0.7), Load(2, 1.0)]
    told = iterate(compute, loads, byte_s)
    assert (told.seconds, told.compute_s, told.exchange_s) == (15, 11, 9)
    assert told.exposed_s == 4
    assert told.efficiency == pytest.approx(11 / 15)


def test_without_overlap_everything_follows_backward() -> None:
    loads = [Load(3, 0.5), Load(4, 0.7), Load(2, 1.0)]
    assert iterate(Compute(1.0, 10.0), loads, byte_s, overlap=False).seconds == 20


def test_a_short_exchange_is_hidden_but_for_the_last_bucket() -> None:
    told = iterate(Compute(1.0, 10.0), [Load(3, 0.5), Load(0.5, 1.0)], byte_s)
    assert told.seconds == 11.5
    assert iterate(Compute(1.0, 2.0), [], byte_s).seconds == 3


@pytest.mark.parametrize("name", ["alexnet", "resnet50", "lstm-mnist"])
def test_every_parameter_and_multiply_add_is_in_one_tensor(name: str) -> None:
    model = build_model(name, seed=None)
    cost, tensors = count_cost(model, training=True), tensor_macs(model)
    assert len(tensors) == cost.tensors
    assert sum(elements for elements, _ in tensors) == cost.parameters
    assert sum(macs for _, macs in tensors) == cost.macs


def test_buckets_of_alexnet() -> None:
    model = build_model("alexnet", seed=None)
    each = model_loads(model, Fusion(nbytes=0))
    assert len(each) == 16
    assert sum(load.n_bytes for load in each) == 4 * 62_378_344
    assert [load.ready for load in each] == sorted(load.ready for load in each)
    assert each[-1].ready == 1
    # The dense layers have nearly all parameters and little of the work: ready early.
    dense = model_loads(model, Fusion(first=10))[0]
    assert dense.n_bytes == 4 * 58_631_144
    assert dense.ready < 0.06
    assert model_loads(model, Fusion(), 2) == (Load(2 * 62_378_344, 1.0),)


def test_rates_between_those_that_are_known() -> None:
    cluster = load_cluster("p40-100g")
    assert rank_compute(cluster, "resnet50", 64).seconds == pytest.approx(64 / 218)
    assert rank_compute(cluster, "resnet50", 48).seconds == pytest.approx(48 / 190)
    assert rank_compute(cluster, "resnet50", 8).seconds == pytest.approx(8 / 162)
    assert rank_compute(cluster, "resnet50", 128).seconds == pytest.approx(128 / 218)
    compute = rank_compute(cluster, "resnet50", 64)
    assert compute.backward_s == pytest.approx(2 * compute.forward_s)


def test_a_model_of_unknown_rate_is_judged_by_its_work() -> None:
    cluster = load_cluster("p40-100g")
    told = rank_compute(cluster, "alexnet", 64)
    assert told.seconds == pytest.approx(64 / 218 * 1131.46 / 4089.18, rel=0.01)
    assert "as fast as resnet50" in told.how
    with pytest.raises(UserError, match="give --images-per-s"):
        rank_compute(load_cluster("ethernet-1g"), "nin", 64)
    with pytest.raises(UserError, match="a batch of 0 images"):
        rank_compute(cluster, "nin", 0)


def test_a_curve_plays_little_and_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    links = Cluster("test", "", (), (), 1, Link(5e-6, 1e9), Link(5e-6, 1e9), 5e9)
    choice = parse_exchange("tree@segments=4:1M:binary-blocks")
    sizes = [3.0 * 1.6**power for power in range(40)]
    exact = {size: price(choice, 13, size, links).seconds for size in sizes}
    played = []

    def counted(*args: object) -> object:
        played.append(args)
        return price(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(curve, "price", counted)
    told = Curve(choice, 13, links).of(sizes)
    assert told == {size: pytest.approx(exact[size], rel=0.005) for size in sizes}
    assert len(played) < 20
