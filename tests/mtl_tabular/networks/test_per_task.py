from functools import partial

import pytest
import torch
from toy_columns import COLUMNS, NUMBERS, column_inputs, column_tasks

from mtl_core.errors import ArgumentError
from mtl_core.rebuild import build, describe
from mtl_tabular.networks import MMoE, MultiTabNet, PerTask, SharedBottom

SMALL = partial(SharedBottom, token_width=4, shared=(6, 5), tower=(3,), dropout=0.0)


def network(factory=SMALL) -> PerTask:
    torch.manual_seed(0)
    return PerTask(column_tasks(), schema=COLUMNS, network=factory)


@pytest.mark.parametrize("factory", [SMALL, partial(MMoE, expert=(6,), experts=2), MultiTabNet])
def test_equal_to_the_networks_one_by_one(factory):
    made = network(factory).eval()
    found = made(column_inputs())
    for name, inner in made.networks.items():
        assert list(inner.tasks) == [name]
        assert inner.schema == COLUMNS
        assert torch.equal(found[name], inner(column_inputs())[name])


def test_nothing_is_shared():
    made = network()
    assert made.shared_parameters() == []
    made(column_inputs())["kind"].sum().backward()
    assert all(p.grad is not None for p in made.networks["kind"].parameters())
    others = [p for n in ("buys", "spends") for p in made.networks[n].parameters()]
    assert all(p.grad is None for p in others)


def test_only_the_asked_networks_run():
    made, ran = network(), []
    for name, inner in made.networks.items():
        inner.front.register_forward_hook(lambda *_, name=name: ran.append(name))
    made(column_inputs(), ["spends"])
    assert ran == ["spends"]


def test_encode_and_decode_agree_with_run():
    made = network().eval()
    features = made.encode(column_inputs())
    assert len(features.tensors()) == 3
    again = features.with_tensors([t * 1.0 for t in features.tensors()])
    for name, prediction in made(column_inputs()).items():
        assert torch.equal(made.decode(features, name), prediction)
        assert torch.equal(made.decode(again, name), prediction)
    doubled = features.with_tensors([t * 2.0 for t in features.tensors()])
    assert not torch.equal(made.decode(doubled, "kind"), made.decode(features, "kind"))


def test_from_a_config_without_a_schema_inside():
    """What YAML gives: the inner network's arguments name no columns, the outer ones do."""
    config = describe(PerTask(column_tasks(), schema=NUMBERS, network=SMALL))
    inner = config["network"]["init_args"]["network"]
    inner["init_args"].pop("schema")
    made = build(config)
    assert all(part.schema == NUMBERS for part in made.networks.values())
    inner["init_args"]["schema"] = {"numeric": [], "categorical": []}
    assert build(config).schema == NUMBERS


def test_the_factory_has_to_take_a_schema():
    with pytest.raises(ArgumentError, match="schema must hold the table's columns"):
        PerTask(column_tasks(), network=SMALL)
