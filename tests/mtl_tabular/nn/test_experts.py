import pytest
import torch

from mtl_core.errors import ArgumentError
from mtl_tabular.nn.experts import Experts, Gate, GatedTower
from mtl_tabular.nn.perceptron import perceptron

WIDTHS = (5, 7, 4)


def separate(experts: Experts) -> list[torch.nn.Sequential]:
    """The same experts one by one."""
    singles = [perceptron(WIDTHS, 0.0).double() for _ in range(experts.experts)]
    with torch.no_grad():
        for i, single in enumerate(singles):
            for layer in range(len(WIDTHS) - 1):
                linear, norm, size = single[4 * layer], single[4 * layer + 1], WIDTHS[layer + 1]
                linear.weight.copy_(experts.weights[layer][i].t())
                linear.bias.copy_(experts.biases[layer][i])
                mine = experts.norms[layer]
                norm.weight.copy_(mine.weight[i * size : (i + 1) * size])
                norm.bias.copy_(mine.bias[i * size : (i + 1) * size])
    return singles


@pytest.fixture
def experts():
    torch.manual_seed(0)
    made = Experts(6, WIDTHS)
    for norm in made.norms:
        torch.nn.init.normal_(norm.weight, mean=1.0, std=0.3)
        torch.nn.init.normal_(norm.bias)
    return made.double()


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_batched_experts_equal_the_loop(experts, groups):
    """In training and evaluation, with gradients and running statistics; one input or several."""
    singles = separate(experts)
    for _ in range(2):
        x = torch.randn(9, groups, 5, dtype=torch.float64, requires_grad=True)
        y = x.detach().clone().requires_grad_()
        found = experts(x if groups > 1 else x[:, 0])
        expected = torch.stack([s(y[:, i * groups // 6]) for i, s in enumerate(singles)], 1)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        found.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-5)
        first = torch.stack([s[0].weight.grad.t() for s in singles])
        torch.testing.assert_close(experts.weights[0].grad, first, rtol=1e-4, atol=1e-5)
    experts.eval()
    x = torch.randn(9, 5, dtype=torch.float64)
    expected = torch.stack([s.eval()(x) for s in singles], 1)
    torch.testing.assert_close(experts(x), expected, rtol=0, atol=1e-6)


def test_as_many_parameters_as_the_loop(experts):
    singles = sum(p.numel() for single in separate(experts) for p in single.parameters())
    assert sum(p.numel() for p in experts.parameters()) == singles


def test_weights_start_by_the_rule():
    torch.manual_seed(0)
    normal = Experts(4, (64, 32), init_std=0.01)
    assert 0.009 < float(normal.weights[0].detach().std()) < 0.011
    assert float(normal.biases[0].detach().abs().max()) == 0
    library, linear = Experts(4, (64, 32)), torch.nn.Linear(64, 32)
    torch.testing.assert_close(
        library.weights[0].abs().max(), linear.weight.abs().max(), rtol=0.01, atol=0
    )
    assert 0.1 < float(library.biases[0].detach().abs().max()) <= 64**-0.5


def test_gates_give_shares():
    gate, x, outputs = Gate(5, 3), torch.randn(8, 5) * 9, torch.randn(8, 3, 4)
    shares = gate.shares(x)
    assert shares.min() >= 0
    torch.testing.assert_close(shares.sum(1), torch.ones(8))
    expected = (shares[..., None] * outputs).sum(1)
    torch.testing.assert_close(gate(x, outputs), expected)
    same = outputs[:, :1].expand(-1, 3, -1)
    torch.testing.assert_close(gate(x, same), same[:, 0])


def test_a_tower_reads_the_mixture_and_what_comes_besides():
    head = GatedTower(5, 3, 6, (), 2, 0.0)
    x, outputs, further = torch.randn(8, 5), torch.randn(8, 3, 4), torch.randn(8, 2)
    expected = head.tower(torch.cat([head.gate(x, outputs), further], 1))
    torch.testing.assert_close(head(x, outputs, [further]), expected)


def test_impossible_counts_are_named():
    with pytest.raises(ArgumentError, match="experts must be at least 1, found 0"):
        Experts(0, (4, 4))
    with pytest.raises(ArgumentError, match="widths must hold at least 2"):
        Experts(2, (4,))
