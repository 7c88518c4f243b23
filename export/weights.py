"""One file of weights under several graphs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from onnx import TensorProto

from export.clean import SMALLEST, tensor_key
from mtl_core.errors import ArgumentError

ALIGNMENT = 4096
"""Tensors begin at multiples of it, the size of a memory page, so that they can be mapped."""


def share_weights(paths: Sequence[Path | str], name: str = "weights.bin") -> int:
    """Move the constants of graphs into one file beside them, one copy per distinct tensor.

    Constants below `export.clean.SMALLEST` bytes stay in the graphs. The graphs refer to the file
    by its bare name, so the folder can be moved.

    Args:
        paths: graphs of one folder, with their weights inside; rewritten in place.
        name: of the file.

    Returns:
        Its size in bytes.

    Raises:
        ArgumentError: the graphs lie in different folders, or the name is a path.
    """
    files = [Path(path) for path in paths]
    folders = {path.resolve().parent for path in files}
    if len(folders) != 1:
        raise ArgumentError("paths", "be graphs of one folder", sorted(map(str, folders)))
    if Path(name).name != name or name in ("", ".", ".."):
        raise ArgumentError("name", "be the bare name of a file", name)
    places: dict[str, tuple[int, int]] = {}
    end = 0
    with (folders.pop() / name).open("wb") as sink:
        for path in files:
            model = onnx.load(path)
            for tensor in model.graph.initializer:
                if len(tensor.raw_data) < SMALLEST:
                    continue
                key = tensor_key(tensor)
                if key not in places:
                    start = -(-end // ALIGNMENT) * ALIGNMENT
                    sink.write(b"\0" * (start - end))
                    sink.write(tensor.raw_data)
                    places[key] = (start, len(tensor.raw_data))
                    end = start + len(tensor.raw_data)
                _refer(tensor, name, *places[key])
            path.write_bytes(model.SerializeToString(deterministic=True))
    return end


def _refer(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    record: Mapping[str, object] = {"location": location, "offset": offset, "length": length}
    for key, value in record.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
