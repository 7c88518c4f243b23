"""What travels from a data set to the training step."""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, Required, TypedDict

import numpy as np
import torch
from torch import Tensor

from mtl_core.errors import ArgumentError, LabelError
from mtl_core.types import Inputs, TaskName


class Sample(TypedDict, total=False):
    """One item of a data set, before transforms and collation.

    ``inputs`` is an array (an RGB image is (H, W, 3) uint8) or arrays by name. A task that is
    absent from ``targets`` is unlabelled for this sample. Arrays may be NumPy or torch.
    """

    inputs: Required[Any]
    targets: Required[dict[TaskName, Any]]
    valid: NotRequired[dict[TaskName, Any]]
    """Elements of a target that count, in addition to what the task itself excludes."""
    group: NotRequired[dict[TaskName, int]]
    """Index of the sample's sub-population by task."""
    tags: NotRequired[dict[str, int]]
    """Index by level (domain, camera), handed to the network beside the inputs."""
    key: NotRequired[str]
    """What identifies the sample to a person: a path, a row number."""


class Batch(TypedDict, total=False):
    """Samples stacked along B; what a training step receives.

    Two-sided data (queries against candidates) put several tensors into ``inputs`` by name, whose
    first axes may differ, and a (B, M) block into ``targets`` and ``valid``.
    """

    inputs: Required[Inputs]
    targets: Required[dict[TaskName, Tensor]]
    labelled: NotRequired[dict[TaskName, Tensor]]
    """(B,) bool by task: which samples carry a label. An absent entry means all of them."""
    valid: NotRequired[dict[TaskName, Tensor]]
    """(B, ...) bool by task, combined with the task's own mask."""
    group: NotRequired[dict[TaskName, Tensor]]
    """(B,) int64 by task."""
    tags: NotRequired[dict[str, Tensor]]
    """(B,) int64 by level."""
    keys: NotRequired[list[str]]
    """One per sample."""


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    array = np.asarray(value)
    if array.dtype == np.uint16:
        array = array.astype(np.int32)
    return torch.as_tensor(np.ascontiguousarray(array) if array.ndim else array)


def _stack(values: Sequence[Any], what: str) -> Tensor:
    tensors = [_tensor(value) for value in values]
    shapes = {tuple(t.shape) for t in tensors}
    if len(shapes) > 1:
        raise LabelError(what, "have one shape within a batch", sorted(shapes))
    return torch.stack(tensors)


def _stack_partial(values: Sequence[Any | None], what: str) -> tuple[Tensor, Tensor]:
    """Stack what is there, zeros elsewhere; and the (B,) mask of what is there."""
    known = [_tensor(v) for v in values if v is not None]
    filler = torch.zeros_like(known[0])
    stacked = _stack([filler if v is None else v for v in values], what)
    return stacked, torch.tensor([v is not None for v in values])


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples; a target missing from some gives zeros there and an entry in ``labelled``.

    A task that no sample of the batch is labelled for is absent from ``targets``: it is inactive.
    """
    first = samples[0]["inputs"]
    inputs: Inputs
    if isinstance(first, Mapping):
        inputs = {name: _stack([s["inputs"][name] for s in samples], name) for name in first}
    else:
        inputs = _stack([s["inputs"] for s in samples], "inputs")
    batch: Batch = {"inputs": inputs, "targets": {}}
    for name in dict.fromkeys(name for s in samples for name in s["targets"]):
        values = [s["targets"].get(name) for s in samples]
        batch["targets"][name], labelled = _stack_partial(values, name)
        if not bool(labelled.all()):
            batch.setdefault("labelled", {})[name] = labelled
        valid = [s.get("valid", {}).get(name) for s in samples]
        if any(v is not None for v in valid):
            # A sample without a mask counts entirely; one without a label is masked anyway.
            like = torch.ones_like(_tensor(next(v for v in valid if v is not None)))
            batch.setdefault("valid", {})[name] = _stack(
                [like if v is None else v for v in valid], name
            )
        group = [s.get("group", {}).get(name) for s in samples]
        if any(g is not None for g in group):
            for sample, value, member in zip(samples, values, group, strict=True):
                if value is not None and member is None:
                    where = f"sample {sample.get('key', '')!r}"
                    raise LabelError(name, "come with their group in every sample", None, where)
            batch.setdefault("group", {})[name] = torch.tensor(
                [-1 if g is None else g for g in group]
            )
    for level in _tag_levels(samples):
        batch.setdefault("tags", {})[level] = torch.tensor([s["tags"][level] for s in samples])
    if any("key" in s for s in samples):
        batch["keys"] = [s.get("key", "") for s in samples]
    return batch


def _tag_levels(samples: Sequence[Sample]) -> list[str]:
    """Tag levels of a list of samples; every sample has to carry all of them."""
    levels = list(samples[0].get("tags", {}))
    for sample in samples:
        if set(sample.get("tags", {})) != set(levels):
            raise LabelError(
                "tags", f"be given for every sample ({levels})", sample.get("tags", {})
            )
    return levels


def batch_size(batch: Batch) -> int:
    """B, read from the targets where there are any (two-sided inputs have several first axes)."""
    for target in batch["targets"].values():
        return int(target.shape[0])
    if "keys" in batch:
        return len(batch["keys"])
    inputs = batch["inputs"]
    first = inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()))
    return int(first.shape[0])


def take_samples(batch: Batch, part: slice) -> Batch:
    """The samples of a batch that a slice picks.

    Raises:
        ArgumentError: an input whose first axis is not the samples (two-sided data).
    """
    size = batch_size(batch)

    def cut(value: Tensor, what: str) -> Tensor:
        if value.shape[0] != size:
            raise ArgumentError(what, f"have one row a sample ({size}) to be split", len(value))
        return value[part]

    inputs = batch["inputs"]
    taken: Batch = {
        "inputs": cut(inputs, "inputs")
        if isinstance(inputs, Tensor)
        else {name: cut(value, f"inputs[{name!r}]") for name, value in inputs.items()},
        "targets": {n: cut(t, f"targets[{n!r}]") for n, t in batch["targets"].items()},
    }
    for key in ("labelled", "valid", "group", "tags"):
        if key in batch:
            taken[key] = {n: cut(t, f"{key}[{n!r}]") for n, t in batch[key].items()}
    if "keys" in batch:
        taken["keys"] = batch["keys"][part]
    return taken
