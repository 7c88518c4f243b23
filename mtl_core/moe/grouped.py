"""Products of all experts in one kernel, where torch has one."""

import torch
import torch.nn.functional as F
from torch import Tensor


def has_grouped(x: Tensor, *widths: int) -> bool:
    """Whether `grouped_linear` takes tokens of this device and type, or of autocast's.

    torch offers grouped products for bfloat16 on CUDA of compute capability 8.0 and above
    (``torch.nn.functional.grouped_mm``), of widths that are multiples of 16 bytes.

    Args:
        x: (M, D) tokens.
        widths: of what the products take and give.
    """
    if x.device.type != "cuda" or not hasattr(F, "grouped_mm"):
        return False
    mixed = torch.is_autocast_enabled("cuda")
    kind = torch.get_autocast_dtype("cuda") if mixed else x.dtype
    able = torch.cuda.get_device_capability(x.device) >= (8, 0)
    return able and kind == torch.bfloat16 and not any(w % 8 for w in (x.shape[-1], *widths))


def grouped_linear(x: Tensor, weight: Tensor, bias: Tensor, expert: Tensor, ends: Tensor) -> Tensor:
    """Each row times its expert's matrix, plus its expert's bias.

    Args:
        x: (P, D) rows in the order of experts.
        weight: (E, D, h).
        bias: (E, h).
        expert: (P,) of every row.
        ends: (E,) where each expert's rows end.

    Returns:
        (P, h) bfloat16.
    """
    narrow = x.bfloat16()
    product: Tensor = F.grouped_mm(narrow, weight.bfloat16(), offs=ends.to(torch.int32))
    return product + bias.bfloat16().index_select(0, expert)
