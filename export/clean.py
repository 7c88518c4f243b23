"""What a graph does not need: notes of the exporter, doubled constants, shapes in between."""

import hashlib

import onnx
from onnx import TensorProto, numpy_helper

SMALLEST = 1024
"""Constants of at least so many bytes are compared, merged and shared; smaller ones stay."""


def clean(model: onnx.ModelProto) -> None:
    """Keep computation only, in place.

    Stack traces, documentation, metadata and inner shapes go (they hold paths of the exporting
    machine); constants that nothing reads go; equal constants become one; all are stored as raw
    bytes. Names of nodes are numbered, so that they say nothing of the code that made them.

    Args:
        model: a graph of the exporter, without functions of its own.
    """
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    model.doc_string = model.graph.doc_string = ""
    model.graph.name = "graph"
    for value in [*model.graph.input, *model.graph.output]:
        value.doc_string = ""
        del value.metadata_props[:]
    for i, node in enumerate(model.graph.node):
        node.doc_string = ""
        node.name = f"{i}_{node.op_type}"
        del node.metadata_props[:]
    _make_raw(model)
    _merge_equal(model)
    _drop_unread(model)


def tensor_key(tensor: TensorProto) -> str:
    """Hash of type, shape and bytes of a constant with raw data."""
    head = f"{tensor.data_type}:{','.join(map(str, tensor.dims))}:".encode()
    return hashlib.sha256(head + tensor.raw_data).hexdigest()


def io_shape(value: onnx.ValueInfoProto) -> list[str | int]:
    """Shape of an input or output: names of free dimensions, numbers of fixed ones."""
    return [
        dim.dim_param if dim.HasField("dim_param") else int(dim.dim_value)
        for dim in value.type.tensor_type.shape.dim
    ]


def _make_raw(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
        if not tensor.HasField("raw_data"):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), name))


def _merge_equal(model: onnx.ModelProto) -> None:
    first: dict[str, str] = {}
    renamed: dict[str, str] = {}
    results = {value.name for value in model.graph.output}
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) >= SMALLEST and tensor.name not in results:
            kept = first.setdefault(tensor_key(tensor), tensor.name)
            if kept != tensor.name:
                renamed[tensor.name] = kept
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)


def _drop_unread(model: onnx.ModelProto) -> None:
    read = {name for node in model.graph.node for name in node.input}
    read |= {value.name for value in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    if len(kept) < len(model.graph.initializer):
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
