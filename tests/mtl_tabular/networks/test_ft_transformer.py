import pytest
import torch
from torch import nn
from toy_columns import COLUMNS, column_inputs, column_tasks

from mtl_core.errors import ArgumentError
from mtl_tabular.networks import FTTransformer, MultiTabNet
from mtl_tabular.tasks import NumericTarget

SMALL = {"width": 8, "heads": 2, "feedforward": 12, "head_hidden": (6,)}


def small(tasks=None, **options) -> FTTransformer:
    torch.manual_seed(0)
    return FTTransformer(tasks or column_tasks(), schema=COLUMNS, **{**SMALL, **options})


def test_equal_to_multitab_net_with_one_task():
    one = {"only": NumericTarget()}
    network = small(one).double()
    other = MultiTabNet(one, schema=COLUMNS, depth=2, mask="none", inter_sample="none", **SMALL)
    other.double().load_state_dict(network.state_dict())
    inputs = column_inputs(absent=True)
    inputs["numeric"] = inputs["numeric"].double()
    found, expected = network(inputs)["only"], other(inputs)["only"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def torchs(network: FTTransformer) -> nn.TransformerEncoder:
    """PyTorch's own encoder with the same weights."""
    layer = nn.TransformerEncoderLayer(
        8, 2, 12, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    with torch.no_grad():
        for mine, theirs in zip(network.encoder.feature_layers, encoder.layers, strict=True):
            theirs.self_attn.in_proj_weight.copy_(mine.projection.weight)
            theirs.self_attn.in_proj_bias.copy_(mine.projection.bias)
            theirs.self_attn.out_proj.load_state_dict(mine.output.state_dict())
            theirs.norm1.load_state_dict(mine.norm1.state_dict())
            theirs.norm2.load_state_dict(mine.norm2.state_dict())
            theirs.linear1.load_state_dict(mine.feed_forward.inner.state_dict())
            theirs.linear2.load_state_dict(mine.feed_forward.outer.state_dict())
    return encoder


def test_equal_to_pytorchs_encoder_at_the_class_token():
    network = small()
    tokens = torch.cat(
        [
            network.encoder.task_tokens.expand(12, 1, -1),
            network.encoder.tokenizer(column_inputs()),
        ],
        1,
    )
    expected = torchs(network)(tokens)[:, 0]
    found = network.encode(column_inputs()).maps
    assert len(found) == 1
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)


def test_all_tasks_read_the_same_token():
    network = small()
    token = network.encode(column_inputs()).maps[0]
    for name, prediction in network(column_inputs()).items():
        torch.testing.assert_close(prediction, network.heads[name](token))


def test_order_of_columns_does_not_matter():
    network = small().eval()
    expected = network(column_inputs())["kind"]
    schema = type(COLUMNS)(numeric=COLUMNS.numeric[::-1], categorical=COLUMNS.categorical)
    other = FTTransformer(column_tasks(), schema=schema, **SMALL).eval()
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        for name in ("weight", "bias"):
            mine = getattr(network.encoder.tokenizer, name)
            getattr(other.encoder.tokenizer, name).copy_(mine.flip(0))
    inputs = column_inputs()
    inputs["numeric"] = inputs["numeric"].flip(1)
    torch.testing.assert_close(other(inputs)["kind"], expected, rtol=1e-4, atol=1e-5)


def test_heads_must_divide_the_width():
    with pytest.raises(ArgumentError, match="divide the width 8, found 3"):
        small(heads=3)
