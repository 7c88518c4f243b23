"""Which experts serve which task: running frequencies, overlap between tasks, entropy."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.moe.router import RouterOut
from mtl_core.types import TaskName


def expert_counts(idx: Tensor, num_experts: int) -> Tensor:
    """How often each expert was chosen, (E,) float64, from indices of any shape."""
    return torch.bincount(idx.flatten(), minlength=num_experts).double()


def overlap(frequencies: Tensor, threshold: float = 0.0) -> Tensor:
    """Jaccard index of the tasks' sets of used experts.

    Args:
        frequencies: (T, E) shares.
        threshold: an expert is used where its share is larger.

    Returns:
        (T, T) in [0, 1]; 1 for two tasks that use none.

    >>> overlap(torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]))[0, 1].item()
    0.3333333432674408
    """
    used = (frequencies > threshold).float()
    both = used @ used.t()
    either = used.sum(1, keepdim=True) + used.sum(1) - both
    return torch.where(either > 0, both / either.clamp_min(1), 1.0)


class UsageMeter:
    r"""Exponential moving average F[layer, task, e] of the share of (token, slot) pairs.

    The first update of a layer and task sets the average, later ones move it by 1 − `decay`.

    Args:
        tasks: names.
        decay: in [0, 1); 0 keeps the last update only.

    Example:
        >>> from mtl_core.moe.router import choose
        >>> meter = UsageMeter(("semseg", "depth"))
        >>> meter.update("blocks.1", "depth", choose(torch.tensor([[0.0, 1.0, 2.0]]), 2, "none"))
        >>> meter.frequencies("blocks.1")[1].tolist()
        [0.0, 0.5, 0.5]
    """

    def __init__(self, tasks: Sequence[TaskName], *, decay: float = 0.99) -> None:
        if not 0 <= decay < 1:
            raise ArgumentError("decay", "lie in [0, 1)", decay)
        self.tasks = tuple(tasks)
        self.decay = decay
        self._held: dict[str, Tensor] = {}

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers seen, in the order in which they were."""
        return tuple(self._held)

    @torch.no_grad()
    def update(self, layer: str, task: TaskName | Tensor, out: RouterOut) -> None:
        """Take in one routing.

        Args:
            layer: its name.
            task: a name, or (B,) indices into the tasks, B being the first axis of the routing.
            out: the routing.
        """
        count = out.logits.shape[-1]
        if isinstance(task, str):
            if task not in self.tasks:
                raise UnknownNameError("task", task, self.tasks)
            self.add(layer, task, expert_counts(out.idx, count))
            return
        for number in task.unique().tolist():
            self.add(layer, self.tasks[number], expert_counts(out.idx[task == number], count))

    def add(self, layer: str, task: TaskName, counts: Tensor) -> None:
        """Take in counts (E,), for instance those of several processes together."""
        total = counts.sum()
        if not total > 0:
            return
        share = (counts / total).double().cpu()
        held = self._held.get(layer)
        if held is None or held.shape[1] != len(share):
            empty = torch.full((len(self.tasks), len(share)), torch.nan, dtype=torch.float64)
            held = self._held[layer] = empty
        row = held[self.tasks.index(task)]
        row.copy_(share if bool(row.isnan().any()) else row.lerp(share, 1 - self.decay))

    def frequencies(self, layer: str) -> Tensor:
        """(T, E) shares, rows that sum to 1; NaN for tasks that have not been seen."""
        if layer not in self._held:
            raise UnknownNameError("layer", layer, self._held)
        return self._held[layer].clone()

    def overlap(self, layer: str, threshold: float = 0.0) -> Tensor:
        """(T, T) Jaccard indices of used experts, see `overlap`; NaN for tasks not seen."""
        shares = self.frequencies(layer)
        unseen = shares.isnan().any(1)
        found = overlap(shares.nan_to_num(), threshold)
        found[unseen], found[:, unseen] = torch.nan, torch.nan
        return found

    def entropy(self, layer: str) -> Tensor:
        """(T,) entropy of every task's shares over log E: 0 for one expert, 1 for equal use."""
        shares = self.frequencies(layer)
        if shares.shape[1] == 1:
            return torch.zeros(len(shares), dtype=torch.float64)
        found: Tensor = torch.special.entr(shares).sum(1)
        return found / torch.log(torch.tensor(float(shares.shape[1]), dtype=torch.float64))

    def state_dict(self) -> dict[str, Any]:
        """The averages."""
        return {layer: held.clone() for layer, held in self._held.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        self._held = {layer: held.clone() for layer, held in state.items()}
