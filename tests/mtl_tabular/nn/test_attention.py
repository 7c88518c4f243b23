import pytest
import torch
from torch import nn

from mtl_core.errors import ArgumentError
from mtl_tabular.nn.attention import FeatureLayer, FeedForward
from mtl_tabular.nn.masks import blocked_pairs

TASKS, COLUMNS, D = 2, 4, 8
BLOCKED = blocked_pairs("FxT_TxT", TASKS, COLUMNS)


def tokens(rows: int = 5) -> torch.Tensor:
    return torch.randn(rows, TASKS + COLUMNS, D, generator=torch.Generator().manual_seed(0))


def torchs_own(layer: FeatureLayer) -> nn.TransformerEncoderLayer:
    """PyTorch's pre-norm layer with the same weights."""
    heads, hidden = layer.heads, layer.feed_forward.inner.out_features
    twin = nn.TransformerEncoderLayer(
        D, heads, hidden, 0.0, "gelu", batch_first=True, norm_first=True
    )
    with torch.no_grad():
        twin.self_attn.in_proj_weight.copy_(layer.projection.weight)
        twin.self_attn.in_proj_bias.copy_(layer.projection.bias)
        twin.self_attn.out_proj.load_state_dict(layer.output.state_dict())
        twin.linear1.load_state_dict(layer.feed_forward.inner.state_dict())
        twin.linear2.load_state_dict(layer.feed_forward.outer.state_dict())
        twin.norm1.load_state_dict(layer.norm1.state_dict())
        twin.norm2.load_state_dict(layer.norm2.state_dict())
    return twin.train()  # evaluation would take a fused path


@pytest.mark.parametrize("blocked", [None, BLOCKED], ids=["no mask", "mask"])
def test_it_is_the_pre_norm_layer_of_pytorch(blocked):
    torch.manual_seed(1)
    layer = FeatureLayer(D, 2, 16, blocked=blocked)
    expected = torchs_own(layer)(tokens(), src_mask=blocked)
    torch.testing.assert_close(layer(tokens()), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("readers", [1, TASKS])
def test_tokens_that_nobody_reads_may_be_left_out(readers):
    torch.manual_seed(1)
    layer = FeatureLayer(D, 2, 16, blocked=BLOCKED)
    torch.testing.assert_close(layer(tokens(), readers), layer(tokens())[:, :readers])


def test_weights_are_shares_and_none_goes_to_what_is_blocked():
    layer = FeatureLayer(D, 2, 16, blocked=BLOCKED)
    weights = layer.weights(tokens(), TASKS)
    torch.testing.assert_close(weights.sum(-1), torch.ones(5, TASKS))
    assert not weights[:, BLOCKED[:TASKS]].any()


def test_feed_forward_gives_any_prefix():
    torch.manual_seed(1)
    layer = FeedForward(D, 16)
    torch.testing.assert_close(layer(tokens(), 3), layer(tokens())[..., :3])


def test_heads_divide_the_width():
    with pytest.raises(ArgumentError, match="divide the width 8"):
        FeatureLayer(D, 3, 16)
