"""What the manifest says of a model and its tasks, and what no file of a folder may say."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch

from export.manifest import FolderError
from export.source import Source
from mtl_core import __version__
from mtl_core.nn import MultiTaskNetwork
from mtl_core.types import TaskName


def producer(*, opset: int, ir: int) -> dict[str, Any]:
    """Who wrote the folder, with versions.

    Args:
        opset: of the graphs.
        ir: version of their file format.
    """
    return {
        "name": "mtl-suite",
        "version": __version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "opset": opset,
        "ir": ir,
    }


def model_entry(source: Source) -> dict[str, Any]:
    """Class, size and hashes of what was exported."""
    return {
        "class": source.class_path,
        "parameters": source.parameters,
        "config_sha256": source.config_sha256,
        "checkpoint_sha256": source.checkpoint_sha256,
        "licence": None,
    }


def task_entries(
    network: MultiTaskNetwork, shapes: Mapping[TaskName, Sequence[str | int]]
) -> list[dict[str, Any]]:
    """The list ``tasks`` of the manifest; `index` is the place in the network, frozen for good.

    Args:
        network: whose tasks they are.
        shapes: of the outputs, by task that is exported.
    """
    found = []
    for index, (name, task) in enumerate(network.tasks.items()):
        if name not in shapes:
            continue
        readout = task.readout()
        output = {
            "name": name,
            "shape": list(shapes[name]),
            "activation": readout.get("activation"),
            "unit": readout.get("unit"),
        }
        found.append(
            {
                "name": name,
                "kind": readout["kind"],
                "index": index,
                "dense": task.dense,
                "outputs": [output],
                "primary": task.primary,
                "higher_is_better": task.higher_is_better()[task.primary],
            }
        )
    return found


def today() -> str:
    """The date, without a time."""
    return datetime.now(UTC).date().isoformat()


def refuse_leaks(folder: Path | str, paths: Sequence[Path | str] = ()) -> None:
    """Raise `FolderError` if a file holds a path of this machine.

    Args:
        folder: whose files are searched, whatever their kind.
        paths: that must not appear, beside the working and the home directory.
    """
    folder = Path(folder)
    own = [Path.cwd(), Path.home(), *(Path(path).absolute() for path in paths)]
    needles = {str(path).encode() for path in own if len(str(path)) > 3} | {b'File "'}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        for needle in sorted(needles):
            if needle in data:
                raise FolderError(
                    f"no file of an artefact folder may hold a path of the machine that built it: "
                    f"{path.relative_to(folder)} holds {needle.decode()!r}."
                )
