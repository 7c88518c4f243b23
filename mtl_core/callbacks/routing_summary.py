"""Running averages of who uses which expert, and the numbers that describe them."""

import csv
import io
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_core.moe import UsageMeter, overlap
from mtl_core.types import TaskName


class RoutingSummary:
    """By layer and task, how choices and weights are spread over the experts.

    Two `mtl_core.moe.UsageMeter`: one of how often an expert is chosen, one of the weight that it
    is given. Where a router takes all experts, the second tells something and the first nothing;
    `shares` is the one that does.

    Args:
        tasks: names.
        layers: names, in the order of tables and figures.
        dense: the layers whose routers take all experts.
        decay: of the averages, in [0, 1); 0 keeps the last update.
        threshold: a task uses an expert whose share is more than this part of an equal share 1/E.

    Example:
        >>> summary = RoutingSummary(("semseg", "depth"), ("blocks.1",), decay=0.0)
        >>> counts = torch.tensor([[6.0, 6.0, 0.0, 0.0], [0.0, 6.0, 6.0, 0.0]])
        >>> summary.add("blocks.1", ("semseg", "depth"), counts, counts)
        >>> round(float(summary.overlap("blocks.1")[0, 1]), 3)
        0.333
        >>> summary.numbers()["entropy/depth"]
        0.5
    """

    def __init__(
        self,
        tasks: Sequence[TaskName],
        layers: Sequence[str],
        *,
        dense: Collection[str] = (),
        decay: float = 0.9,
        threshold: float = 0.5,
    ) -> None:
        self.tasks = tuple(tasks)
        self.dense = frozenset(dense)
        self.threshold = threshold
        self._order = tuple(layers)
        self._chosen = UsageMeter(self.tasks, decay=decay)
        self._weight = UsageMeter(self.tasks, decay=decay)

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers that have been seen."""
        return tuple(name for name in self._order if name in self._chosen.layers)

    def add(self, layer: str, tasks: Sequence[TaskName], chosen: Tensor, weight: Tensor) -> None:
        """Take in one look at a layer; tasks without any choice keep their averages.

        Args:
            layer: its name.
            tasks: of the rows.
            chosen: (T, E) how often each expert was chosen.
            weight: (T, E) sum of the weights that it got.
        """
        for name, counts, weights in zip(tasks, chosen, weight, strict=True):
            self._chosen.add(layer, name, counts)
            self._weight.add(layer, name, weights)

    def shares(self, layer: str) -> Tensor:
        """(T, E) of choices, or of weight where all are chosen; NaN for tasks not seen."""
        meter = self._weight if layer in self.dense else self._chosen
        return meter.frequencies(layer)

    def entropy(self, layer: str) -> Tensor:
        """(T,) entropy of the shares over log E: 0 one expert, 1 all alike."""
        meter = self._weight if layer in self.dense else self._chosen
        return meter.entropy(layer)

    def overlap(self, layer: str) -> Tensor:
        """(T, T) Jaccard index of the experts that two tasks use; NaN for tasks not seen."""
        shares = self.shares(layer)
        unseen = shares.isnan().any(1)
        found = overlap(shares.nan_to_num(), self.threshold / shares.shape[1]).double()
        found[unseen], found[:, unseen] = torch.nan, torch.nan
        return found

    def numbers(self) -> dict[str, float]:
        """Means over layers by name; what is not known yet is left out."""
        entropies = [self.entropy(layer) for layer in self.layers]
        found: dict[str, float] = {}
        if entropies:
            by_task = torch.stack(entropies).nanmean(0).tolist()
            found |= {f"entropy/{n}": v for n, v in zip(self.tasks, by_task, strict=True)}
            others = torch.stack([_with_others(self.overlap(layer)) for layer in self.layers])
            found["overlap"] = float(others.nanmean())
            found["largest"] = max(float(self.shares(n).nan_to_num().max()) for n in self.layers)
        return {key: value for key, value in found.items() if not math.isnan(value)}

    def rows(self) -> list[list[Any]]:
        """Layer, task, entropy, largest share, and mean overlap with the other tasks."""
        found: list[list[Any]] = []
        for layer in self.layers:
            values = self.entropy(layer), self.shares(layer).amax(1)
            columns = [v.tolist() for v in (*values, _with_others(self.overlap(layer)))]
            found += [
                [layer, *row]
                for row in zip(self.tasks, *columns, strict=True)
                if not math.isnan(row[1])
            ]
        return found

    def as_csv(self) -> str:
        """Layer, task, expert, share of choices, share of weight: a line each."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["layer", "task", "expert", "chosen", "weight"])
        for layer in self.layers:
            chosen, weight = (m.frequencies(layer) for m in (self._chosen, self._weight))
            for i, task in enumerate(self.tasks):
                pairs = zip(chosen[i].tolist(), weight[i].tolist(), strict=True)
                for expert, values in enumerate(pairs):
                    if not math.isnan(values[0]):
                        writer.writerow([layer, task, expert, *(f"{v:.6g}" for v in values)])
        return text.getvalue()

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON; None for what is not known."""
        layers = {}
        for name in self.layers:
            chosen, weight = (m.frequencies(name) for m in (self._chosen, self._weight))
            layers[name] = {
                "takes_all_experts": name in self.dense,
                "chosen": _by_task(self.tasks, chosen),
                "weight": _by_task(self.tasks, weight),
                "entropy": _by_task(self.tasks, self.entropy(name)),
                "overlap": _by_task(self.tasks, self.overlap(name)),
            }
        return {"tasks": list(self.tasks), "means": self.numbers(), "layers": layers}

    def state_dict(self) -> dict[str, Any]:
        """The averages."""
        return {"chosen": self._chosen.state_dict(), "weight": self._weight.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        self._chosen.load_state_dict(state["chosen"])
        self._weight.load_state_dict(state["weight"])


def _with_others(matrix: Tensor) -> Tensor:
    """(T,) mean of every row without its diagonal; NaN for a single task."""
    off = ~torch.eye(len(matrix), dtype=torch.bool)
    return matrix.masked_fill(~off, torch.nan).nanmean(1)


def _by_task(tasks: Sequence[TaskName], values: Tensor) -> dict[TaskName, Any]:
    return {
        name: None if bool(row.isnan().all()) else _plain(row.tolist())
        for name, row in zip(tasks, values, strict=True)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if math.isnan(value) else round(value, 6)
