"""Which tokens of a row may read which: the masks between task tokens and feature tokens."""

from typing import Literal, get_args

import torch
from torch import Tensor

from mtl_core.errors import ArgumentError, UnknownNameError

MaskName = Literal["none", "FxT", "TxT", "FxT_TxT"]
"""``none``; features do not read tasks; tasks do not read each other; both."""


def blocked_pairs(mask: str, tasks: int, features: int) -> Tensor:
    """Pairs of tokens between which attention is forbidden.

    Task tokens may always read features and themselves, features always read features
    (MultiTab-Net, arXiv 2511.09970).

    Args:
        mask: a `MaskName`.
        tasks: T, number of task tokens; they come first.
        features: d, number of feature tokens.

    Returns:
        (T + d, T + d) bool: row = the token that reads, column = the token that is read, True =
        blocked.

    Raises:
        UnknownNameError: there is no such mask.
        ArgumentError: there is no task or no feature.

    Example:
        >>> blocked_pairs("TxT", 2, 1).int().tolist()
        [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    """
    names = get_args(MaskName)
    if mask not in names:
        raise UnknownNameError("mask", mask, names)
    if tasks < 1 or features < 1:
        raise ArgumentError("tasks and features", "be at least 1", (tasks, features))
    blocked = torch.zeros(tasks + features, tasks + features, dtype=torch.bool)
    if mask in ("FxT", "FxT_TxT"):
        blocked[tasks:, :tasks] = True
    if mask in ("TxT", "FxT_TxT"):
        blocked[:tasks, :tasks] = ~torch.eye(tasks, dtype=torch.bool)
    return blocked
