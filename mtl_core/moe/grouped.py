"""Products of all experts in one kernel, where torch has one."""

import torch
import torch.nn.functional as F
from torch import Tensor


def has_grouped(x: Tensor) -> bool:
    """Whether `grouped_linear` works on tokens of this type and device.

    torch offers grouped products for bfloat16 on CUDA of compute capability 8.0 and above
    (``torch.nn.functional.grouped_mm``), of widths that are multiples of 16 bytes.
    """
    return (
        hasattr(F, "grouped_mm")
        and x.device.type == "cuda"
        and x.dtype == torch.bfloat16
        and x.shape[-1] % 8 == 0
        and torch.cuda.get_device_capability(x.device) >= (8, 0)
    )


def grouped_linear(x: Tensor, weight: Tensor, bias: Tensor, expert: Tensor, ends: Tensor) -> Tensor:
    """Each row times its expert's matrix, plus its expert's bias.

    Args:
        x: (P, D) rows in the order of experts.
        weight: (E, D, h).
        bias: (E, h).
        expert: (P,) of every row.
        ends: (E,) where each expert's rows end.

    Returns:
        (P, h) in the type of `x`.
    """
    product: Tensor = F.grouped_mm(x, weight.to(x.dtype), offs=ends.to(torch.int32))
    return product + bias.to(x.dtype).index_select(0, expert)
