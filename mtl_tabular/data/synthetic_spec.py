"""What a generated multitask table is made of: plain data, and its closed forms."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_tabular.data.hermite import (
    MAX_DEGREE,
    best_explained_variance,
    difficulty_score,
    label_covariance,
    label_quantiles,
    linear_explained_variance,
    signal_mean,
    signal_variance,
)
from mtl_tabular.data.relatedness import correlation_matrix

Kind = Literal["numeric", "binary", "multiclass"]
Layout = Literal["wide", "long"]

V = TypeVar("V", int, float, str)


@dataclass(frozen=True, kw_only=True)
class SyntheticSpec:
    """A multitask table whose task relatedness, number and difficulty are known.

    Rows x ~ N(0, I_F); task i sees the projection u_i = w_i·x with |w_i| = 1 and w_i·w_j = P_ij,
    and its label is y_i = u_i + u_i² + ... + u_i^k_i + q_i·N(0, 1) (MultiTab-Bench, arXiv
    2511.09970; the two-task case is from Ma et al. 2018, MMoE). What follows ``noise`` is ours.

    Where an argument takes one value or one a task, T is the number of tasks.

    Args:
        num_tasks: T.
        num_features: F, columns of the table; at least T besides the distractors.
        correlation: of the projections: one value p for all pairs, which has to lie in
            [-1/(T-1), 1], or a matrix (T, T), see `mtl_tabular.data.relatedness`. Labels of degree
            above 1 correlate less, see `label_correlation`.
        degrees: k_i, one value or one a task, in 1..12.
        noise: q_i, one value or one a task.
        relative_noise: `noise` counts in standard deviations of the task's signal, so that equal
            values are equal signal-to-noise ratios.
        standardize: labels get mean 0 and variance 1 by the closed form. False leaves them raw;
            variances then span 1..144 for degrees 1..4 and the hardest task dominates a sum of
            losses.
        kinds: ``numeric``, ``binary`` (labels above a quantile) or ``multiclass`` (quantile bins of
            equal size, the class being the position of the bin); one value or one a task.
        positives: share of the second class of binary tasks, one value or one a task.
        classes: number of classes of multiclass tasks, one value or one a task.
        num_categorical: the first so many features are shown as categories: quantile bins of equal
            frequency under shuffled codes. They inform the labels before binning, so explained
            variance then stays below its closed-form bound.
        levels: categories of each of them.
        num_distractors: the last so many features have no influence on any label. Besides, the
            F - T directions outside the span of the w_i never have.
        missing_labels: share of labels missing at random, one value or one a task.
        missing_values: share of feature values missing at random, in every column.
        layout: ``wide``, or ``long``: each row is labelled for one task only, drawn evenly (and
            not at all where that label is missing).
        nearest: project a correlation that is not positive semidefinite instead of refusing it.

    Raises:
        ArgumentError: an argument breaks its rule; lists need one entry a task.
        UnknownNameError: an unknown kind or layout.

    Example:
        >>> spec = SyntheticSpec(num_tasks=2, num_features=8, degrees=[1, 4], noise=0.0)
        >>> spec.label_correlation[0, 1].round(3).item()
        0.133
    """

    num_tasks: int = 7
    num_features: int = 32
    correlation: float | Sequence[Sequence[float]] = 0.4
    degrees: int | Sequence[int] = (1, 3, 2, 3, 4, 2, 3)
    noise: float | Sequence[float] = 0.01
    relative_noise: bool = False
    standardize: bool = True
    kinds: Kind | Sequence[Kind] = "numeric"
    positives: float | Sequence[float] = 0.5
    classes: int | Sequence[int] = 4
    num_categorical: int = 0
    levels: int = 8
    num_distractors: int = 0
    missing_labels: float | Sequence[float] = 0.0
    missing_values: float = 0.0
    layout: Layout = "wide"
    nearest: bool = False

    def __post_init__(self) -> None:
        """Check everything that can be wrong."""
        if self.num_tasks < 1:
            raise ArgumentError("num_tasks", "be at least 1", self.num_tasks)
        if self.num_distractors < 0:
            raise ArgumentError("num_distractors", "be at least 0", self.num_distractors)
        if self.num_features - self.num_distractors < self.num_tasks:
            raise ArgumentError(
                "num_features",
                f"be at least the number of tasks ({self.num_tasks}) plus that of distractors "
                f"({self.num_distractors}), or projections cannot have the asked-for correlation",
                self.num_features,
            )
        if not 0 <= self.num_categorical <= self.num_features:
            raise ArgumentError(
                "num_categorical", f"lie in 0..{self.num_features}", self.num_categorical
            )
        if self.levels < 2:
            raise ArgumentError("levels", "be at least 2", self.levels)
        if self.layout not in get_args(Layout):
            raise UnknownNameError("layout", self.layout, get_args(Layout))
        for kind in self.task_kinds:
            if kind not in get_args(Kind):
                raise UnknownNameError("kinds", kind, get_args(Kind))
        for name, values, low, high in (
            ("degrees", self.task_degrees, 1, MAX_DEGREE),
            ("noise", self.per_task("noise", self.noise), 0, float("inf")),
            ("classes", self.task_classes, 2, 100),
            ("missing_labels", self.task_missing, 0, 1),
            ("missing_values", (self.missing_values,), 0, 1),
        ):
            open_end = name.startswith("missing") or name == "noise"
            if not all(low <= v < high if open_end else low <= v <= high for v in values):
                end = f"{high})" if open_end else f"{high}]"
                raise ArgumentError(name, f"lie in [{low}, {end}", values)
        if not all(0 < share < 1 for share in self.task_positives):
            raise ArgumentError("positives", "lie in (0, 1)", self.positives)
        correlation_matrix(self.correlation, self.num_tasks, nearest=self.nearest)

    def per_task(self, name: str, given: V | Sequence[V]) -> tuple[V, ...]:
        """One value a task of an argument that may be given as a single one.

        Raises:
            ArgumentError: a list has another length than there are tasks.
        """
        if isinstance(given, int | float | str):
            return (given,) * self.num_tasks
        if len(given) != self.num_tasks:
            raise ArgumentError(name, f"have one entry a task ({self.num_tasks})", list(given))
        return tuple(given)

    @property
    def task_names(self) -> tuple[str, ...]:
        """``task1`` to ``taskT``."""
        return tuple(f"task{i + 1}" for i in range(self.num_tasks))

    @property
    def categorical_names(self) -> tuple[str, ...]:
        """``c1``, ``c2``, ..."""
        return tuple(f"c{i + 1}" for i in range(self.num_categorical))

    @property
    def numeric_names(self) -> tuple[str, ...]:
        """``x1``, ``x2``, ..."""
        return tuple(f"x{i + 1}" for i in range(self.num_features - self.num_categorical))

    @property
    def task_kinds(self) -> tuple[str, ...]:
        """Kind by task."""
        return self.per_task("kinds", self.kinds)

    @property
    def task_degrees(self) -> tuple[int, ...]:
        """K by task."""
        return self.per_task("degrees", self.degrees)

    @property
    def task_classes(self) -> tuple[int, ...]:
        """Number of classes by task, used by multiclass tasks."""
        return self.per_task("classes", self.classes)

    @property
    def task_positives(self) -> tuple[float, ...]:
        """Share of the second class by task, used by binary tasks."""
        return self.per_task("positives", self.positives)

    @property
    def task_missing(self) -> tuple[float, ...]:
        """Share of missing labels by task."""
        return self.per_task("missing_labels", self.missing_labels)

    @property
    def task_noise(self) -> tuple[float, ...]:
        """Q by task: standard deviation of the noise in the unit of the raw label."""
        given = self.per_task("noise", self.noise)
        if not self.relative_noise:
            return tuple(float(q) for q in given)
        return tuple(
            float(q * np.sqrt(signal_variance(k)))
            for q, k in zip(given, self.task_degrees, strict=True)
        )

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """P (T, T), the correlation of the projections."""
        return correlation_matrix(self.correlation, self.num_tasks, nearest=self.nearest)

    @cached_property
    def covariance(self) -> NDArray[np.float64]:
        """Covariance (T, T) of the raw labels in closed form."""
        return label_covariance(self.task_degrees, self.task_noise, self.matrix)

    @property
    def label_correlation(self) -> NDArray[np.float64]:
        """Correlation (T, T) of numeric labels in closed form; not P unless all degrees are 1."""
        std = np.sqrt(np.diag(self.covariance))
        found: NDArray[np.float64] = self.covariance / np.outer(std, std)
        return found

    @property
    def scaling(self) -> tuple[tuple[float, float], ...]:
        """Mean and standard deviation that are taken off the raw label, by task."""
        if not self.standardize:
            return ((0.0, 1.0),) * self.num_tasks
        std = np.sqrt(np.diag(self.covariance)).tolist()
        return tuple((signal_mean(k), s) for k, s in zip(self.task_degrees, std, strict=True))

    @cached_property
    def thresholds(self) -> tuple[tuple[float, ...], ...]:
        """Borders between the classes in the unit of the raw label, by task; numeric: none."""
        found = []
        for i, kind in enumerate(self.task_kinds):
            K = self.task_classes[i]
            at = {
                "numeric": (),
                "binary": (1 - self.task_positives[i],),
                "multiclass": tuple(k / K for k in range(1, K)),
            }[kind]
            found.append(label_quantiles(self.task_degrees[i], self.task_noise[i], at))
        return tuple(found)

    def best_explained_variance(self) -> tuple[float, ...]:
        """Explained variance that no model exceeds, by task; of the numeric label."""
        pairs = zip(self.task_degrees, self.task_noise, strict=True)
        return tuple(best_explained_variance(k, q) for k, q in pairs)

    def linear_explained_variance(self) -> tuple[float, ...]:
        """Explained variance of the best linear model, by task."""
        pairs = zip(self.task_degrees, self.task_noise, strict=True)
        return tuple(linear_explained_variance(k, q) for k, q in pairs)

    def difficulty_scores(self, explained_variance: Sequence[float]) -> tuple[float, ...]:
        """`mtl_tabular.data.hermite.difficulty_score` by task."""
        if len(explained_variance) != self.num_tasks:
            raise ArgumentError(
                "explained_variance",
                f"have one entry a task ({self.num_tasks})",
                list(explained_variance),
            )
        triples = zip(explained_variance, self.task_degrees, self.task_noise, strict=True)
        return tuple(difficulty_score(*triple) for triple in triples)

    def plain(self) -> dict[str, Any]:
        """The arguments as JSON holds them; ``SyntheticSpec(**plain)`` is the same spec."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found
