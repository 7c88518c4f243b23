"""From the flat keys that a module logs to scores by task and metric."""

from collections.abc import Mapping

from torch import Tensor

from mtl_core.tasks.base import Task


def logged_scores(
    logged: Mapping[str, Tensor | float], stage: str, tasks: Mapping[str, Task]
) -> dict[str, dict[str, float]]:
    """Values of a stage by task and metric; keys of no task are left out.

    Args:
        logged: values by ``STAGE/TASK/METRIC`` or ``STAGE/TASK/GROUP/METRIC``.
        stage: ``train``, ``val`` or ``test``.
        tasks: records by name.

    Returns:
        Value by task and then by ``METRIC`` or ``GROUP/METRIC``; tasks without values are absent.

    >>> from mtl_core.tasks import Regression
    >>> logged_scores({"val/age/rmse": 2.0, "val/loss": 1.0}, "val", {"age": Regression()})
    {'age': {'rmse': 2.0}}
    """
    scores: dict[str, dict[str, float]] = {}
    for key, value in logged.items():
        parts = key.split("/", 2)
        if len(parts) == 3 and parts[0] == stage and parts[1] in tasks:
            scores.setdefault(parts[1], {})[parts[2]] = float(value)
    return {task: scores[task] for task in tasks if task in scores}
