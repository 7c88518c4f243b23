"""Multi-task gain Δm over single-task references.

Δm = 100/T · Σ_t (−1)^{l_t} (M_t − S_t) / S_t, with l_t = 1 where lower is better (Maninis et al.
2019, ASTMT; Vandenhende et al. 2021, the dense survey). With several metrics a task, its term is
the mean over them, so that many metrics weigh no more than one (Lin and Zhang 2023, LibMTL).
"""

import math
from collections.abc import Mapping

from mtl_core.errors import ArgumentError, MissingTaskError, MixedProtocolError, UnknownNameError

Scores = Mapping[str, Mapping[str, float]]
"""Value by task and metric."""


def relative_gain(value: float, reference: float, *, higher_is_better: bool) -> float:
    """Signed gain of `value` over `reference` in percent; positive is an improvement.

    Args:
        value: of the multi-task model.
        reference: of the single-task model, finite and not zero, in the same unit.
        higher_is_better: direction of the metric.

    Raises:
        ArgumentError: the reference is zero, NaN or infinite.

    >>> relative_gain(0.55, 0.50, higher_is_better=True)  # doctest: +ELLIPSIS
    10.0...
    >>> relative_gain(0.55, 0.50, higher_is_better=False)  # doctest: +ELLIPSIS
    -10.0...
    """
    if not math.isfinite(reference) or reference == 0:
        raise ArgumentError("reference", "be finite and not zero", reference)
    gain = 100.0 * (value - reference) / abs(reference)
    return gain if higher_is_better else -gain


def task_gains(
    values: Scores,
    references: Scores,
    higher_is_better: Mapping[str, Mapping[str, bool]],
    *,
    primary: Mapping[str, str] | None = None,
    protocol: str = "",
    reference_protocol: str = "",
) -> dict[str, float]:
    """Gain of every task in percent: the terms whose mean is Δm.

    Args:
        values: metrics of the multi-task model.
        references: metrics of the single-task models; further tasks and metrics are allowed.
        higher_is_better: direction by task and metric.
        primary: the one metric a task is judged by; None averages over all of
            `higher_is_better`.
        protocol: evaluation protocol of `values`, empty where there is only one.
        reference_protocol: that of `references`.

    Raises:
        MixedProtocolError: the two protocols differ.
        MissingTaskError: a task has no reference.
        UnknownNameError: a metric is missing in `values` or `references`.
        ArgumentError: no task is given, or a reference is zero or not finite.
    """
    if protocol != reference_protocol:
        raise MixedProtocolError({"this run": protocol, "the references": reference_protocol})
    if not values:
        raise ArgumentError("values", "hold at least one task", dict(values))
    gains = {}
    for task, scores in values.items():
        if task not in references:
            raise MissingTaskError(task, references, "the single-task references")
        names = [primary[task]] if primary is not None else list(higher_is_better[task])
        for name in names:
            for source, held in (("values", scores), ("references", references[task])):
                if name not in held:
                    raise UnknownNameError(f"metric of task {task!r} in {source}", name, held)
        gains[task] = math.fsum(
            relative_gain(
                scores[name], references[task][name], higher_is_better=higher_is_better[task][name]
            )
            for name in names
        ) / len(names)
    return gains


def delta_m(
    values: Scores,
    references: Scores,
    higher_is_better: Mapping[str, Mapping[str, bool]],
    *,
    primary: Mapping[str, str] | None = None,
    protocol: str = "",
    reference_protocol: str = "",
) -> float:
    """Δm in percent: the mean of `task_gains`, which describes arguments and errors."""
    gains = task_gains(
        values,
        references,
        higher_is_better,
        primary=primary,
        protocol=protocol,
        reference_protocol=reference_protocol,
    )
    return math.fsum(gains.values()) / len(gains)
