"""How weights start: as in the reference implementation of MultiTab, or as in PyTorch."""

from typing import Literal, get_args

from torch import nn

from mtl_core.errors import UnknownNameError
from mtl_tabular.nn.attention import FeatureLayer

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
    """Draw the weights of the Linear and attention layers in a module.

    ``reference`` draws those of every Linear layer; ``library`` leaves them as they are. Under both
    rules, queries, keys and values start as in `torch.nn.MultiheadAttention` (Xavier uniform over
    the fused matrix), and biases of attention at 0.

    With the reference's rule a network starts almost as a constant. On the reference's synthetic
    benchmark both rules end level after a few epochs, the library's is there sooner.

    Args:
        module: its parameters are changed in place.
        init: the rule.

    Raises:
        UnknownNameError: there is no such rule.
    """
    std = init_std(init)
    for part in module.modules():
        if isinstance(part, nn.Linear) and std is not None:
            nn.init.normal_(part.weight, std=std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, FeatureLayer):
            nn.init.xavier_uniform_(part.projection.weight)
            nn.init.zeros_(part.projection.bias)
            nn.init.zeros_(part.output.bias)
