"""Configs of single-task runs, made from the config that all methods share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mtl_core.atomic import atomic_write
from mtl_core.compare.comparison import Comparison
from mtl_core.compare.jobs import config_trial
from mtl_core.errors import ArgumentError
from mtl_core.trial import Runner
from mtl_core.trial.record import LOG


def printed_config(text: str) -> dict[str, Any]:
    """The config that ``--print_config`` has left in a log, whatever stands above it.

    Raises:
        ArgumentError: there is none.
    """
    lines = text.splitlines()
    begins = [
        i for i, line in enumerate(lines) if line.startswith(("seed_everything:", "# lightn"))
    ]
    for begin in begins:
        try:
            found = yaml.safe_load("\n".join(lines[begin:]))
        except yaml.YAMLError:
            continue
        if isinstance(found, Mapping) and "tasks" in found:
            return dict(found)
    raise ArgumentError("the shared config", "be printed by fit --print_config", text[-300:])


def write_single_configs(comparison: Comparison, runner: Runner, folder: Path) -> dict[str, Path]:
    """Write the config of each task alone; those that are there already stay.

    Args:
        comparison: whose words give the shared config; the words of methods have no part in it.
        runner: that prints it.
        folder: for the files.

    Returns:
        A file by task.

    Raises:
        ArgumentError: the shared config does not parse, or lacks a task of the plan.
    """
    paths = {task: folder / f"{task}.yaml" for task in comparison.plan.metrics}
    if all(path.is_file() for path in paths.values()):
        return paths
    from mtl_core.single_task import single_task_config  # brings in Lightning, seconds

    trial = config_trial(comparison, folder)
    outcome = runner.run(trial)
    if outcome.status != "finished":
        raise ArgumentError("run.words", "be a config that fit takes", outcome.reason)
    config = printed_config((trial.folder / LOG).read_text())
    for task, path in paths.items():
        if task not in config["tasks"]:
            raise ArgumentError("tasks", "name tasks of the config", task)
        single = single_task_config(config, task, folder)
        with atomic_write(path) as file:
            file.write(yaml.safe_dump(single, sort_keys=False).encode())
    return paths
