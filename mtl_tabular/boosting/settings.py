"""Arguments of the R-MTGB estimators, checked, and what they mean for trees and training."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError
from mtl_tabular.boosting.additive import AdditiveModel
from mtl_tabular.boosting.device import present_device
from mtl_tabular.boosting.objectives import Floats, initial_theta
from mtl_tabular.boosting.training import Plan

ABLATIONS: dict[str, dict[str, Any]] = {
    "pooled": {"group_rounds": 0, "task_rounds": 0},
    "single": {"shared_rounds": 0, "group_rounds": 0},
    "mtgb": {"group_rounds": 0},
    "feature": {"group_rounds": 0, "task_rounds": 0, "task_feature": "categorical"},
}
"""Arguments that leave blocks of R-MTGB out: one model for all tasks, one a task, MT-GB (shared and
task blocks), and one model with the task as a feature."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The numbers among the arguments, under the same names; `RMTGBRegressor` describes them.

    Raises:
        ArgumentError: an argument breaks its rule.
    """

    shared_rounds: int
    group_rounds: int
    task_rounds: int
    n_groups: int
    schedule: str
    learning_rate: float
    max_depth: int
    task_depth: int | None
    reg_lambda: float
    task_reg_lambda: float | None
    min_child_weight: float
    group_min_child_weight: float
    subsample: float
    colsample: float
    max_bin: int
    theta_rate: float
    theta_penalty: float
    task_feature: str
    min_task_rows: int
    task_shrinkage: float
    early_stopping: bool
    validation_fraction: float
    patience: int
    reference_mode: bool
    device: str
    n_jobs: int | None

    def __post_init__(self) -> None:
        """Check every argument."""
        for name, least in (
            ("shared_rounds", 0), ("group_rounds", 0), ("task_rounds", 0), ("n_groups", 2),
            ("max_depth", 1), ("reg_lambda", 0), ("min_child_weight", 0),
            ("group_min_child_weight", 0), ("max_bin", 2), ("min_task_rows", 1),
            ("task_shrinkage", 0), ("patience", 1),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ArgumentError(name, f"be at least {least}", getattr(self, name))
        for name in ("learning_rate", "subsample", "colsample", "theta_rate"):
            if not 0 < getattr(self, name) <= 1:
                raise ArgumentError(name, "lie in (0, 1]", getattr(self, name))
        for name in ("task_depth", "n_jobs"):
            value = getattr(self, name)
            if value is not None and (value < 1 and not (name == "n_jobs" and value == -1)):
                raise ArgumentError(name, "be at least 1", value)
        if self.task_reg_lambda is not None and self.task_reg_lambda < 0:
            raise ArgumentError("task_reg_lambda", "be at least 0", self.task_reg_lambda)
        if not self.theta_penalty > 0:
            raise ArgumentError("theta_penalty", "be positive", self.theta_penalty)
        if not 0 < self.validation_fraction <= 0.5:
            raise ArgumentError("validation_fraction", "lie in (0, 0.5]", self.validation_fraction)
        for name, allowed in (
            ("schedule", ("sequential", "interleaved", "auto")),
            ("task_feature", ("none", "categorical", "one-hot")),
        ):
            if getattr(self, name) not in allowed:
                raise ArgumentError(name, f"be one of {', '.join(allowed)}", getattr(self, name))
        if not any((self.shared_rounds, self.group_rounds, self.task_rounds)):
            raise ArgumentError("shared_rounds", "be positive, or those of another block", 0)
        if self.reference_mode and (self.schedule != "sequential" or self.n_groups != 2):
            rule = "be left out but for two groups and the sequential schedule"
            raise ArgumentError("reference_mode", rule, (self.schedule, self.n_groups))

    @classmethod
    def of(cls, estimator: Any) -> Self:
        """Those of an estimator."""
        return cls(**{name: getattr(estimator, name) for name in cls.__dataclass_fields__})

    @property
    def per_task(self) -> bool:
        """Whether tasks have blocks of their own."""
        return self.task_rounds > 0

    @property
    def interleaved(self) -> bool:
        """Whether blocks grow in turns."""
        return self.schedule == "interleaved"

    def plan(self, *, watched: bool, tasks: int) -> Plan:
        """Lengths and step rules.

        Args:
            watched: whether there are held-out rows.
            tasks: T. Of a single task there are no groups where another block can learn it.
        """
        n1, n2, n3 = self.shared_rounds, self.group_rounds, self.task_rounds
        if tasks == 1 and (n1 or n3) and not self.reference_mode:
            n2 = 0
        stops = watched and self.early_stopping and not self.reference_mode
        return Plan(
            rounds=(n1, n2, n3),
            interleaved=self.interleaved,
            patience=self.patience if stops else 0,
            theta_rate=self.theta_rate,
            theta_penalty=self.theta_penalty,
            min_task_rows=1 if self.reference_mode else self.min_task_rows,
            reference=self.reference_mode,
            learning_rate=self.learning_rate,
        )

    def trees(self, seed: int, rows: NDArray[Any], outputs: int) -> dict[str, Any]:
        """Parameters of XGBoost's trees: ``shared``, ``grouped`` (one a group), ``own`` (a task).

        Args:
            seed: of row and column samples; every block has its own.
            rows: (T,) training rows of every task.
            outputs: K.
        """
        rate = self.learning_rate / 2 if self.interleaved else self.learning_rate
        threads = {None: 1, -1: 0}.get(self.n_jobs, self.n_jobs)
        common: dict[str, Any] = {
            "learning_rate": rate, "max_depth": self.max_depth, "reg_lambda": self.reg_lambda,
            "min_child_weight": self.min_child_weight, "subsample": self.subsample,
            "colsample_bytree": self.colsample, "max_bin": self.max_bin, "tree_method": "hist",
            "nthread": threads, "device": present_device(self.device),
        }  # fmt: skip
        if self.reference_mode:  # exact stumps with leaves of first order
            common |= {"max_depth": 1, "reg_lambda": 0.0, "min_child_weight": 0.0}
            if outputs == 1:
                common["tree_method"] = "exact"
                del common["max_bin"]
            else:  # trees of several outputs are histogram trees; a bin for every value is exact
                common |= {"multi_strategy": "multi_output_tree", "max_bin": 1 << 16}
        own = dict(common)
        if not self.reference_mode:
            own["max_depth"] = self.max_depth if self.task_depth is None else self.task_depth
            if self.task_reg_lambda is not None:
                own["reg_lambda"] = self.task_reg_lambda
        grouped = common | (
            {} if self.reference_mode else {"min_child_weight": self.group_min_child_weight}
        )
        own_rates = rate * rows / np.maximum(rows + self.task_shrinkage, 1)
        return {
            "shared": common | {"seed": seed},
            "grouped": [grouped | {"seed": seed + 1 + g} for g in range(self.n_groups)],
            "own": [
                own | {"seed": seed + 1 + self.n_groups + r, "learning_rate": float(own_rates[r])}
                for r in range(len(rows))
            ],
        }


def candidates(settings: Settings) -> dict[str, Settings]:
    """What the schedule ``auto`` chooses from by held-out loss.

    Pooled, single-task and MT-GB models have as many rounds as the longest block in theirs.
    """
    most = max(settings.shared_rounds, settings.group_rounds, settings.task_rounds)
    n1, n2, n3 = settings.shared_rounds, settings.group_rounds, settings.task_rounds
    found = {
        "pooled": ("sequential", most, 0, 0),
        "single": ("sequential", 0, 0, most),
        "mtgb": ("sequential", most, 0, n3),
        "sequential": ("sequential", n1, n2, n3),
        "groups": ("sequential", 0, n2, n3),
        "interleaved": ("interleaved", n1, n2, n3),
    }
    return {
        name: replace(settings, schedule=schedule, shared_rounds=a, group_rounds=b, task_rounds=c)
        for name, (schedule, a, b, c) in found.items()
        if a or b or c
    }


TOGETHER_ROWS = 1000
"""A booster of XGBoost a task is faster where tasks have more rows than this on average."""


def new_model(
    settings: Settings,
    rows: NDArray[Any],
    intercept: Floats,
    seed: int,
    *,
    together: bool = True,
) -> AdditiveModel:
    """A model before the first round.

    Args:
        settings: of its trees and groups.
        rows: (T,) training rows of every task.
        intercept: (K,).
        seed: of the logits' start and of samples.
        together: whether the trees of all tasks grow together, see `AdditiveModel`.
    """
    return AdditiveModel(
        count=len(rows),
        groups=settings.n_groups,
        intercept=intercept,
        theta=initial_theta(len(rows), settings.n_groups, seed),
        rows=rows,
        together=together,
        **settings.trees(seed, rows, len(intercept)),
    )
