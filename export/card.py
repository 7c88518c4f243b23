"""The model card of an artefact folder, made from its manifest alone."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from export.manifest import read_manifest


def model_card(manifest: Mapping[str, Any]) -> str:
    """Markdown: what goes in, what comes out, sizes, errors, scores, how to run it.

    Args:
        manifest: sealed, or about to be; sizes are shown where they are known.
    """
    model, producer = manifest["model"], manifest["producer"]
    name = str(model["class"]).rpartition(".")[2]
    lines = [f"# {name}: {', '.join(task['name'] for task in manifest['tasks'])}", ""]
    parameters = model.get("parameters")
    lines.append(
        f"ONNX graphs written by {producer['name']} {producer['version']} on "
        f"{manifest['created']}"
        + (f", from a network of {parameters:,} parameters." if parameters else ".")
    )
    lines += ["", "## Inputs", "", "| name | type | shape |", "|---|---|---|"]
    for entry in manifest["inputs"]:
        lines.append(f"| {entry['name']} | {entry['dtype']} | {_shape(entry['shape'])} |")
    lines += ["", "How raw data becomes that is in `preprocess.json`.", ""]
    lines += ["## Tasks", "", "| task | kind | output | values | primary metric |"]
    lines += ["|---|---|---|---|---|"]
    for task in manifest["tasks"]:
        for output in task["outputs"]:
            unit = output.get("unit") or "–"
            lines.append(
                f"| {task['name']} | {task['kind']} | {_shape(output['shape'])} | {unit} | "
                f"{_primary(task)} |"
            )
    lines += ["", "Names of classes, colours and units are in `labels.json`.", ""]
    lines += ["## Variants", ""]
    for variant in manifest["variants"]:
        lines += _variant(variant, manifest["tasks"])
    if manifest.get("drift"):
        lines += ["**Comparisons that failed and were allowed:**", ""]
        lines += [f"- {text}" for text in manifest["drift"]]
        lines.append("")
    lines += ["## Running it", "", "```bash", "python -m export check .", "```", ""]
    lines += ["Needs `onnxruntime`, `numpy` and `Pillow`, no torch.", ""]
    return "\n".join(lines)


def main(words: Sequence[str]) -> int:
    """``report DIR``: print the model card of a folder.

    Args:
        words: of the command line, behind the verb.
    """
    parser = argparse.ArgumentParser(prog="python -m export report", description=main.__doc__)
    parser.add_argument("folder", help="written by build")
    folder = parser.parse_args(words).folder
    sys.stdout.write(model_card(read_manifest(folder)))
    return 0


def _variant(variant: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Size, and a row a task with error, score and drop."""
    size = sum(record["bytes"] for record in variant.get("files", ()))
    head = f"### {variant['id']}" + (f" ({size / 1e6:.2f} MB)" if size else "")
    lines = [head, "", "| task | largest error | primary metric | drop |", "|---|---|---|---|"]
    for task in tasks:
        name, primary = task["name"], task.get("primary")
        error = ((variant.get("parity") or {}).get(name) or {}).get("max_abs")
        score = ((variant.get("metrics") or {}).get(name) or {}).get(primary)
        drop = (variant.get("drop") or {}).get(name)
        lines.append(f"| {name} | {_number(error, '.1e')} | {_number(score)} | {_number(drop)} |")
    return [*lines, ""]


def _primary(task: Mapping[str, Any]) -> str:
    if not task.get("primary"):
        return "–"
    better = task.get("higher_is_better")
    arrow = "" if better is None else " ↑" if better else " ↓"
    return f"{task['primary']}{arrow}"


def _shape(shape: Sequence[str | int]) -> str:
    return "(" + ", ".join(str(size) for size in shape) + ")"


def _number(value: object, form: str = ".4g") -> str:
    return format(value, form) if isinstance(value, int | float) else "–"
