"""``python -m export quantize DIR --config config.yaml --mode int8-dynamic``."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table

from export.manifest import read_manifest
from export.quantize import MAX_DROP, Mode, quantize
from export.source import Source, SourceError, load_source
from mtl_core.errors import ArgumentError


def parser() -> argparse.ArgumentParser:
    """Arguments of the verb."""
    made = argparse.ArgumentParser(
        prog="python -m export quantize",
        description="Add a variant of less precision, if every task predicts as well with it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = made.add_argument
    add("folder", type=Path, help="artefact folder")
    add("--source", type=Path, help="checkpoint, run folder or hub folder that it was built from")
    add("--config", type=Path, help="YAML of the run; its folder is the source if none is named")
    add("--mode", default="int8-dynamic", choices=get_args(Mode), help="precision")
    add("--calibration", type=int, default=256, help="training samples")
    add(
        "--max-drop",
        nargs="+",
        default=[str(MAX_DROP)],
        metavar="TASK=LOSS",
        help="accepted loss of the primary metric, for all tasks or by task",
    )
    add("--limit", type=int, help="score at most so many validation samples; default: all")
    add("--steps", type=int, default=12, help="parts of a graph that may go back to fp32")
    return made


def bounds(words: Sequence[str]) -> float | dict[str, float]:
    """What ``--max-drop`` says.

    Raises:
        ArgumentError: a word is neither a number nor TASK=NUMBER.

    Example:
        >>> bounds(["0.01"]), bounds(["depth=0.02", "semseg=0.01"])
        (0.01, {'depth': 0.02, 'semseg': 0.01})
    """
    found: dict[str, float] = {}
    for word in words:
        name, _, value = word.rpartition("=")
        try:
            number = float(value)
        except ValueError as error:
            raise ArgumentError("--max-drop", "be a number, or TASK=NUMBER", word) from error
        if not name and len(words) == 1:
            return number
        if not name:
            raise ArgumentError("--max-drop", "be one number, or TASK=NUMBER each", list(words))
        found[name] = number
    return found


def find_source(manifest: dict[str, Any], source: Path | None, config: Path | None) -> Source:
    """The network and data that a folder was built from.

    Args:
        manifest: of the folder.
        source: where it lies; None: the run folder of `config`.
        config: YAML of the run.

    Raises:
        ArgumentError: neither is given.
        SourceError: it is another network, or there is no data.
    """
    if source is None and config is None:
        rule = "be given: samples calibrate and score a variant"
        raise ArgumentError("--source or --config", rule, None)
    found = load_source(source or Path(str(config)).parent, config)
    expected = manifest["model"].get("checkpoint_sha256")
    if expected and found.checkpoint_sha256 != expected:
        raise SourceError(
            "the source must be the checkpoint that the folder was built from: its hash is "
            f"{str(found.checkpoint_sha256)[:12]}, the manifest says {expected[:12]}."
        )
    if found.data is None:
        raise SourceError("a source must have the data of its run: give --config.")
    return found


def main(words: Sequence[str]) -> int:
    """Quantise, and print metrics before and after.

    Args:
        words: of the command line, behind the verb.
    """
    given = parser().parse_args(words)
    accepted = bounds(given.max_drop)
    manifest = read_manifest(given.folder)
    variant = quantize(
        given.folder,
        find_source(manifest, given.source, given.config),
        mode=given.mode,
        calibration=given.calibration,
        max_drop=accepted,
        limit=given.limit,
        steps=given.steps,
    )
    show(read_manifest(given.folder), variant)
    return 0


def show(manifest: dict[str, Any], variant: dict[str, Any]) -> None:
    """Print what a variant costs and saves.

    Args:
        manifest: of the folder.
        variant: its entry.
    """
    sizes = {
        entry["id"]: sum(record["bytes"] for record in entry["files"])
        for entry in manifest["variants"]
    }
    before, after = sizes["fp32"] / 1e6, sizes[variant["id"]] / 1e6
    table = Table(title=f"{variant['id']}: {after:.2f} MB, fp32 {before:.2f} MB")
    for name in ("task", "metric", variant["id"], "loss", "SNR dB"):
        table.add_column(name)
    for task in manifest["tasks"]:
        name, primary = task["name"], task["primary"]
        table.add_row(
            name,
            primary,
            f"{variant['metrics'][name][primary]:.4g}",
            f"{variant['drop'][name]:+.2g}",
            f"{variant['parity'][name]['snr_db']:.0f}",
        )
    console = Console()
    console.print(table)
    for text in variant["remarks"]:
        console.print(text, style="yellow")
