from dataclasses import replace
from functools import partial

import pytest

from mtl_core.errors import ArgumentError
from mtl_tabular.bench import Contender, Plan
from mtl_tabular.bench.plan import identity
from mtl_tabular.networks import MMoE, SharedBottom


def plan(**given):
    networks = {"a": Contender(network=SharedBottom), "b": Contender(network=MMoE)}
    return Plan(**{"networks": networks, "task_counts": (2, 3), "seeds": 2, **given})


def test_every_run_once():
    """Two networks with own references: per cell 1 + T runs a network."""
    runs = list(plan().runs())
    assert len(runs) == 2 * 2 * (1 + 2) + 2 * 2 * (1 + 3)
    assert len({run.digest for run in runs}) == len(runs)


def test_a_common_reference_is_trained_once():
    runs = list(plan(reference=Contender(network=SharedBottom)).runs())
    assert len(runs) == 2 * (2 + 2) + 2 * (2 + 3)
    assert {run.network for run in runs if run.task} == {"reference"}


def test_degrees_are_repeated_or_cut():
    found = plan(task_counts=(2, 5), complexities={"x": (1, 2, 3)}).settings()
    assert [s.degrees for s in found] == [(1, 2), (1, 2, 3, 1, 2)]


def test_what_changes_a_run_changes_its_digest_and_nothing_else_does():
    first = next(plan().runs())

    def digest(**given):
        return next(plan(**given).runs()).digest

    assert digest(out="elsewhere", retry_failed=True, accelerator="cpu", seeds=9) == first.digest
    assert digest(correlations=(0.4, 0.9)) == first.digest
    other = {"train_size": 99, "test_size": 99, "batch_size": 9, "epochs": 9, "noise": 0.5}
    other |= {"num_features": 9, "standardize_labels": False}
    for name, value in other.items():
        assert digest(**{name: value}) != first.digest, name
    network = first.contender
    for changed in (
        replace(network, lr=0.5),
        replace(network, weight_decay=0.5),
        replace(network, epochs=7),
        replace(network, network=partial(SharedBottom, dropout=0.5)),
    ):
        assert digest(networks={"a": changed}) != first.digest


def test_identity_is_plain_and_leaves_the_schema_out():
    factory = partial(SharedBottom, shared=[8, 4], schema="anything")
    name = "mtl_tabular.networks.shared_bottom.SharedBottom"
    assert identity(factory) == {"class": name, "shared": [8, 4]}
    assert identity({"a": (1, None, True)}) == {"a": [1, None, True]}


def test_axes():
    assert plan().axis() == "num_tasks"
    one = plan(task_counts=(2,), correlations=(0.1, 0.2))
    assert one.axis() == "correlation"
    assert one.axis_values("correlation") == [0.1, 0.2]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"networks": {}}, "networks must hold"),
        ({"correlations": ()}, "correlations must hold"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"complexities": {"x": ()}}, "complexities must hold"),
        ({"correlations": (0.4, -0.9)}, "smallest eigenvalue"),
        ({"task_counts": (40,)}, "num_features must be at least"),
        ({"networks": {"reference": Contender(network=MMoE)}}, "networks must not be named"),
    ],
)
def test_refusals_before_the_first_run(given, error):
    with pytest.raises(ArgumentError, match=error):
        plan(**given)


def test_contenders_are_checked():
    with pytest.raises(ArgumentError, match="lr must be positive"):
        Contender(network=MMoE, lr=0)
    with pytest.raises(ArgumentError, match="epochs must be at least 0"):
        Contender(network=MMoE, epochs=-1)
