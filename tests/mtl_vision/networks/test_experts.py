import pytest
import torch
import torch.nn.functional as F
from toy_maps import randomised

from mtl_core.errors import ArgumentError
from mtl_vision.networks.experts import (
    ConvExperts,
    LowRankExperts,
    build_experts,
    default_ranks,
)


@pytest.mark.parametrize("kind", ["conv_bn_gelu", "conv1x1", "lowrank_linear"])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_map_an_expert(kind, norm):
    experts = build_experts(kind, 3, 16, norm=norm)
    assert experts(torch.randn(2, 16, 4, 6)).shape == (2, 3, 16, 4, 6)


@pytest.mark.parametrize("kernel", [1, 3])
def test_one_convolution_is_as_many_experts(kernel):
    experts, x = randomised(ConvExperts(3, 8, kernel=kernel)), torch.randn(2, 8, 4, 6)
    norm = experts.norm
    for i in range(3):
        span = slice(8 * i, 8 * i + 8)
        mapped = F.conv2d(x, experts.conv.weight[span], padding=kernel // 2)
        statistics = norm.running_mean[span], norm.running_var[span]
        normed = F.batch_norm(mapped, *statistics, norm.weight[span], norm.bias[span])
        torch.testing.assert_close(experts(x)[:, i], F.gelu(normed))


def test_groups_do_not_reach_over_two_experts():
    experts, x = ConvExperts(3, 16, norm="group"), torch.randn(2, 16, 4, 6)
    before = experts(x)
    with torch.no_grad():
        experts.conv.weight[:16] *= 3.0
        experts.conv.weight[0] += 1.0
    after = experts(x)
    assert not torch.allclose(before[:, 0], after[:, 0])
    assert torch.equal(before[:, 1:], after[:, 1:])


def test_low_rank_experts_fold_into_one_convolution():
    experts, x = LowRankExperts((1, 2, 5, 3), 8).double(), torch.randn(2, 8, 5, 6).double()
    gates = torch.rand(4).double()
    folded = F.conv2d(x, experts.fold(gates), padding=1)
    looped = sum(g * e for g, e in zip(gates, experts(x).unbind(1), strict=True))
    torch.testing.assert_close(folded, looped)
    torch.testing.assert_close(experts.mixed(x, gates.expand(2, -1)), looped)


def test_low_rank_experts_are_linear_and_of_their_rank():
    experts, x = LowRankExperts((1, 3), 8), torch.randn(2, 8, 4, 6)
    y = torch.randn_like(x)
    torch.testing.assert_close(experts(2 * x - y), 2 * experts(x) - experts(y))
    for i, rank in enumerate((1, 3)):
        kernel = experts.fold(F.one_hot(torch.tensor(i), 2).float())
        assert torch.linalg.matrix_rank(kernel.flatten(1)) == rank


def test_an_expert_with_weight_zero_gets_no_gradient():
    experts = LowRankExperts((2, 3), 8)
    experts.mixed(torch.randn(1, 8, 4, 4), torch.tensor([[0.0, 1.0]])).sum().backward()
    assert (experts.down.weight.grad[:2] == 0).all()
    assert (experts.down.weight.grad[2:] != 0).any()


def test_default_ranks_are_the_published_ones():
    assert default_ranks(15, 640) == tuple(range(16, 129, 8))
    assert min(default_ranks(15, 8)) == 1


def test_ranks_have_to_fit():
    with pytest.raises(ArgumentError, match="one for each of 3"):
        build_experts("lowrank_linear", 3, 8, ranks=(1, 2))
    with pytest.raises(ArgumentError, match="left out"):
        build_experts("conv1x1", 2, 8, ranks=(1, 2))
    with pytest.raises(ArgumentError, match="at least 1"):
        LowRankExperts((0, 2), 8)
    with pytest.raises(ArgumentError, match="num_experts"):
        ConvExperts(0, 8)
