"""The command line: LightningCLI with a top-level ``tasks:`` that data and model share."""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import lightning as L
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities import rank_zero_info
from torch.optim.lr_scheduler import LRScheduler

from mtl_core.baselines import References, plan_hash, recorded_path
from mtl_core.callbacks import Curves, PredictionWriter, RandomState, Results, TaskTable
from mtl_core.checkpoint import AtomicCheckpointIO
from mtl_core.data.datamodule import MultiTaskDataModule
from mtl_core.errors import MTLError, UnknownNameError
from mtl_core.nn import Decoder, MultiTaskNetwork
from mtl_core.tasks import Task

# What an argument takes, to answer an unknown class name with the nearest known one.
KINDS: dict[str, type] = {
    "tasks": Task,
    "model": L.LightningModule,
    "data": L.LightningDataModule,
    "network": MultiTaskNetwork,
    "decoder": Decoder,
    "decoders": Decoder,
    "callbacks": L.Callback,
    "logger": Logger,
    "optimizer": torch.optim.Optimizer,
    "scheduler": LRScheduler,
}


def subclasses(base: type[Any]) -> Iterator[type[Any]]:
    """All imported concrete subclasses of a class whose name is public, itself included."""
    if not base.__name__.startswith("_") and not inspect.isabstract(base):
        yield base
    for sub in base.__subclasses__():
        yield from subclasses(sub)


def unknown_names(message: str, kinds: Mapping[str, type]) -> list[str]:
    """What to say about class names in a parser's message that resolve to nothing.

    Args:
        message: of jsonargparse.
        kinds: base class by argument name; an argument that is not among them is compared with all.

    Returns:
        One text a name, with the nearest known names.
    """
    pattern = r"Expected a dot import path string: ([\w.]+)|has no attribute '(\w+)'"
    texts: dict[str, str] = {}
    for found in re.finditer(pattern, message):
        value = (found[1] or found[2]).rstrip(".")
        keys = re.findall(r'(?:Parser key |--)"?([\w.]+)', message[: found.start()])
        argument = keys[-1].rsplit(".")[-1] if keys else "class_path"
        # ``--tasks.depth`` and ``decoders: {depth: ...}`` name a member of what they belong to.
        owner = next((k for k in reversed(".".join(keys).split(".")) if k in kinds), argument)
        bases = [kinds[owner]] if owner in kinds else list(kinds.values())
        known = {cls.__name__ for base in bases for cls in subclasses(base)}
        if value not in known:
            texts[value] = str(UnknownNameError(f"class_path of {owner}", value, known))
    return list(texts.values())


class MultiTaskParser(LightningArgumentParser):
    """Parser that answers an unknown class name with the nearest known ones."""

    kinds: ClassVar[dict[str, type]] = KINDS

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Add the nearest names to the message and leave the rest to jsonargparse."""
        # Nested parsers pass their message on to the outermost one, which does not raise but exits.
        hints = unknown_names(message, self.kinds) if self.exit_on_error else []
        super().error("\n".join([message, *hints]), ex)


class MultiTaskCLI(LightningCLI):
    """``fit``, ``validate``, ``test`` and ``predict`` for every task, data set and network.

    Beside LightningCLI's own blocks a config has ``tasks`` (records by name, linked at parse time
    to ``data.init_args.tasks`` and ``model.init_args.tasks``), ``references``, ``baselines_dir``,
    and a block for each callback of `reports`, which always run. Checkpoints are written
    atomically. References that were recorded for this very plan are used where ``references`` is
    not given.

    Args:
        args: arguments instead of those of the shell: a list of words, or a nested mapping.
        run: False only builds ``model``, ``datamodule`` and ``trainer``; there is no subcommand.
    """

    reports: ClassVar[dict[str, type[L.Callback]]] = {
        "report.table": TaskTable,
        "report.results": Results,
        "report.curves": Curves,
        "predictions": PredictionWriter,
        "random_state": RandomState,
    }
    parser_type: ClassVar[type[LightningArgumentParser]] = MultiTaskParser

    def __init__(self, args: ArgsType = None, *, run: bool = True) -> None:
        super().__init__(
            L.LightningModule,
            MultiTaskDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"default_root_dir": "runs"},
            parser_class=self.parser_type,
            auto_configure_optimizers=False,
            args=args,
            run=run,
        )

    # Public hooks of LightningCLI, in the order in which it calls them.

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add tasks, references and reports, and link the tasks."""
        parser.add_argument(
            "--tasks", type=dict[str, Task], required=True, help="What to predict: tasks by name."
        )
        parser.link_arguments("tasks", "model.init_args.tasks")
        parser.link_arguments("tasks", "data.init_args.tasks")
        parser.add_argument(
            "--references",
            type=str | None,
            default=None,
            help="File with single-task numbers for Δm; default: those recorded for this config.",
        )
        parser.add_argument(
            "--baselines_dir",
            type=str,
            default="runs/baselines",
            help="Folder of recorded single-task runs.",
        )
        for key, report in self.reports.items():
            parser.add_lightning_class_args(report, key)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and keep the outcome from before a checkpoint's hyperparameters are merged in."""
        super().parse_arguments(parser, args)
        self.asked = self.config.clone()

    def before_instantiate_classes(self) -> None:
        """Say what the checkpoint changed."""
        tell(self.taken_from_checkpoint())

    def instantiate_classes(self) -> None:
        """Build everything; a mistake that a constructor refused is raised as it was found."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            # jsonargparse wraps it in a message about types that quotes the whole config.
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, MTLError):
                cause = cause.__cause__ or cause.__context__
            if cause is None:
                raise
            raise cause from None

    def after_instantiate_classes(self) -> None:
        """Tell the reports about plan, seed and references; none of it enters the saved config."""
        digest = self.plan_hash()
        found = self.section["references"] or self.recorded(digest)
        for report in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(report, Results):
                report.plan_hash, report.seed = digest, self.seed
            if isinstance(report, TaskTable | Results | Curves) and report.references is None:
                report.compare_with(found)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Build the trainer with atomic checkpoints, unless the config brings its own writer."""
        config = self.built["trainer"]
        plugins = config["plugins"] or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        strategy = config["strategy"]
        # Sharded strategies write checkpoints themselves and refuse another writer.
        plain = isinstance(strategy, str) and not strategy.startswith(("fsdp", "deepspeed"))
        if plain and not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, AtomicCheckpointIO()]
        return super().instantiate_trainer(**kwargs)

    def before_predict(self) -> None:
        """Do not keep predictions in memory; the writer has them."""
        self.built["return_predictions"] = False

    # What this class adds.

    @property
    def section(self) -> Namespace:
        """The parsed config, of the subcommand where there is one."""
        found: Namespace = self.config[self.subcommand] if self.subcommand else self.config
        return found

    @property
    def built(self) -> Namespace:
        """The config with instantiated classes, of the subcommand where there is one."""
        found: Namespace = (
            self.config_init[self.subcommand] if self.subcommand else self.config_init
        )
        return found

    @property
    def seed(self) -> int | None:
        """Seed of the run; None where the config switches seeding off."""
        seed = self.section["seed_everything"]
        return None if seed is False else int(seed)

    def plain_config(self, config: Namespace | None = None) -> dict[str, Any]:
        """A parsed config of the subcommand as plain data, without what links fill in.

        Args:
            config: None is the config that the run goes by.
        """
        config = self.config if config is None else config
        text = self._dumped(config, skip_link_targets=True)
        content: dict[str, Any] = yaml.safe_load(text)
        return content[self.subcommand] if self.subcommand else content

    def _dumped(self, config: Namespace, **options: bool) -> str:
        """YAML of a parsed config; checking it once more would take as long as parsing it."""
        text: str = self.parser.dump(
            config, format="yaml", skip_none=False, skip_validation=True, **options
        )
        return text

    def _dump_config(self) -> None:
        """Keep what the saved hyperparameters are, as Lightning does, but unchecked."""
        if not hasattr(self, "config_dump"):
            content = yaml.safe_load(self._dumped(self.config, skip_link_targets=False))
            self.config_dump = content[self.subcommand] if self.subcommand else content

    def plan_hash(self) -> str:
        """`mtl_core.baselines.plan_hash` of this run."""
        return plan_hash(self.plain_config())

    def recorded(self, digest: str) -> str | None:
        """File with the references recorded for a plan, once it holds all tasks."""
        path = recorded_path(self.section["baselines_dir"], digest)
        if not path.is_file():
            return None
        held = References.load(path).scores.get("val", {})
        return str(path) if all(name in held for name in self.section["tasks"]) else None

    def taken_from_checkpoint(self) -> list[str]:
        """Model arguments that a checkpoint has set to other values than config and shell did.

        LightningCLI lets the hyperparameters in ``--ckpt_path`` prevail over both.
        """
        if not self.subcommand or not self.section.get("ckpt_path"):
            return []
        asked = _flat(self.plain_config(self.asked).get("model"), "model")
        now = _flat(self.plain_config().get("model"), "model")
        return [
            f"{key} = {now.get(key)!r} (asked for: {asked.get(key)!r})"
            for key in dict.fromkeys([*now, *asked])
            if now.get(key) != asked.get(key)
        ]


def tell(taken: Sequence[str]) -> None:
    """Print what was taken from a checkpoint."""
    if taken:
        rank_zero_info("The checkpoint's model arguments prevail over config and command line:")
        for line in taken:
            rank_zero_info(f"  {line}")


def _flat(value: Any, key: str) -> dict[str, Any]:
    """Leaves of a plain config by dotted key."""
    if isinstance(value, Mapping) and value:
        return {
            k: v for name, held in value.items() for k, v in _flat(held, f"{key}.{name}").items()
        }
    return {key: value}
