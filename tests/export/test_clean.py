"""`clean`: equal constants become one, unread ones go, and nothing else changes."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from export.clean import clean, io_shape, tensor_key


def model():
    big = np.arange(512, dtype=np.float32).reshape(1, 512)
    tensors = [
        numpy_helper.from_array(big, "a"),
        numpy_helper.from_array(big.copy(), "same"),
        numpy_helper.from_array(big.reshape(512, 1), "other_shape"),
        numpy_helper.from_array(big, "unread"),
        helper.make_tensor("small", TensorProto.FLOAT, [1], [2.0]),  # not as raw bytes
    ]
    nodes = [
        helper.make_node("Add", ["x", "a"], ["h"], name="path/of/a/file"),
        helper.make_node("Add", ["h", "same"], ["g"]),
        helper.make_node("Mul", ["g", "small"], ["f"]),
        helper.make_node("MatMul", ["f", "other_shape"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 512])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
        tensors,
        doc_string="/home/someone/code.py",
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    entry = made.graph.node[0].metadata_props.add()
    entry.key, entry.value = "stack", 'File "/home/someone/code.py"'
    return made


def run(made):
    held = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return held.run(None, {"x": np.ones((2, 512), np.float32)})[0]


def test_equal_constants_become_one_and_results_stay():
    made = model()
    before = run(made)
    clean(made)
    onnx.checker.check_model(made, full_check=True)
    assert sorted(t.name for t in made.graph.initializer) == ["a", "other_shape", "small"]
    assert all(t.HasField("raw_data") for t in made.graph.initializer)
    np.testing.assert_array_equal(run(made), before)


def test_nothing_of_the_machine_stays():
    made = model()
    clean(made)
    for tensor in made.graph.initializer:
        tensor.ClearField("raw_data")
    assert b"/" not in made.SerializeToString()
    assert [node.name for node in made.graph.node] == ["0_Add", "1_Add", "2_Mul", "3_MatMul"]


def test_keys_tell_types_and_shapes_apart():
    zeros = np.zeros((4, 2), np.float32)
    made = [zeros, zeros.reshape(2, 4), zeros.astype(np.int32), zeros + 1, zeros.copy()]
    keys = [tensor_key(numpy_helper.from_array(value, "x")) for value in made]
    assert len(set(keys)) == 4
    assert keys[0] == keys[4]


def test_io_shapes():
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 0])
    assert io_shape(value) == ["batch", 3, 0]
