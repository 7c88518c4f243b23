import math

import pytest
import torch

from mtl_vision.networks.gate_losses import gate_balance, gate_entropy


def test_balance_is_zero_for_equal_use_and_largest_for_one_expert():
    one = torch.eye(4)[[2, 2]]
    assert gate_balance([torch.full((2, 4), 0.25)]).item() == pytest.approx(0.0)
    assert gate_balance([torch.eye(4)]).item() == pytest.approx(0.0), "equal over the batch"
    assert gate_balance([one, one]).item() == pytest.approx(4.0)


def test_balance_is_the_squared_coefficient_of_variation_over_samples_and_tasks():
    gates = [torch.rand(3, 4).softmax(-1) for _ in range(2)]
    importance = torch.cat(gates).sum(0)
    expected = importance.var() / importance.mean() ** 2
    torch.testing.assert_close(gate_balance(gates), expected)


def test_positions_count_as_their_mean():
    gates = torch.rand(3, 4).softmax(-1)
    spread = gates[:, None, None].expand(3, 5, 7, 4)
    torch.testing.assert_close(gate_balance([spread]), gate_balance([gates]))
    torch.testing.assert_close(gate_entropy([spread]), gate_entropy([gates]))


def test_entropy_between_none_and_the_logarithm():
    assert gate_entropy([torch.eye(4)]).item() == 0.0
    assert gate_entropy([torch.full((2, 4), 0.25)]).item() == pytest.approx(math.log(4))
