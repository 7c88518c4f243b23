"""Graphs are timed in turn; no number is promised."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.timing import race


def graph(path, size):
    weight = numpy_helper.from_array(np.ones((size, size), np.float32), "w")
    tensor = helper.make_tensor_value_info
    made = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")],
        "graph",
        [tensor("x", TensorProto.FLOAT, ["batch", size])],
        [tensor("y", TensorProto.FLOAT, ["batch", size])],
        [weight],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(made, opset_imports=opset, ir_version=10), path)
    return path


def test_each_graph_has_a_time(tmp_path):
    graphs = {name: graph(tmp_path / f"{name}.onnx", 8) for name in ("a", "b")}
    inputs = {"x": np.ones((4, 8), np.float32), "unused": np.ones(1)}
    found = race(graphs, inputs, rounds=3, warm_ups=1)
    assert list(found) == ["a", "b"]
    assert all(0 <= value < 1e3 for value in found.values())
