"""Where an export begins: a checkpoint, a run folder or a hub folder, with its network and data."""

import argparse
import copy
import dataclasses
import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentParser
from torch import Tensor

from export.manifest import digest
from mtl_core.cli import subclasses
from mtl_core.data import MultiTaskDataModule
from mtl_core.errors import ArgumentError, MTLError
from mtl_core.hub import CONFIG, WEIGHTS, from_pretrained
from mtl_core.nn import MultiTaskNetwork
from mtl_core.rebuild import RebuildError, describe, describe_tasks, from_checkpoint
from mtl_core.tasks import Task
from mtl_core.types import Inputs, TaskName


class SourceError(MTLError, ValueError):
    """What shall be exported cannot be read, or is none of the things that can be exported."""


@dataclass
class Source:
    """A trained network and what is known of it.

    Args:
        network: in evaluation mode, on the CPU.
        config: blocks ``data``, ``tasks``, ... of the run, None where none was found.
        data: the run's data module; None where there is no config, or it was not asked for.
        class_path: of the network.
        checkpoint_sha256: hash of the file with the weights.
        config_sha256: hash of what describes tasks and network; None if they cannot be described.
    """

    network: MultiTaskNetwork
    config: dict[str, Any] | None
    data: MultiTaskDataModule | None
    class_path: str
    checkpoint_sha256: str | None = None
    config_sha256: str | None = None

    @property
    def tasks(self) -> dict[TaskName, Task]:
        """Records by name, in the order of the network."""
        return self.network.tasks

    @property
    def parameters(self) -> int:
        """Number of parameters of the whole network."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def kind(self) -> Literal["image", "table"]:
        """What the network takes: columns if it has a schema of them, else images."""
        return "image" if table_schema(self.network) is None else "table"


def load_source(path: Path | str, config: Path | str | None = None, *, data: bool = True) -> Source:
    """Read a network, and build the data module that it was trained with.

    Classes that the checkpoint and the config name are imported: export only what you would also
    run.

    Args:
        path: a Lightning checkpoint, a run folder that holds one, or a folder of
            `mtl_core.hub.save_pretrained`.
        config: YAML file with a block ``data``; default: ``config.yaml`` of the run folder, if any.
        data: False builds no data module.

    Raises:
        SourceError: there is nothing of the kind at `path`, or it belongs to another version.
        HubError: the hub folder is incomplete, damaged or of another version.
    """
    path = Path(path)
    if path.is_dir() and (path / CONFIG).is_file():
        network, weights = from_pretrained(path), path / WEIGHTS
    else:
        weights = _checkpoint(path)
        try:
            network = from_checkpoint(weights)
        except RebuildError as error:
            raise SourceError(
                f"{error} If another version of mtl-suite wrote it, export it with that version, "
                "or save the network with that version's save_pretrained."
            ) from error
    found = Path(config) if config else _run_config(weights)
    if config and not Path(config).is_file():
        raise SourceError(f"config must be a YAML file, found {config}: it does not exist.")
    content = _read_config(found) if found else None
    return Source(
        network=network.eval(),
        config=content,
        data=build_data(network, content) if data and content else None,
        class_path=f"{type(network).__module__}.{type(network).__qualname__}",
        checkpoint_sha256=digest(weights),
        config_sha256=_describe(network),
    )


def build_data(network: MultiTaskNetwork, config: Mapping[str, Any]) -> MultiTaskDataModule | None:
    """The data module of a config, for the tasks and columns that the network knows.

    Args:
        network: whose task records (with fitted classes and units) are taken.
        config: of a run; without a block ``data`` there is nothing to build.

    Raises:
        SourceError: the block names no data module, or one that refuses its arguments.
    """
    block = copy.deepcopy(config.get("data"))
    if not isinstance(block, dict) or "class_path" not in block:
        return None
    _import_package(network)
    arguments = dict(block.get("init_args") or {})
    arguments["tasks"] = describe_tasks(network.tasks)
    schema = table_schema(network)
    if schema is not None and "schema" in _parameters(str(block["class_path"])):
        arguments["schema"] = dataclasses.asdict(schema)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(MultiTaskDataModule, "data", required=True)
    try:
        parsed = parser.parse_object({"data": {**block, "init_args": arguments}})
        module: MultiTaskDataModule = parser.instantiate(parsed).data
    except MTLError:
        raise
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        cause = next((e for e in _causes(error) if isinstance(e, MTLError)), None)
        if cause is not None:
            raise cause from error
        raise SourceError(
            f"the block data of the config must describe a data module: {error}"
        ) from error
    fit = getattr(module, "fit", None)
    if schema is not None and callable(fit):
        fit()  # learns nothing where columns and classes are known
    return module


def table_schema(network: MultiTaskNetwork) -> Any | None:
    """The columns that a network on tables knows (``numeric``, ``categorical``); None for others.

    Args:
        network: any.
    """
    schema = getattr(network, "schema", None)
    known = hasattr(schema, "numeric") and hasattr(schema, "categorical")
    return schema if known and dataclasses.is_dataclass(schema) else None


def as_named(inputs: Inputs) -> dict[str, Tensor]:
    """Inputs of a network by the names that graphs use; one tensor is the ``image``."""
    if isinstance(inputs, Tensor):
        return {"image": inputs}
    return dict(inputs)


def _checkpoint(path: Path) -> Path:
    """The file itself, or the only checkpoint of a run folder."""
    if path.is_file():
        if path.suffix != ".ckpt":
            raise SourceError(
                "a source must be a checkpoint (.ckpt), a run folder or a hub folder, found "
                f"{path}."
            )
        return path
    if not path.is_dir():
        raise SourceError(
            f"a source must be a checkpoint, a run folder or a hub folder: {path} does not exist."
        )
    found = sorted({*path.glob("*.ckpt"), *path.glob("checkpoints/*.ckpt")})
    if len(found) != 1:
        names = ", ".join(str(file.relative_to(path)) for file in found[:6])
        raise SourceError(
            f"a run folder must hold one checkpoint, or the checkpoint must be named: {path} holds "
            f"{names or f'neither one nor {CONFIG}'}."
        )
    return found[0]


def _run_config(weights: Path) -> Path | None:
    """``config.yaml`` of the run that a checkpoint lies in."""
    for folder in (weights.parent, weights.parent.parent):
        if (folder / "config.yaml").is_file():
            return folder / "config.yaml"
    return None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise SourceError(f"config must be a YAML file that can be read: {error}") from error
    if not isinstance(content, dict):
        raise ArgumentError("config", "hold blocks by name", type(content).__name__)
    return content


def _describe(network: MultiTaskNetwork) -> str | None:
    try:
        config = describe(network)
    except RebuildError:
        return None
    text = json.dumps(config, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _import_package(network: MultiTaskNetwork) -> None:
    """Import the data modules that stand beside the network, so that short names are known."""
    package = type(network).__module__.partition(".")[0]
    try:
        importlib.import_module(f"{package}.data")
    except ModuleNotFoundError as error:
        if error.name not in (package, f"{package}.data"):
            raise


def _parameters(class_path: str) -> set[str]:
    """Names of the arguments of a data module; of every known one of a bare name."""
    module, _, name = class_path.rpartition(".")
    if module:
        try:
            importlib.import_module(module)
        except ImportError:
            return set()  # the parser says it better
    found = [cls for cls in subclasses(MultiTaskDataModule) if cls.__name__ == name]
    return {key for cls in found for key in cls.__init__.__code__.co_varnames}


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and len(found) < 20:
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found
