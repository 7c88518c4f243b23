"""One decoder per task: a default for dense tasks, exceptions by name."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import nn

from mtl_core.errors import UnknownNameError
from mtl_core.nn import Decoder, FeatureInfo, LinearDecoder
from mtl_core.tasks import Task

DecoderFactory: TypeAlias = Callable[[FeatureInfo, Task], Decoder]
"""Builds one task's decoder: a class, a `functools.partial` of one; ``class_path`` in a config."""


def build_decoders(
    info: FeatureInfo,
    tasks: Mapping[str, Task],
    decoder: DecoderFactory,
    decoders: Mapping[str, DecoderFactory] | None = None,
) -> nn.ModuleDict:
    """Decoders by task name, in the order of `tasks`.

    Args:
        info: shapes of the features.
        tasks: records by name.
        decoder: for every dense task; tasks of whole images take `mtl_core.nn.LinearDecoder`.
        decoders: exceptions by task name.

    Raises:
        UnknownNameError: an exception names no task.
    """
    chosen = dict(decoders or {})
    for name in chosen:
        if name not in tasks:
            raise UnknownNameError("decoders", name, tasks)
    return nn.ModuleDict(
        {
            name: chosen.get(name, decoder if task.dense else LinearDecoder)(info, task)
            for name, task in tasks.items()
        }
    )
