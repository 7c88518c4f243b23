"""``python -m export build CKPT --out DIR``."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from rich.console import Console
from rich.table import Table

from export.operators import Profile
from export.settings import BuildSettings, Form, Layout, Precision
from mtl_core.errors import ArgumentError


def parser() -> argparse.ArgumentParser:
    """Arguments of the verb; defaults are those of `BuildSettings`."""
    made = argparse.ArgumentParser(
        prog="python -m export build",
        description="Write checked ONNX graphs of a trained network, one a task.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = made.add_argument
    add("source", type=Path, help="checkpoint, run folder, hub folder or boosted model")
    add("--out", type=Path, required=True, help="new folder")
    add("--tasks", help="names, separated by commas; default: all")
    add("--layout", default="per-task", choices=get_args(Layout), help="one graph a task, or one")
    add("--profile", default="cpu", choices=get_args(Profile), help="what the graphs run on")
    add("--moe", default="auto", choices=get_args(Form), help="form of layers of experts")
    add("--capacity-factor", type=float, help="slots of an expert over its even share")
    add("--keep-experts", help="'window' (exact), or a number (lossy)")
    add("--opset", type=int, default=20, help="operator set, 17 to 23")
    add("--static-batch", type=int, help="fixed batch size; default: free")
    add("--single-file", action="store_true", default=None, help="weights inside of each graph")
    add("--precision", default="fp32", choices=get_args(Precision), help="add a variant")
    add("--calibration", type=int, default=256, help="samples for int8-static")
    add("--max-drop", type=float, default=0.005, help="of primary metrics, absolute")
    add("--config", type=Path, help="YAML of the run; default: config.yaml beside the checkpoint")
    add("--size", type=int, nargs=2, metavar=("H", "W"), help="of images, if nothing else says it")
    add("--bake-preprocess", action="store_true", help="images as uint8 (B, H, W, 3)")
    add("--allow-drift", action="store_true", help="record failed comparisons and go on")
    add("--allow-batch-dependence", action="store_true", help="samples may see each other")
    add("--no-metrics", action="store_true", help="do not score the validation split")
    add("--metric-samples", type=int, help="score at most so many samples")
    add("--target", default="onnx", choices=("onnx", "fpga"), help="fpga: a fixed-point design too")
    return made


def settings(given: argparse.Namespace) -> BuildSettings:
    """The options of a parsed command line.

    Raises:
        ArgumentError: a value breaks its rule.
    """
    keep: Any = given.keep_experts
    if keep not in (None, "window"):
        if not str(keep).isdigit():
            raise ArgumentError("--keep-experts", "be 'window' or a number", keep)
        keep = int(keep)
    names = None
    if given.tasks is not None:
        names = tuple(name.strip() for name in given.tasks.split(",") if name.strip())
    return BuildSettings(
        tasks=names,
        layout=given.layout,
        profile=given.profile,
        moe=given.moe,
        capacity_factor=given.capacity_factor,
        keep_experts=keep,
        opset=given.opset,
        static_batch=given.static_batch,
        single_file=given.single_file,
        precision=given.precision,
        size=None if given.size is None else (given.size[0], given.size[1]),
        bake_preprocess=given.bake_preprocess,
        config=given.config,
        allow_drift=given.allow_drift,
        allow_batch_dependence=given.allow_batch_dependence,
        metrics=not given.no_metrics,
        metric_samples=given.metric_samples,
        calibration=given.calibration,
        max_drop=given.max_drop,
    )


def main(words: Sequence[str]) -> int:
    """Build, and print a row a task.

    Args:
        words: of the command line, behind the verb.
    """
    given = parser().parse_args(words)
    chosen = settings(given)
    if is_boosted(given.source):
        if given.target == "fpga":
            raise ArgumentError("--target", "be onnx for boosted models", given.target)
        if chosen.precision != "fp32":
            rule = "be fp32 for boosted models, whose trees have no products to round"
            raise ArgumentError("--precision", rule, chosen.precision)
        _refuse_options_of_networks(given)
        from export.trees_build import build_trees

        layout: Literal["dispatch", "folded"] = "folded" if chosen.tasks else "dispatch"
        manifest = build_trees(given.source, given.out, tasks=chosen.tasks, layout=layout)
    else:
        from export.build import build

        manifest = build(given.source, given.out, chosen)
    show(manifest, given.out)
    if given.target == "fpga":
        from export.fpga.command import for_build

        words = [word for task in chosen.tasks or () for word in ("--task", task)]
        words += ["--config", str(given.config)] if given.config else []
        return for_build(given.source, given.out, words)
    return 0


def _refuse_options_of_networks(given: argparse.Namespace) -> None:
    """Raise `ArgumentError` at an option that means nothing for trees."""
    taken = {"source", "out", "tasks", "target", "precision"}
    defaults = parser().parse_args([str(given.source), "--out", str(given.out)])
    for name, value in vars(given).items():
        if name not in taken and value != getattr(defaults, name):
            option = f"--{name.replace('_', '-')}"
            raise ArgumentError(option, "be left out for boosted models, which have none", value)


def is_boosted(source: Path) -> bool:
    """Whether a source is a boosted model: a JSON file, or a folder that holds ``model.json``."""
    return source.suffix == ".json" or (source / "model.json").is_file()


def show(manifest: dict[str, Any], out: Path) -> None:
    """Print what was built.

    Args:
        manifest: of the folder.
        out: the folder.
    """
    variant = manifest["variants"][0]
    size = sum(record["bytes"] for record in variant["files"])
    table = Table(title=f"{out}: {size / 1e6:.2f} MB, {manifest['producer'].get('opset')} opset")
    for name in ("task", "kind", "graph", "largest error", "primary metric"):
        table.add_column(name)
    for task in manifest["tasks"]:
        name, primary = task["name"], task.get("primary")
        parity = (variant.get("parity") or {}).get(name) or {}
        score = ((variant.get("metrics") or {}).get(name) or {}).get(primary)
        error = parity.get("max_abs")
        table.add_row(
            name,
            task["kind"],
            variant["graphs"].get(name) or variant["graphs"].get("*"),
            "–" if error is None else f"{error:.1e}",
            f"{primary} {score:.4g}" if score is not None else str(primary or "–"),
        )
    console = Console()
    console.print(table)
    for text in manifest.get("drift") or ():
        console.print(f"allowed: {text}", style="yellow")
