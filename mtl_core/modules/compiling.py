"""`torch.compile` of many modules, each of which stays compiled."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.compiler import config

VARIANTS = 8
"""Programs of one module: training and evaluation, with and without gradients, static shapes and
dynamic ones."""


def compile_parts(parts: Iterable[nn.Module], **options: Any) -> None:
    """Compile modules in place, one by one.

    Modules compiled one by one count together against torch's limit of programs, eight unless
    changed; what comes after it runs uncompiled, with nothing but a line in the log. The limit is
    of the process, and is raised here to `VARIANTS` a module; modules of the same structure go on
    sharing their programs. Under torch 2.11, modules that hold nothing but torch's own, such as a
    plain `nn.Sequential` of layers, stay eager.

    Args:
        parts: modules, such as `MultiTaskNetwork.compiled_parts`.
        options: of `torch.compile`.
    """
    parts = list(parts)
    programs = VARIANTS * len(parts)
    config.recompile_limit = max(config.recompile_limit, programs)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, programs)
    for part in parts:
        part.compile(**options)
