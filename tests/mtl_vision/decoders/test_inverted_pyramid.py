from math import ceil

import pytest
import torch
import torch.nn.functional as F

from mtl_vision.decoders.inverted_pyramid import (
    InvPTStage,
    JointAttention,
    StageNorm,
    UpEmbedding,
    grouped_block,
)


def test_a_group_of_channels_is_a_task_of_its_own():
    """One grouped convolution and norm are the same as one of each for every task."""
    block = grouped_block(2, 4, 6, dilation=2).eval()
    maps = torch.randn(3, 2, 4, 5, 7)
    found = block(maps.flatten(1, 2)).unflatten(1, (2, 6))
    for task in range(2):
        weight = block[0].weight.unflatten(0, (2, 6))[task]
        alone = F.relu(F.conv2d(maps[:, task], weight, padding=2, dilation=2) / (1 + 1e-5) ** 0.5)
        torch.testing.assert_close(found[:, task], alone)


def test_attention_over_all_tasks_positions():
    """Without messages it is scaled dot-product attention, scaled by the whole width."""
    attention = JointAttention(2, 8, pool=2).eval()
    maps = torch.randn(3, 2, 8, 4, 6)
    found, logits = attention(maps, None)
    halved = attention.halve(maps.flatten(1, 2)).view(3, 2, 8, 2, 3)
    pooled = F.avg_pool2d(maps.flatten(1, 2), 2).view(3, 2, 8, 2, 3)
    queries, memory = (m.permute(0, 1, 3, 4, 2).reshape(3, 12, 8) for m in (halved, pooled))
    q, k, v = (
        layer(x).view(3, 12, 2, 4).transpose(1, 2)
        for layer, x in (
            (attention.query, queries),
            (attention.key, memory),
            (attention.value, memory),
        )
    )
    mixed = F.scaled_dot_product_attention(q, k, v, scale=8**-0.5).transpose(1, 2).flatten(2)
    expected = attention.project(mixed).view(3, 2, 2, 3, 8).permute(0, 1, 4, 2, 3)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert logits.shape == (3, 2, 2, 2, 3, 12)


def test_a_message_is_fused_into_the_logits():
    attention = JointAttention(2, 8, pool=2, message=True).eval()
    plain = JointAttention(2, 8, pool=2).eval()
    plain.load_state_dict(attention.state_dict(), strict=False)
    maps, message = torch.randn(1, 2, 8, 4, 6), torch.randn(1, 2, 2, 1, 2, 12)
    with torch.no_grad():
        fuse = attention.fuse
        fuse.weight.zero_()
        fuse.bias.zero_()
        fuse.weight[:, :2, 0, 0] = torch.eye(2)
        _, own = plain(maps, None)
        assert torch.allclose(attention(maps, message)[1], own)
        fuse.weight[:, 2:, 0, 0] = torch.eye(2)
        _, fused = attention(maps, torch.full_like(message, 3.0))
        torch.testing.assert_close(fused, own + 3)


@pytest.mark.parametrize("size", [(2, 3), (3, 5), (1, 1)])
def test_all_stages_have_the_same_number_of_keys(size):
    """Whence the logits of one stage can be laid beside those of the next."""
    message = None
    for i in range(3):
        side = (size[0] * 2**i, size[1] * 2**i)
        stage = InvPTStage(2, 8, index=i, message=i > 0).eval()
        maps, message = stage(torch.randn(1, 2, 8, *side), message)
        assert maps.shape == (1, 2, 8, *side)
        queries = (ceil(side[0] / 2), ceil(side[1] / 2))
        keys = 2 * ceil(size[0] / 2) * ceil(size[1] / 2)
        assert message.shape == (1, 2, 2, *queries, keys)


def test_an_embedding_doubles_and_takes_the_encoders_map():
    module = UpEmbedding(2, 8, 4).eval()
    maps, skip = torch.randn(1, 2, 8, 3, 5), torch.randn(1, 4, 6, 10)
    plain = module(maps, None)
    assert plain.shape == (1, 2, 4, 6, 10)
    torch.testing.assert_close(module(maps, skip) - plain, skip[:, None].expand(1, 2, 4, 6, 10))
    resized = F.interpolate(skip[..., :3, :5], (6, 10), mode="bilinear")
    torch.testing.assert_close(
        module(maps, skip[..., :3, :5]) - plain, resized[:, None].expand(1, 2, 4, 6, 10)
    )


def test_the_norm_is_over_the_channels_of_all_tasks():
    found = StageNorm(3, 4)(5 + 2 * torch.randn(2, 3, 4, 5, 6))
    torch.testing.assert_close(found.mean((1, 2)), torch.zeros(2, 5, 6), atol=1e-5, rtol=0)
    variance = found.var((1, 2), unbiased=False)
    torch.testing.assert_close(variance, torch.ones(2, 5, 6), atol=1e-4, rtol=0)
    assert found[:, 0].mean(1).detach().abs().max() > 0.1
