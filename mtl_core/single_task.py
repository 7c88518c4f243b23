"""``baselines``: train every task of a config alone, of the same length and seed; record it."""

import importlib
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.cli import ArgsType, LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from mtl_core.balancing.base import Balancer
from mtl_core.baselines import plan, plan_hash, protocol_of, record
from mtl_core.callbacks.results import versions
from mtl_core.cli import MultiTaskCLI
from mtl_core.errors import MTLError
from mtl_core.metrics.logged import logged_scores


def single_task_config(config: Mapping[str, Any], task: str, folder: Path) -> dict[str, Any]:
    """The config of a single-task run that belongs to a multi-task config.

    It keeps one task, and of every mapping in the model that is keyed by tasks its entry. Balancers
    leave, and so do callbacks that watch another task; the length and everything else stays. Its
    files go below `folder`.

    Args:
        config: parsed config of ``fit`` as plain data, without what links fill in.
        task: the task that stays.
        folder: of this run.
    """
    names = list(config["tasks"])
    others = [name for name in names if name != task]
    trainer = dict(config["trainer"])
    callbacks = trainer.get("callbacks") or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    trainer["callbacks"] = [c for c in callbacks if not _leaves(c, others)]
    trainer["default_root_dir"] = str(folder)
    loggers = trainer.get("logger")
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        if isinstance(logger, dict) and "save_dir" in (logger.get("init_args") or {}):
            logger["init_args"]["save_dir"] = str(folder)
    # All runs share one long table.
    results = config["report"]["results"]
    table = results["table"]
    if table is None:
        table = str(Path(config["trainer"]["default_root_dir"]) / "results.csv")
    return {
        **config,
        "report": {**config["report"], "results": {**results, "table": table}},
        "tasks": {task: config["tasks"][task]},
        "model": only_task(config["model"], task, set(names)),
        "trainer": trainer,
        "references": None,
    }


def _leaves(callback: Mapping[str, Any], others: Sequence[str]) -> bool:
    module, _, name = callback["class_path"].rpartition(".")
    if issubclass(getattr(importlib.import_module(module), name), Balancer):
        return True
    monitor = (callback.get("init_args") or {}).get("monitor") or ""
    return any(part in others for part in monitor.split("/"))


def only_task(value: Any, task: str, names: set[str]) -> Any:
    """The same plain data without entries of other tasks in mappings that are keyed by tasks.

    Args:
        value: any part of a config.
        task: the one that stays.
        names: of all tasks.
    """
    if isinstance(value, list):
        return [only_task(entry, task, names) for entry in value]
    if not isinstance(value, Mapping):
        return value
    keyed = bool(value) and set(value) <= names
    return {k: only_task(v, task, names) for k, v in value.items() if not keyed or k == task}


class SingleTaskCLI(MultiTaskCLI):
    """``fit`` of the n-th task of a config on its own, recorded as reference of the whole config.

    Args:
        args: arguments of ``fit``, without the verb.
        index: n, from 0.
    """

    def __init__(self, args: Sequence[str], index: int) -> None:
        self.index = index
        super().__init__(["fit", *args])

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the whole config, then keep one task of it."""
        with warnings.catch_warnings():
            # The words of the shell are these, less the verb.
            warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
            super().parse_arguments(parser, args)
        whole = yaml.safe_load(parser.dump(self.config, skip_none=False, skip_link_targets=True))
        config = whole["fit"]
        self.plan, self.digest = plan(config), plan_hash(config)
        self.names = list(config["tasks"])
        self.name = self.names[self.index]
        folder = Path(config["baselines_dir"]) / self.digest / self.name
        rank_zero_info(f"Baseline {self.index + 1} of {len(self.names)}: {self.name}")
        single = single_task_config(config, self.name, folder)
        single.pop("config", None)
        self.config = parser.parse_object({"subcommand": "fit", "fit": single})
        self.asked = self.config.clone()

    def after_fit(self) -> None:
        """Record the last validation; nothing under ``fast_dev_run``."""
        if not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._record()

    @rank_zero_only
    def _record(self) -> None:
        tasks = self.model.tasks
        scores = logged_scores(self.trainer.callback_metrics, "val", tasks).get(self.name, {})
        seed = self.seed
        path = record(
            self.section["baselines_dir"],
            digest=self.digest,
            task=self.name,
            protocol=protocol_of(tasks),
            seed=seed,
            scores={"val": scores},
            facts={"epochs": self.trainer.current_epoch, "versions": versions()},
            settings=self.plan,
        )
        rank_zero_info(f"Recorded {self.name} (seed {seed}) in {path}")


def train_baselines(args: Sequence[str], cli: type[SingleTaskCLI] = SingleTaskCLI) -> None:
    """Train and record the single-task runs of a config, one after another.

    Args:
        args: arguments of ``fit``: ``-c config.yaml`` and overrides.
        cli: the command line to use, where a modality has its own reports.
    """
    names = cli(args, 0).names
    for index in range(1, len(names)):
        cli(args, index)


def main(
    cli: type[MultiTaskCLI] = MultiTaskCLI,
    single: type[SingleTaskCLI] = SingleTaskCLI,
    args: Sequence[str] | None = None,
) -> None:
    """Run a command line: the verbs of `MultiTaskCLI`, and ``baselines``.

    A mistake that the suite explains ends with its message and exit status 2, without a traceback;
    ``JSONARGPARSE_DEBUG=1`` in the environment shows it.

    Args:
        cli: class of the ordinary verbs.
        single: class of single-task runs.
        args: words; None reads those of the shell.
    """
    words = list(sys.argv[1:] if args is None else args)
    # What Lightning 2.6 calls and torch has renamed since; nothing that a user could change.
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    try:
        if words[:1] == ["baselines"]:
            train_baselines(words[1:], single)
        else:
            # Given words, Lightning warns that those of the shell go unread.
            cli(None if args is None else words)
    except MTLError as error:
        if os.environ.get("JSONARGPARSE_DEBUG"):
            raise
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(2)
