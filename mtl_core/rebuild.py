"""Networks as plain data: the blocks ``tasks:`` and ``network:`` of a config, and back."""

import argparse
import copy
import dataclasses
import inspect
import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import torch
from jsonargparse import ArgumentParser

from mtl_core.checkpoint import CheckpointVersionError, check_stamp
from mtl_core.errors import MTLError
from mtl_core.nn import MultiTaskNetwork
from mtl_core.tasks import Task

_PREFIX = "network."


class RebuildError(MTLError, ValueError):
    """A network cannot be written as plain data, or cannot be rebuilt from it."""


class NetworkConfig(TypedDict):
    """What a config file says about a network, as JSON holds it."""

    tasks: dict[str, Any]
    """``class_path`` and ``init_args`` by task name."""
    network: dict[str, Any]
    """``class_path`` and ``init_args`` of the network, without the tasks."""


def describe(network: MultiTaskNetwork) -> NetworkConfig:
    """Plain data from which `build` makes the same network with fresh weights.

    Arguments may be numbers, strings, lists, mappings, data classes, tasks, classes, and
    `functools.partial` of classes (which is what a command line makes of ``class_path`` and
    ``init_args``).

    Args:
        network: any; it has recorded its arguments (`mtl_core.nn.recorded.RecordsArguments`).

    Raises:
        RebuildError: one of them is no plain data.
    """
    arguments = network.arguments()
    arguments.pop("tasks", None)
    name = type(network).__name__
    return {
        "tasks": describe_tasks(network.tasks),
        "network": {
            "class_path": _path(type(network), name),
            "init_args": {key: _plain(value, f"{name}.{key}") for key, value in arguments.items()},
        },
    }


def describe_tasks(tasks: Mapping[str, Task]) -> dict[str, Any]:
    """The block ``tasks:`` of a config, with every field of every record."""
    return {name: _plain(task, f"tasks.{name}") for name, task in tasks.items()}


def build(config: NetworkConfig) -> MultiTaskNetwork:
    """A network with fresh weights from plain data; published weights are not downloaded for it.

    Modules named in the config are imported, and only subclasses of the types that the arguments
    ask for (`Task`, `MultiTaskNetwork`, `Decoder`, ...) are made. Importing runs a module's code:
    build only what you would also run.

    Args:
        config: as `describe` gives it, or as the command line saves it.

    Raises:
        RebuildError: a class does not exist, is none that the place allows, or refuses an argument.
    """
    plain: dict[str, Any] = {
        "tasks": copy.deepcopy(config["tasks"]),
        "network": _without_downloads(config["network"]),
    }
    # Checkpoints that training began with; the weights to come are of a later date.
    (plain["network"].get("init_args") or {}).pop("start_from", None)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--tasks", type=dict[str, Task], required=True)
    parser.add_argument(
        "--network", type=Callable[[Mapping[str, Task]], MultiTaskNetwork], required=True
    )
    try:
        ready = parser.instantiate(parser.parse_object(plain))
    except (argparse.ArgumentError, TypeError) as error:
        raise RebuildError(f"the config describes no network that can be built: {error}") from error
    network: MultiTaskNetwork = ready.network(ready.tasks)
    return network


def from_checkpoint(path: Path | str) -> MultiTaskNetwork:
    """The bare network of a checkpoint that the command line wrote, in evaluation mode on the CPU.

    Args:
        path: a Lightning checkpoint; it is read without running code from it.

    Raises:
        RebuildError: the file is missing, damaged, or holds no config or other weights.
    """
    path = Path(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise RebuildError(f"cannot read checkpoint {path}: {error}") from error
    try:
        check_stamp(checkpoint)
    except CheckpointVersionError as error:
        raise RebuildError(f"cannot read checkpoint {path}: {error}") from error
    saved = checkpoint.get("hyper_parameters", {}) if isinstance(checkpoint, dict) else {}
    if not {"tasks", "network"} <= saved.keys():
        raise RebuildError(
            f"a checkpoint must hold the config of its network: {path} does not. The command line "
            "stores it; after training from Python use save_pretrained(module.network, folder)."
        )
    network = build({"tasks": saved["tasks"], "network": saved["network"]})
    weights = {
        name.removeprefix(_PREFIX): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(_PREFIX)
    }
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise RebuildError(f"weights and config of {path} disagree: {error}") from error
    return network.eval()


def _without_downloads(value: Any) -> Any:
    """A copy in which every ``pretrained: true`` is false: the weights are at hand already."""
    if isinstance(value, Mapping):
        return {
            key: False if key == "pretrained" and entry is True else _without_downloads(entry)
            for key, entry in value.items()
        }
    if isinstance(value, list | tuple):
        return [_without_downloads(entry) for entry in value]
    return value


def _plain(value: Any, where: str) -> Any:
    """JSON data for an argument; `where` names it in errors."""
    match value:
        case float() if not math.isfinite(value):
            pass
        case None | bool() | int() | float() | str():
            return value
        case Path():
            return str(value)
        case Task():
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
            return _spec(type(value), fields, where)
        case type():
            return _spec(value, _arguments(value, (), {}), where)
        case _ if dataclasses.is_dataclass(value):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
            return {key: _plain(entry, f"{where}.{key}") for key, entry in fields.items()}
        case partial():
            return _spec(*_bound(value, where), where)
        case Mapping():
            return {str(key): _plain(entry, f"{where}.{key}") for key, entry in value.items()}
        case list() | tuple():
            return [_plain(entry, f"{where}[{i}]") for i, entry in enumerate(value)]
    raise RebuildError(
        f"{where} must be plain data, a class or a functools.partial of a class, to be saved with "
        f"the network, found {value!r}."
    )


def _spec(cls: type[Any], arguments: Mapping[str, Any], where: str) -> dict[str, Any]:
    plain = {key: _plain(value, f"{where}.{key}") for key, value in arguments.items()}
    return {"class_path": _path(cls, where), "init_args": plain}


def _bound(factory: "partial[Any]", where: str) -> tuple[type[Any], dict[str, Any]]:
    """Class and named arguments of a partial.

    jsonargparse makes partials whose function is its own and whose first class is the one meant.
    """
    chain = [factory.func, *factory.args]
    position = next((i for i, entry in enumerate(chain) if isinstance(entry, type)), None)
    if position is None:
        raise RebuildError(f"{where} must be a functools.partial of a class, found {factory!r}.")
    cls: type[Any] = chain[position]
    return cls, _arguments(cls, chain[position + 1 :], factory.keywords)


def _arguments(cls: type[Any], args: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """What is given of a constructor's arguments, by name, and defaults for the rest of them."""
    bound = inspect.signature(cls).bind_partial(*args, **named)
    bound.apply_defaults()
    return dict(bound.arguments)


def _path(cls: type[Any], where: str) -> str:
    """Import path of a class, or an error if nobody else could import it."""
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        raise RebuildError(
            f"{where} must be a class that can be imported, to be saved with the network: "
            f"{cls.__qualname__} is defined in a script or a function. Move it to a module."
        )
    return f"{cls.__module__}.{cls.__qualname__}"
