"""The command line of tables: columns and classes are learned before the model is built."""

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.cli import ArgsType, LightningArgumentParser

from mtl_core.cli import MultiTaskCLI
from mtl_core.data import MultiTaskDataModule
from mtl_core.rebuild import describe_tasks
from mtl_core.single_task import SingleTaskCLI
from mtl_tabular.callbacks import TablePredictionWriter
from mtl_tabular.data import TableDataModule

Plain = dict[str, Any]


class TabularCLI(MultiTaskCLI):
    """The command line with what training rows say filled in.

    A config names columns; how many categories they have, how numbers are scaled and which classes
    a target has is learned from the training rows, before the model is built, and written into
    ``tasks``, ``data.init_args.schema`` and ``model.init_args.network.init_args.schema``. The saved
    ``config.yaml`` and the checkpoint are therefore complete. With ``--ckpt_path`` nothing is
    learned: the checkpoint's columns and classes are taken, and its training table is not read.
    """

    reports: ClassVar[dict[str, type[L.Callback]]] = {
        **MultiTaskCLI.reports,
        "predictions": TablePredictionWriter,
    }

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and complete the config.

        Raises:
            MTLError: the table does not fit the config; see `TableDataModule`.
        """
        super().parse_arguments(parser, args)
        verb = self.config.get("subcommand")
        text = parser.dump(self.config, skip_none=False, skip_link_targets=True)
        whole: Plain = yaml.safe_load(text)
        section = whole[verb] if verb else whole
        completed = complete(section)
        if completed is not section:
            completed.pop("config", None)
            self.config = parser.parse_object(
                {"subcommand": verb, verb: completed} if verb else completed
            )
            self.asked: Namespace = self.config.clone()


class TabularSingleTaskCLI(SingleTaskCLI, TabularCLI):
    """The same for the single-task runs of ``baselines``."""


def complete(config: Plain) -> Plain:
    """A config with columns and classes: of its checkpoint, else of its training rows.

    Args:
        config: parsed, as plain data; `fit` of its data module is called where nothing is known.

    Returns:
        A new config, or the same object where there is nothing to complete.
    """
    known = _of_checkpoint(config.get("ckpt_path"))
    if known is None:
        schema = _schema(config["model"])
        data = _data_module(config, schema)
        if not isinstance(data, TableDataModule):
            return config
        data.fit()
        known = {"tasks": describe_tasks(data.tasks), "schema": dataclasses.asdict(data.schema)}
    return {
        **config,
        "tasks": known["tasks"],
        "data": _with(config["data"], known["schema"]),
        "model": _with_network(config["model"], known["schema"]),
    }


def _of_checkpoint(path: str | None) -> Plain | None:
    """Tasks and schema that a checkpoint of a tabular network holds; None where there is none."""
    if not path or not Path(path).is_file():
        return None
    held = torch.load(path, map_location="cpu", weights_only=True).get("hyper_parameters", {})
    arguments = (held.get("network") or {}).get("init_args") or {}
    if "schema" not in arguments or "tasks" not in held:
        return None
    return {"tasks": held["tasks"], "schema": arguments["schema"]}


def _schema(model: Mapping[str, Any]) -> Plain | None:
    """The schema that a config gives its network, None where it has no columns."""
    network = (model.get("init_args") or {}).get("network") or {}
    schema: Plain = (network.get("init_args") or {}).get("schema") or {}
    return schema if schema.get("numeric") or schema.get("categorical") else None


def _data_module(config: Plain, schema: Plain | None) -> MultiTaskDataModule:
    data = config["data"] if schema is None else _with(config["data"], schema)
    data = {**data, "init_args": {**data["init_args"], "tasks": config["tasks"]}}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(MultiTaskDataModule, "data", required=True)
    parsed = parser.parse_object(copy.deepcopy({"data": data}))  # which it would write into
    module: MultiTaskDataModule = parser.instantiate(parsed).data
    return module


def _with(block: Mapping[str, Any], schema: Plain) -> Plain:
    return {**block, "init_args": {**(block.get("init_args") or {}), "schema": schema}}


def _with_network(model: Mapping[str, Any], schema: Plain) -> Plain:
    arguments = model["init_args"]
    network = _with(arguments["network"], schema)
    return {**model, "init_args": {**arguments, "network": network}}
