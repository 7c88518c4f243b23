"""How weights start: as in the reference implementation of MultiTab, or as in PyTorch."""

from typing import Literal, get_args

from torch import nn

from mtl_core.errors import UnknownNameError

Init = Literal["reference", "library"]
"""``reference``: normal with standard deviation 0.01, biases 0. ``library``: PyTorch's default."""


def init_std(init: Init) -> float | None:
    """Standard deviation of initial weights; None stands for PyTorch's own rule.

    Args:
        init: which of the two.

    Raises:
        UnknownNameError: it is neither.
    """
    if init not in get_args(Init):
        raise UnknownNameError("init", init, get_args(Init))
    return 0.01 if init == "reference" else None


def initialize(module: nn.Module, init: Init) -> None:
    """Draw the weights of every Linear layer in a module; ``library`` leaves them as they are.

    The reference implementation starts almost as a constant; after a few epochs both end level
    (measured on its synthetic benchmark), the library's rule starts faster.

    Args:
        module: its parameters are changed in place.
        init: the rule.

    Raises:
        UnknownNameError: there is no such rule.
    """
    std = init_std(init)
    if std is None:
        return
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
