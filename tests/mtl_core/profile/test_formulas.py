"""Every kind of product is counted as what it is by hand, whichever operator does it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mtl_core.profile import Trace

x = torch.rand(2, 4, 16, 8)
maps = torch.rand(2, 8, 6, 6)
stack = torch.rand(4, 8, 5)

CASES = {
    "vector by vector": (lambda: x[0, 0, 0] @ x[0, 0, 1], 8),
    "matrix by vector": (lambda: x[0, 0] @ x[0, 0, 0], 16 * 8),
    "matrices by vector": (lambda: x @ x[0, 0, 0], 2 * 4 * 16 * 8),
    "matrix by vector, added": (lambda: torch.addmv(torch.rand(16), x[0, 0], x[0, 0, 0]), 16 * 8),
    "matrix by matrix": (lambda: x[0, 0] @ x[0, 0].t(), 16 * 8 * 16),
    "batched": (lambda: x @ x.mT, 2 * 4 * 16 * 8 * 16),
    "batched, added": (lambda: torch.baddbmm(torch.rand(4, 1, 5), x[0], stack), 4 * 16 * 8 * 5),
    "batched, expanded": (
        lambda: torch.baddbmm(torch.rand(4, 1, 5), x[0, 0].expand(4, -1, -1), stack),
        4 * 16 * 8 * 5,
    ),
    "batched, summed": (lambda: torch.addbmm(torch.rand(16, 5), x[0], stack), 4 * 16 * 8 * 5),
    "einsum": (lambda: torch.einsum("bthd,bshd->bhts", x, x), 2 * 4 * 4 * 16 * 8),
    "linear": (lambda: nn.Linear(8, 3)(x), 2 * 4 * 16 * 8 * 3),
    "linear of a vector": (lambda: nn.Linear(8, 3)(x[0, 0, 0]), 8 * 3),
    "bilinear": (lambda: F.bilinear(x[0, 0], x[0, 0], torch.rand(3, 8, 8)), 2 * 16 * 3 * 8 * 8),
    "convolution": (lambda: nn.Conv2d(8, 5, 3, padding=1)(maps), 2 * 36 * 9 * 8 * 5),
    "strided": (lambda: nn.Conv2d(8, 5, 2, stride=2)(maps), 2 * 9 * 4 * 8 * 5),
    "grouped": (lambda: nn.Conv2d(8, 4, 3, padding=1, groups=2)(maps), 2 * 36 * 9 * 4 * 4),
    "depth-wise": (lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8)(maps), 2 * 36 * 9 * 8),
    "dilated": (lambda: nn.Conv2d(8, 5, 3, padding=2, dilation=2)(maps), 2 * 36 * 9 * 8 * 5),
    "transposed": (lambda: nn.ConvTranspose2d(8, 4, 2, stride=2)(maps), 2 * 36 * 4 * 8 * 4),
    "one-dimensional": (lambda: nn.Conv1d(8, 5, 3)(x[0].mT), 4 * 14 * 3 * 8 * 5),
    "attention": (lambda: F.scaled_dot_product_attention(x, x, x), 2 * 2 * 4 * 16 * 16 * 8),
    "attention with a mask": (
        lambda: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.zeros(16, 16)),
        2 * 2 * 4 * 16 * 16 * 8,
    ),
    "grouped product of rows": (
        lambda: F.grouped_mm(
            x[0, 0].bfloat16(),
            torch.rand(2, 8, 8).bfloat16(),
            offs=torch.tensor([6, 16], dtype=torch.int32),
        ),
        16 * 8 * 8,
    ),
    "one product a group": (
        lambda: F.grouped_mm(x[0].bfloat16(), torch.rand(4, 8, 8).bfloat16()),
        4 * 16 * 8 * 8,
    ),
    "elementwise": (lambda: (x * x).softmax(-1).sum(), 0),
}


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", CASES)
def test_counted_as_by_hand(name, context):
    call, expected = CASES[name]
    with context(), Trace(nn.Identity()) as trace:
        call()
    assert sum(trace.macs.values()) == expected


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_fused_transformer_layers_are_taken_apart(context):
    """In evaluation torch replaces them by operators that nothing counts."""
    layer = nn.TransformerEncoderLayer(8, 2, 32, batch_first=True).eval()
    with context(), Trace(layer) as trace:
        layer(x[0])
    tokens = 4 * 16
    projections = tokens * 8 * 8 * 4 + tokens * 8 * 32 * 2
    assert sum(trace.macs.values()) == projections + 2 * 4 * 16 * 16 * 8
    assert torch.backends.mha.get_fastpath_enabled()


def test_formulas_know_all_operators_of_this_torch():
    from mtl_core.profile.formulas import formulas

    assert {"mv", "dot", "addmv", "addbmm"} <= {op.__name__ for op in formulas()}
