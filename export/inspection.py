"""``inspect DIR``: what is in an artefact folder, from its manifest alone."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from export.console import print_table
from export.manifest import read_manifest, recorded_files


def main(words: Sequence[str]) -> int:
    """Show the tasks, variants, sizes, errors and scores of an artefact folder.

    Args:
        words: of the command line, behind the verb.
    """
    parser = argparse.ArgumentParser(prog="python -m export inspect", description=main.__doc__)
    parser.add_argument("folder", help="written by build")
    parser.add_argument("--files", action="store_true", help="list all files too")
    given = parser.parse_args(words)
    manifest = read_manifest(given.folder)
    sys.stdout.write("\n".join([*headline(manifest), "", ""]))
    inputs = [
        (entry["name"], entry["dtype"], shape(entry["shape"]), described(entry))
        for entry in manifest["inputs"]
    ]
    print_table("Inputs", ["name", "type", "shape", ""], inputs)
    print_table("Tasks", ["task", "kind", "output", "unit", "primary metric"], task_rows(manifest))
    heads = ["variant", "task", "size", "largest error", "score", "drop", "experts"]
    print_table("Variants (sizes count shared weights once)", heads, variant_rows(manifest))
    latency = manifest.get("latency") or []
    if latency:
        columns = list(dict.fromkeys(key for row in latency for key in row))
        print_table("Latency", columns, [[row.get(c, "–") for c in columns] for row in latency])
    if given.files:
        rows = [(r["path"], r["bytes"], r["sha256"][:12]) for r in recorded_files(manifest)]
        print_table("Files", ["path", "bytes", "sha256"], rows)
    for text in manifest.get("drift", ()):
        sys.stdout.write(f"allowed although it failed: {text}\n")
    return 0


def headline(manifest: Mapping[str, Any]) -> list[str]:
    """Lines on the model and who wrote the folder."""
    model, producer = manifest["model"], manifest["producer"]
    parameters = model.get("parameters")
    lines = [f"{model['class']}" + (f", {parameters:,} parameters" if parameters else "")]
    versions = [
        f"{name} {producer[name]}"
        for name in ("torch", "onnx", "onnxruntime", "opset")
        if producer.get(name)
    ]
    lines.append(
        f"written on {manifest['created']} by {producer['name']} {producer['version']}"
        + (f" ({', '.join(versions)})" if versions else "")
    )
    if model.get("checkpoint_sha256"):
        lines.append(f"checkpoint {model['checkpoint_sha256'][:16]}")
    total = sum(record["bytes"] for record in recorded_files(manifest))
    lines.append(f"{manifest['kind']} model, {size_text(total)} in all")
    return lines


def task_rows(manifest: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row an output of a task."""
    rows: list[tuple[str, ...]] = []
    for task in manifest["tasks"]:
        better = task.get("higher_is_better")
        arrow = "" if better is None else " ↑" if better else " ↓"
        primary = f"{task['primary']}{arrow}" if task.get("primary") else "–"
        for output in task["outputs"]:
            unit = output.get("unit") or "–"
            rows.append((task["name"], task["kind"], shape(output["shape"]), unit, primary))
    return rows


def variant_rows(manifest: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row with the size of each variant, then one a task with error, score and drop."""
    rows: list[tuple[str, ...]] = []
    for variant in manifest["variants"]:
        size = sum(record["bytes"] for record in variant["files"])
        rows.append((variant["id"], "all", size_text(size), "", "", "", experts(variant)))
        sizes = {record["path"]: record["bytes"] for record in variant["files"]}
        for task in manifest["tasks"]:
            name = task["name"]
            graph = variant["graphs"].get(name)
            error = _entry(variant.get("parity"), name, "max_abs")
            score = _entry(variant.get("metrics"), name, task.get("primary"))
            rows.append(
                (
                    "",
                    name,
                    size_text(sizes[graph]) if graph in sizes else "–",
                    number(error, ".1e"),
                    number(score),
                    number((variant.get("drop") or {}).get(name)),
                    "",
                )
            )
    return rows


def experts(variant: Mapping[str, Any]) -> str:
    """Forms of a variant's layers of experts and how many each keeps; empty where it has none."""
    held = variant.get("moe") or {}
    groups = held.values() if isinstance(held, Mapping) else [held]
    found = {
        f"{layer.get('form', '?')}, {len(layer.get('experts', ()))} of {layer.get('of', '?')}"
        for layers in groups
        for layer in layers
    }
    return "; ".join(sorted(found))


def described(entry: Mapping[str, Any]) -> str:
    """Range, colours or columns of an input."""
    if entry.get("columns"):
        names = entry["columns"]
        return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    words = [str(entry[key]) for key in ("colours", "layout") if entry.get(key)]
    if entry.get("range"):
        words.append(" to ".join(f"{value:g}" for value in entry["range"]))
    return ", ".join(words)


def shape(sizes: Sequence[str | int]) -> str:
    """A shape as text."""
    return f"({', '.join(map(str, sizes))})"


def size_text(size: int) -> str:
    """Bytes in kB or MB."""
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def number(value: object, form: str = ".4g") -> str:
    """A number, or a dash where there is none."""
    return format(value, form) if isinstance(value, int | float) else "–"


def _entry(held: Any, task: str, key: str | None) -> object:
    entry = (held or {}).get(task)
    return entry.get(key) if isinstance(entry, Mapping) else entry
