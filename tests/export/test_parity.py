"""`compare`: what counts as equal, and what excuses a difference."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from export.parity import Parity, compare, routing_margins
from mtl_core.moe import PerTaskRouter

SIZES = (1, 2, 3, 7)


def batches():
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(size=(n, 4)).astype(np.float32)} for n in SIZES]


def double(batch):
    return {"a": 2 * batch["x"], "b": batch["x"][:, 0]}


def test_equal_results_have_no_difference():
    found = compare(double, double, batches())
    assert all(parity.ok and parity.max_abs == 0 for parity in found.values())
    assert found["a"].samples == sum(SIZES)
    assert json.loads(json.dumps(found["a"].as_dict()))["batches"] == list(SIZES)


@pytest.mark.parametrize(("error", "ok"), [(0.5e-5, True), (1e-4, False)])
def test_the_bound_is_relative_above_one(error, ok):
    def off(batch):
        return {"a": 200 * batch["x"] + 100 * error}

    def exact(batch):
        return {"a": 200 * batch["x"]}

    found = compare(off, exact, batches()[3:])["a"]
    assert found.ok is ok
    assert found.max_abs == pytest.approx(100 * error, rel=0.2)
    assert found.max_rel < error


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_infinitely_far(value):
    def broken(batch):
        out = batch["x"].copy()
        out[-1, 0] = value
        return {"a": out}

    def fine(batch):
        return {"a": batch["x"]}

    assert not compare(broken, fine, batches())["a"].ok
    assert compare(broken, fine, batches())["a"].max_abs == np.inf
    assert compare(broken, broken, batches())["a"].ok


def test_shapes_have_to_agree():
    found = compare(lambda b: {"a": b["x"][:1]}, lambda b: {"a": b["x"]}, batches())["a"]
    assert not found.ok
    assert found.shapes[0] == "(1, 4) against (2, 4)"


def test_only_samples_that_hang_on_rounding_are_excused():
    def flipped(batch):
        out = batch["x"].copy()
        out[0] += 1e-3
        return {"a": out}

    def first(batch):
        return np.arange(len(batch["x"])) == 0

    def second(batch):
        return np.arange(len(batch["x"])) == 1

    def same(batch):
        return {"a": batch["x"]}

    excused = compare(flipped, same, batches(), near_ties=first)["a"]
    assert excused.ok
    assert excused.near_ties == len(SIZES)
    assert not compare(flipped, same, batches(), near_ties=second)["a"].ok


def test_margins_are_those_between_the_last_chosen_and_the_next_expert():
    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.router = PerTaskRouter(["t"], 4, 5, 2)

        def forward(self, x, tasks):
            self.router(x, tasks[0])

    network = Routed().eval()
    x = torch.randn(3, 6, 4)
    probs = network.router(x, "t").probs.sort(-1, descending=True).values
    expected = (probs[..., 1] - probs[..., 2]).amin(1)
    assert torch.allclose(routing_margins(network, x, ["t"]), expected)
    assert not network.router._forward_hooks
    plain = nn.Linear(4, 1)
    plain.forward = lambda x, tasks: x
    assert routing_margins(plain, x, ["t"]).isinf().all()


def test_a_result_is_ok_or_not():
    assert Parity(1e-6, 1e-6, 13, SIZES).ok
    assert not Parity(1e-6, 2e-5, 13, SIZES).ok


def test_ill_conditioned_outputs_may_differ_as_much_as_float32_itself_does():
    def graph(batch):
        return {"a": batch["x"] + 5e-5}

    def reference(batch):
        return {"a": batch["x"]}

    def noisy(batch):
        return {"a": batch["x"].astype(np.float64) - 4e-5}

    def exact(batch):
        return {"a": batch["x"].astype(np.float64)}

    found = compare(graph, reference, batches(), precise=noisy)["a"]
    assert found.ok
    assert found.rounding == pytest.approx(4e-5, rel=0.8)
    assert not compare(graph, reference, batches(), precise=exact)["a"].ok
    fine = compare(reference, reference, batches(), precise=noisy)["a"]
    assert fine.rounding is None, "not looked at"
