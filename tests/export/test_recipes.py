"""Which products become integers, and that they stay what they were within rounding."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.calibration import measure_ranges
from export.clean import clean
from export.quantize import snr
from export.recipes import dynamic_int8, half, lend_ranges, products, router_nodes, static_int8

RNG = np.random.default_rng(0)
WEIGHTS = {
    "conv": RNG.normal(size=(8, 3, 2, 2)).astype(np.float32),
    "conv_bias": RNG.normal(size=8).astype(np.float32),
    "into": RNG.normal(size=(8, 12)).astype(np.float32),
    "into_bias": RNG.normal(size=12).astype(np.float32),
    "router": RNG.normal(size=(12, 5)).astype(np.float32),
    "router_bias": RNG.normal(size=5).astype(np.float32),
    "gemm": RNG.normal(size=(7, 12)).astype(np.float32),
    "gemm_bias": RNG.normal(size=7).astype(np.float32),
    "scale": np.ones(12, np.float32),
}


@pytest.fixture(scope="module")
def model():
    """Patches, a product, an attention product, a router and a head."""
    add = helper.make_node
    nodes = [
        add("Conv", ["image", "conv", "conv_bias"], ["maps"], "patch", strides=[2, 2]),
        add("Reshape", ["maps", "shape"], ["channels"], "reshape"),
        add("Transpose", ["channels"], ["tokens"], "transpose", perm=[0, 2, 1]),
        add("MatMul", ["tokens", "into"], ["projected"], "into"),
        add("Add", ["projected", "into_bias"], ["inner"], "into_add"),
        add("LayerNormalization", ["inner", "scale"], ["normed"], "norm"),
        add("Transpose", ["normed"], ["turned"], "turn", perm=[0, 2, 1]),
        add("MatMul", ["normed", "turned"], ["scores"], "attention_scores"),
        add("Softmax", ["scores"], ["attention"], "attention"),
        add("MatMul", ["attention", "normed"], ["mixed"], "attention_values"),
        add("MatMul", ["mixed", "router"], ["logits"], "route"),
        add("Add", ["logits", "router_bias"], ["biased"], "route_bias"),
        add("Softmax", ["biased"], ["probabilities"], "route_softmax"),
        add("TopK", ["probabilities", "two"], ["best", "chosen"], "choose"),
        add("ReduceSum", ["best", "last"], ["gate"], "gate"),
        add("Mul", ["mixed", "gate"], ["gated"], "gated"),
        add("ReduceMean", ["gated", "one"], ["mean"], "mean", keepdims=0),
        add("Gemm", ["mean", "gemm", "gemm_bias"], ["out"], "head", transB=1),
    ]
    constants = WEIGHTS | {
        "shape": np.array([0, 8, -1]),
        "two": np.array([2]),
        "one": np.array([1]),
        "last": np.array([-1]),
    }
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 7])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made


IMAGES = {"image": RNG.random((5, 3, 8, 8), dtype=np.float32)}


def run(model):
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, IMAGES)[0]


def kinds(model):
    return {node.name: node.op_type for node in model.graph.node}


def test_only_products_with_constants_that_decide_nothing(model):
    found = [p.node for p in products(model, convolutions=True)]
    assert found == ["patch", "into", "head"]
    assert [p.node for p in products(model, convolutions=False)] == ["into", "head"]
    assert {"route", "route_softmax", "route_bias", "choose"} == router_nodes(model)


def test_dynamic(model):
    chosen = products(model, convolutions=False)
    made = dynamic_int8(model, chosen)
    types = [node.op_type for node in made.graph.node]
    assert types.count("MatMulInteger") == types.count("DynamicQuantizeLinear") == 2
    kept = {"patch", "attention_scores", "attention_values", "route", "norm", "attention"}
    assert kept <= kinds(made).keys()
    assert snr(run(made), run(model)) > 35
    whole = [t for t in made.graph.initializer if t.data_type == TensorProto.INT8]
    assert {tuple(t.dims) for t in whole} == {(8, 12), (12, 7)}


def test_static(model):
    chosen = products(model, convolutions=True)
    tensors = [p.source for p in chosen] + [p.result for p in chosen if p.kind == "Conv"]
    ranges = measure_ranges(model, tensors, [IMAGES])
    assert ranges["image"] == (IMAGES["image"].min(), IMAGES["image"].max())
    made = static_int8(model, chosen, ranges)
    assert snr(run(made), run(model)) > 30
    producers = {out: node for node in made.graph.node for out in node.output}
    for node in made.graph.node:
        above = {producers[name].op_type for name in node.input if name in producers}
        if node.name in ("route", "attention_scores", "attention_values"):
            assert "DequantizeLinear" not in above
        if node.op_type in ("Softmax", "LayerNormalization"):
            assert not above & {"QuantizeLinear"}
    # Biases are integers too, or ONNX Runtime would compute the experts in float.
    whole = [t for t in made.graph.initializer if t.data_type == TensorProto.INT32]
    assert sorted(tuple(t.dims) for t in whole) == [(7,), (8,), (12,)]
    # Per channel: as many scales as there are outputs.
    scales = {tuple(t.dims) for t in made.graph.initializer if t.data_type == TensorProto.FLOAT}
    assert {(8,), (12,), (7,)} <= scales


def test_products_without_ranges_stay(model):
    chosen = products(model, convolutions=True)
    assert "QuantizeLinear" not in kinds(static_int8(model, chosen, {})).values()
    part = static_int8(model, chosen, {"mean": (0.0, 1.0)})
    assert list(kinds(part).values()).count("QuantizeLinear") == 1
    assert np.array_equal(run(static_int8(model, chosen, {})), run(model))


def test_products_that_saw_nothing_take_the_range_of_their_like(model):
    chosen = products(model, convolutions=False)
    found = lend_ranges(model, [chosen[0], chosen[0], chosen[1]], {"tokens": (0.0, 1.0)})
    assert found == {"tokens": (0.0, 1.0)}  # the head has weights of another shape
    other = replace(chosen[0], source="never")
    found = lend_ranges(model, [chosen[0], other], {"tokens": (0.0, 1.0)})
    assert found["never"] == (0.0, 1.0)


def test_zero_weights_and_constant_tensors(model):
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    (into,) = (t for t in changed.graph.initializer if t.name == "into")
    into.CopyFrom(numpy_helper.from_array(np.zeros((8, 12), np.float32), "into"))
    chosen = products(changed, convolutions=False)
    assert np.isfinite(run(dynamic_int8(changed, chosen))).all()
    ranges = {"tokens": (0.0, 0.0), "mean": (2.0, 3.0)}
    assert np.isfinite(run(static_int8(changed, chosen, ranges))).all()


def test_half_keeps_inputs_outputs_and_routers(model):
    made = half(model)
    assert made.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert snr(run(made), run(model)) > 50
    types = {t.name: t.data_type for t in made.graph.initializer}
    assert types["router"] == TensorProto.FLOAT
    assert types["gemm"] == TensorProto.FLOAT16


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_a_large_model_shrinks_to_a_third(mode):
    """Property 12: at most 0.35 of fp32 above four megabytes."""
    size = 1100
    tensor = helper.make_tensor_value_info
    weights = RNG.normal(size=(size, size)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")],
        "graph",
        [tensor("x", TensorProto.FLOAT, ["batch", size])],
        [tensor("y", TensorProto.FLOAT, ["batch", size])],
        [numpy_helper.from_array(weights, "w")],
    )
    full = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    chosen = products(full, convolutions=False)
    if mode == "dynamic":
        made = dynamic_int8(full, chosen)
    else:
        made = static_int8(full, chosen, {"x": (-3.0, 3.0)})
    clean(made)
    assert full.ByteSize() > 4e6
    assert made.ByteSize() < 0.35 * full.ByteSize()
