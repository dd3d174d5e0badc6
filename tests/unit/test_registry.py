import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from commbench import registry
from commbench.errors import UserError
from commbench.registry import parse_exchange, parse_exchanges, place_all, topology_names
from commbench.schedule import Schedule


def test_the_floor_and_the_librarys_own_come_first() -> None:
    names = topology_names()
    assert names[:2] == ["none", "native"]
    assert {"parameter-server", "tree", "ring"} < set(names)


def test_options_in_the_name_and_beside_it() -> None:
    by_name = parse_exchange("parameter-server@server=dedicated")
    beside = parse_exchange("parameter-server", {"server": "dedicated"})
    assert by_name.spec == beside.spec == "parameter-server@server=dedicated"
    assert by_name.workers(3) == beside.workers(3) == [1, 2]


@pytest.mark.parametrize(
    ("spec", "options", "told"),
    [
        ("shrub", {}, "no exchange 'shrub': choose from none, native, .*tree"),
        ("tree@fanout=3", {}, "exchange tree has no option fanout: it takes segments"),
        ("tree", {"server": "dedicated"}, "exchange tree has no option server"),
        ("parameter-server@server=both", {}, "server=both is not one of colocated, dedicated"),
        ("parameter-server@dedicated", {}, "'dedicated' is not of the form option=value"),
    ],
)
def test_bad_choices_are_told(spec: str, options: dict[str, str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse_exchange(spec, options)


def test_lists() -> None:
    assert [choice.name for choice in parse_exchanges("tree, ring")] == ["tree", "ring"]
    assert [choice.name for choice in parse_exchanges("all")] == topology_names()
    mixed = parse_exchanges("tree,parameter-server", {"server": "dedicated"})
    assert [choice.spec for choice in mixed] == ["tree", "parameter-server@server=dedicated"]
    with pytest.raises(UserError, match="names tree more than once"):
        parse_exchanges("tree,ring,tree")
    with pytest.raises(UserError, match="none of the exchanges tree, ring has an option server"):
        parse_exchanges("tree,ring", {"server": "dedicated"})


def test_nodes_are_put_in_their_place() -> None:
    choices = parse_exchanges("tree,hierarchical", {"group": "node"})
    assert choices[1].spec == "hierarchical@group=node"
    placed = place_all(choices, [0, 0, 2, 2])
    assert [choice.spec for choice in placed] == ["tree", "hierarchical@group=2"]
    with pytest.raises(UserError, match="group=node,hierarchical@group=2 names hierarchical@group"):
        place_all(parse_exchanges("hierarchical@group=node,hierarchical@group=2"), [0, 0, 2, 2])


def test_a_name_taken_twice_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    group = registry.GROUP
    entries = [EntryPoint("tree", value, group) for value in ("one.tree", "another.tree")]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    with pytest.raises(UserError, match="two installed packages both call an exchange 'tree'"):
        topology_names()


def test_a_plug_in_with_a_typed_option(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("toy_topology")

    def schedule(rank: int, size: int, *, fanout: int = 2) -> Schedule:
        if fanout < 2:
            raise ValueError(f"fanout {fanout} is less than 2")
        return Schedule(())

    module.schedule = schedule  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_topology", module)
    entry = EntryPoint("toy", "toy_topology", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    assert parse_exchange("toy@fanout=3").options == {"fanout": 3}
    assert parse_exchange("toy").closed_form(4) is None
    with pytest.raises(UserError, match="fanout=two is not of type int"):
        parse_exchange("toy@fanout=two")
    with pytest.raises(UserError, match="--exchange toy@fanout=1 on 4 ranks: fanout 1 is less"):
        parse_exchange("toy@fanout=1").schedule(0, 4)
