"""The verb ``profile`` of a program's command line."""

import argparse
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch.cli import ArgsType, LightningArgumentParser
from rich.console import Console
from torch import Tensor

from mtl_core.atomic import atomic_write
from mtl_core.cli import MultiTaskCLI
from mtl_core.data.datamodule import MultiTaskDataModule
from mtl_core.errors import ArgumentError, MTLError
from mtl_core.nn import MultiTaskNetwork
from mtl_core.profile.measure import profile_network
from mtl_core.profile.record import Profile
from mtl_core.profile.show import parts_table, profile_table, profile_words
from mtl_core.rebuild import RebuildError, build, describe, from_checkpoint
from mtl_core.single_task import only_task
from mtl_core.types import Inputs, TaskName

Plain = dict[str, Any]

DESCRIPTION = """Parameters, multiply-accumulates, peak memory and time of a network, for each task
alone and for all tasks. Every other option is one of fit, such as -c config.yaml."""


class ProfileCLI(MultiTaskCLI):
    """Builds a config's network and data module as cheaply as can be: nothing is loaded or logged.

    To be mixed with the command line of a modality.

    Args:
        args: arguments of ``fit``, without the verb.
    """

    def __init__(self, args: Sequence[str]) -> None:
        with warnings.catch_warnings():
            # The words of the shell are these and a few more.
            warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
            with _quiet():
                super().__init__(list(args), run=False)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Also accept what a saved config of ``fit`` holds besides."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--ckpt_path", type=str | None, default=None)
        parser.add_argument("--weights_only", type=bool | None, default=None)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and take out what costs something or needs a device."""
        super().parse_arguments(parser, args)
        text = parser.dump(self.config, skip_none=False, skip_link_targets=True)
        plain: Plain = yaml.safe_load(text)
        plain.pop("config", None)
        plain["model"] = bare(plain["model"])
        plain["trainer"] = {"accelerator": "cpu", "devices": 1, "logger": False, "callbacks": None}
        plain["trainer"] |= {"enable_progress_bar": False, "enable_model_summary": False}
        plain["trainer"] |= {"enable_checkpointing": False, "barebones": False}
        plain["references"] = None
        self.config = parser.parse_object(plain)
        self.asked = self.config.clone()


@contextmanager
def _quiet() -> Iterator[None]:
    """What Lightning says about seeds and devices stays out of the tables."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def bare(value: Any) -> Any:
    """A model's plain config without published weights, warm starts and compilation."""
    if isinstance(value, Mapping):
        off = {"pretrained": False, "start_from": None, "compile": ""}
        return {k: off[k] if k in off else bare(v) for k, v in value.items()}
    return [bare(entry) for entry in value] if isinstance(value, list) else value


def main(program: str, cli: type[MultiTaskCLI], words: Sequence[str]) -> None:
    """Run the verb. A mistake ends with its message and exit status 2.

    Args:
        program: package whose verb it is, such as ``mtl_vision``.
        cli: its command line.
        words: behind ``profile``.
    """
    options, rest = _parser(program).parse_known_args(list(words))
    try:
        _run(options, type("ProfileCLI", (ProfileCLI, cli), {}), rest)
    except MTLError as error:
        if os.environ.get("JSONARGPARSE_DEBUG"):
            raise
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(2)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        f"{program} profile", description=DESCRIPTION, allow_abbrev=False
    )
    parser.add_argument("--ckpt_path", help="checkpoint of a run, in the place of a config")
    parser.add_argument("--only", nargs="+", metavar="TASK", help="only these")
    parser.add_argument("--batch", type=int, default=1, help="samples of a call (default 1)")
    parser.add_argument(
        "--size",
        type=int,
        nargs="+",
        metavar="N",
        help="H W, or C H W: random inputs",
    )
    parser.add_argument("--repeats", type=int, default=10, help="rounds of timing; 0: no time")
    parser.add_argument(
        "--device",
        default="cpu",
        help="as torch names it (default cpu); meta counts, without computing",
    )
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument(
        "--against", action="append", default=[], metavar="CONFIG", help="config to compare with"
    )
    parser.add_argument("--no-separate", dest="separate", action="store_false")
    parser.add_argument("--no-dense", dest="dense", action="store_false")
    parser.add_argument("--out", type=Path, help="file to write: .json or .csv")
    return parser


def _run(options: argparse.Namespace, cli: type[ProfileCLI], rest: Sequence[str]) -> None:
    if options.out is not None and options.out.suffix not in (".json", ".csv"):
        raise ArgumentError("--out", "end in .json or .csv", str(options.out))
    for name, least in (("batch", 1), ("repeats", 0), ("threads", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ArgumentError(f"--{name}", f"be at least {least}", value)
    if not rest and options.ckpt_path is None:
        raise ArgumentError("-c", "name a config, or --ckpt_path a checkpoint", None)
    if options.threads:
        torch.set_num_threads(options.threads)
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    built = cli(rest) if rest else None
    data = None if built is None else built.datamodule
    if options.ckpt_path is None:
        assert built is not None
        network: MultiTaskNetwork = built.model.network
    else:
        network = from_checkpoint(options.ckpt_path)
    others = {Path(path).stem: cli(["-c", path]).model.network for path in options.against}
    separate: dict[TaskName, MultiTaskNetwork] = {}
    if options.separate and len(network.tasks) > 1:
        try:
            separate = separate_networks(network)
        except RebuildError as error:
            console.print(f"Without separate networks: {error}", highlight=False)
    inputs = example_inputs(network, data, options.batch, options.size)
    inputs_device = torch.device(options.device)
    for module in (network, *separate.values(), *others.values()):
        module.to(options.device)
    found = profile_network(
        network,
        _to(inputs, options.device),
        options.only,
        separate=separate,
        others=others,
        dense=options.dense,
        repeats=0 if inputs_device.type == "meta" else options.repeats,
    )
    show(found, console)
    if options.out is not None:
        save(found, options.out)
        console.print(f"Written to {options.out}", highlight=False)


def separate_networks(network: MultiTaskNetwork) -> dict[TaskName, MultiTaskNetwork]:
    """For every task a fresh network like this one that knows no other task.

    Raises:
        RebuildError: the arguments of the network are no plain data.
    """
    whole = describe(network)
    names = set(whole["tasks"])
    return {
        task: build(
            {
                "tasks": {task: whole["tasks"][task]},
                "network": bare(only_task(whole["network"], task, names)),
            }
        )
        for task in whole["tasks"]
    }


def example_inputs(
    network: MultiTaskNetwork,
    data: MultiTaskDataModule | None,
    batch: int,
    size: Sequence[int] | None = None,
) -> Inputs:
    """Inputs of a batch: random ones of a size, else samples of the validation data.

    Args:
        network: whose fixed image size is taken where none is given.
        data: of the config; None where there is none.
        batch: samples; those of the data are repeated where there are fewer.
        size: H W or C H W; None takes the data module's ``size``, then the network's ``img_size``.

    Raises:
        ArgumentError: the size is no size, or nothing says what the inputs are.
    """
    if size is not None and (len(size) not in (2, 3) or min(size) < 1):
        raise ArgumentError("--size", "be H W or C H W, all positive", list(size))
    if size is None:
        held = getattr(data, "size", None)
        size = list(held) if isinstance(held, list | tuple) else _image_size(network.arguments())
    if size is not None:
        return torch.rand(batch, *([3, *size] if len(size) == 2 else size))
    if data is None:
        raise ArgumentError("--size", "be given, as nothing says what the inputs are", None)
    data.num_workers = 0
    data.prepare_data()
    data.setup("validate")
    loader = data.val_dataloader()
    first: Inputs = next(iter(loader))["inputs"]
    return _repeated(first, batch)


def _image_size(value: Any) -> list[int] | None:
    """The first ``img_size`` among the arguments of a network."""
    if isinstance(value, Mapping):
        found = value.get("img_size")
        if isinstance(found, list | tuple):
            return list(found)
        inner = (_image_size(entry) for entry in value.values())
        return next((size for size in inner if size is not None), None)
    keywords = getattr(value, "keywords", None)
    return None if keywords is None else _image_size(keywords)


def _repeated(inputs: Inputs, batch: int) -> Inputs:
    if isinstance(inputs, Tensor):
        return inputs[torch.arange(batch) % len(inputs)]
    return {name: tensor[torch.arange(batch) % len(tensor)] for name, tensor in inputs.items()}


def _to(inputs: Inputs, device: str) -> Inputs:
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def show(profile: Profile, console: Console) -> None:
    """Print tables and words.

    Args:
        profile: of any network.
        console: where to.
    """
    console.print(profile_table(profile))
    console.print(parts_table(profile))
    for line in profile_words(profile):
        console.print(line, highlight=False)


def save(profile: Profile, path: Path) -> None:
    """Write a profile as JSON or, by the file's ending, as CSV.

    Args:
        profile: of any network.
        path: ends in .json or .csv.
    """
    text = profile.as_csv()
    if path.suffix == ".json":
        text = json.dumps(profile.as_dict(), indent=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(text.encode())
