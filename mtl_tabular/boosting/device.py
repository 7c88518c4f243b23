"""Where XGBoost works: it would go on without a GPU that is asked for, we refuse."""

import re

import torch
import xgboost as xgb

from mtl_core.errors import ArgumentError


def check_device(device: str) -> None:
    """Refuse a device that is not there.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:<number>``.

    Raises:
        ArgumentError: another word, an XGBoost without CUDA, or no such GPU.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ArgumentError("device", "be cpu, cuda or cuda:<number>", device)
    if present_device(device) == device:
        return
    found = f"{device}, but {torch.cuda.device_count()} GPUs"
    if not xgb.build_info().get("USE_CUDA"):
        found = f"{device}, but an XGBoost that was built without CUDA"
    raise ArgumentError("device", "be cpu where there is no such GPU", found)


def present_device(device: str) -> str:
    """The device where it is there, else ``cpu``: what a model that was trained elsewhere works on.

    >>> present_device("cpu")
    'cpu'
    """
    number = int(device.partition(":")[2] or 0)
    there = torch.cuda.device_count() if xgb.build_info().get("USE_CUDA") else 0
    return device if device == "cpu" or number < there else "cpu"
