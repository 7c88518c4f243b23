import numpy as np
import pytest

from export.fpga import vit as floats
from export.fpga.design import Widths
from export.fpga.integer.moe import by_token
from export.fpga.single import design_layer, random_mixture


@pytest.fixture(scope="module")
def layer():
    source, tokens = random_mixture(30, 16, 24, 6, 2, seed=1)
    return design_layer(source, tokens, Widths(18, 12)), tokens


def test_neither_order_nor_queues_change_a_bit(layer):
    made, tokens = layer
    straight, routed = made.run(tokens, "task0")
    backwards, again = made.run(tokens, "task0", list(range(5, -1, -1)))
    assert (straight == backwards).all()
    x = made.given.round(tokens)
    one_by_one, single = by_token(x, np.zeros_like(x), made.mixture, "task0", 18)
    assert (straight == one_by_one).all()
    assert routed.loads == again.loads <= 6 < single.loads


def test_ties_go_to_the_lower_index(layer):
    made, _ = layer
    zeros = np.zeros((3, 16))
    _, routed = made.run(zeros, "task0")
    assert routed.experts.tolist() == [[0, 1]] * 3
    assert (routed.gates == routed.gates[0, 0]).all()


def test_all_tokens_may_choose_one_expert():
    source, tokens = random_mixture(12, 16, 8, 4, 1, seed=2)
    weight = np.zeros((4, 16))
    gate = floats.Dense(weight, np.array([0.0, 0.0, 5.0, 0.0]))
    alone = floats.Mixture({"task0": gate}, 1, False, False, source.first, source.second)
    made = design_layer(alone, tokens, Widths(24, 16))
    out, routed = made.run(tokens, "task0")
    assert (routed.experts == 2).all()
    assert routed.loads == 1
    exact, _ = floats.mixture(tokens, tokens, alone, "task0", lambda _, t: t)
    assert np.abs(made.out.value(out) - exact).max() < 1e-4


def test_renormalised_gates_add_up_to_one():
    source, tokens = random_mixture(12, 16, 8, 4, 2, seed=3)
    chosen = floats.Mixture(source.gates, 2, True, False, source.first, source.second)
    _, routed = design_layer(chosen, tokens, Widths(24, 16)).run(tokens, "task0")
    assert np.abs(routed.gates.sum(-1) / 2**20 - 1).max() < 1e-5
