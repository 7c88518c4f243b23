"""What was seen of the tasks' gradients over a run."""

import csv
import io
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtl_core.balancing.solvers import min_norm_point
from mtl_core.errors import BalancerError
from mtl_core.metrics.conflict import cosine_similarity, summary

FIGURES = (
    "cosine_mean",
    "cosine_min",
    "conflict_rate",
    "magnitude_similarity",
    "condition",
    "stationarity",
)
"""Numbers that describe all pairs at once, in the order in which they are kept."""


class Record(NamedTuple):
    """One look at the gradients; NaN stands for what an absent entry has not.

    Args:
        step: optimiser steps before it.
        norms: (T,) lengths of the gradients.
        cosines: (P,) of all pairs, P = T (T - 1) / 2, in the order of `GradientHistory.pairs`.
        weights: (T,) that the balancer gave; NaN without one.
        figures: (6,) in the order of `FIGURES`.
    """

    step: int
    norms: Tensor
    cosines: Tensor
    weights: Tensor
    figures: Tensor


def describe(gramian: Tensor) -> dict[str, float]:
    """The `FIGURES` of tasks that have a gradient; without pairs only the last, without any none.

    ``stationarity`` is the squared length of the shortest convex combination over the mean squared
    length of the gradients: zero where no direction improves all tasks.

    Args:
        gramian: (T, T) float64, symmetric positive semi-definite.
    """
    alive = gramian.diagonal() > 0
    kept = gramian[alive][:, alive]
    if not len(kept):
        return {}
    values = summary(kept)
    point = min_norm_point(kept)
    values["stationarity"] = float(point @ kept @ point / kept.diagonal().mean())
    return values


class GradientHistory:
    """Records of a run, in the order in which they were taken.

    Args:
        entries: T names.
        keep: most records to hold; where there are more, every second one is let go, and from then
            on every second one is taken.
    """

    def __init__(self, entries: Sequence[str], keep: int = 2000) -> None:
        self.entries = tuple(entries)
        self.keep = keep
        self.records: list[Record] = []
        self._seen, self._stride = 0, 1

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Positions of the two entries of every pair."""
        return list(combinations(range(len(self.entries)), 2))

    def add(
        self, step: int, present: Sequence[str], gramian: Tensor, weights: dict[str, float]
    ) -> Record:
        """Make a record of a Gramian (T, T) of all entries, some of them present, and append it."""
        absent = torch.tensor([e not in present for e in self.entries])
        norms = gramian.diagonal().clamp_min(0).sqrt().masked_fill(absent, torch.nan)
        rows, columns = torch.triu_indices(len(self.entries), len(self.entries), 1)
        silent = absent | ~(gramian.diagonal() > 0)
        hidden = silent[rows] | silent[columns]
        cosines = cosine_similarity(gramian)[rows, columns].masked_fill(hidden, torch.nan)
        told = describe(gramian)
        record = Record(
            step,
            norms.float(),
            cosines.float(),
            torch.tensor([weights.get(e, torch.nan) for e in self.entries]),
            torch.tensor([told.get(name, torch.nan) for name in FIGURES]),
        )
        if self._seen % self._stride == 0:
            self.records.append(record)
        self._seen += 1
        if len(self.records) > self.keep:
            self.records, self._stride = self.records[::2], 2 * self._stride
        return record

    def column(self, name: str) -> Tensor:
        """One field of all records, (R, ...): ``step``, ``norms``, ``cosines``, ..."""
        values = [getattr(record, name) for record in self.records]
        return torch.tensor(values) if name == "step" else torch.stack(values)

    def as_csv(self) -> str:
        """A line a record; empty where there is no value.

        Columns are ``step``, ``norm/E`` and ``weight/E`` by entry, the `FIGURES`, and
        ``cosine/E|F`` by pair.
        """
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        names = [f"norm/{e}" for e in self.entries] + [f"weight/{e}" for e in self.entries]
        pairs = [f"cosine/{self.entries[i]}|{self.entries[j]}" for i, j in self.pairs]
        writer.writerow(["step", *names, *FIGURES, *pairs])
        for r in self.records:
            values = torch.cat([r.norms, r.weights, r.figures, r.cosines]).tolist()
            writer.writerow([r.step, *("" if v != v else f"{v:.6g}" for v in values)])
        return out.getvalue()

    def state(self) -> dict[str, Any]:
        """Everything, as tensors."""
        fields = Record._fields if self.records else ()
        columns = {name: self.column(name) for name in fields}
        return {
            "entries": list(self.entries),
            "seen": self._seen,
            "stride": self._stride,
            "columns": columns,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave.

        Raises:
            BalancerError: it is of other entries.
        """
        if tuple(state["entries"]) != self.entries:
            raise BalancerError(
                f"the checkpoint's gradients are of {', '.join(state['entries'])}, this run has "
                f"{', '.join(self.entries)}."
            )
        self._seen, self._stride, self.records = state["seen"], state["stride"], []
        if state["columns"]:
            columns = [state["columns"][name] for name in Record._fields]
            self.records = [
                Record(int(step), *values) for step, *values in zip(*columns, strict=True)
            ]
