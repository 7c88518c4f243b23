"""Artefact folders made by hand, without torch: tiny graphs whose results numpy can tell."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.manifest import seal

SIZE = (24, 32)
CLASSES = ["wall", "floor", "chair", "lamp"]
PALETTE = [[58, 60, 66], [86, 180, 233], [230, 159, 0], [0, 158, 115]]
PREPROCESS = {
    "kind": "image",
    "operations": [
        {"op": "decode", "colours": "rgb"},
        {"op": "resize", "size": list(SIZE), "kernel": "linear", "reduce": "area"},
        {"op": "scale", "factor": 1 / 255},
        {"op": "layout", "order": "chw"},
    ],
    "normalization": {"mean": [0.5] * 3, "std": [0.5] * 3, "in_graph": True},
}
IMAGE_LABELS = {
    "semseg": {"kind": "segmentation", "classes": CLASSES, "palette": PALETTE},
    "depth": {"kind": "depth", "unit": "m"},
    "normals": {"kind": "normals", "channels": ["x", "y", "z"]},
    "scene": {"kind": "classification", "classes": ["day", "night"]},
}
IMAGE_SHAPES = {
    "semseg": [4, *SIZE],
    "depth": list(SIZE),
    "normals": [3, *SIZE],
    "scene": [2],
}
WEIGHTS = {
    "semseg": np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32) * 4,
    "depth": np.array([[1.0, 2.0, 0.5]], np.float32),
    "normals": np.random.default_rng(2).normal(size=(3, 3)).astype(np.float32),
    "scene": np.array([[3.0, 3.0, 3.0], [-3.0, -3.0, -3.0]], np.float32),
}

TABLE = {
    "kind": "table",
    "numeric": [
        {"name": "age", "mean": 40.0, "std": 10.0, "median": 39.0},
        {"name": "income", "mean": 0.0, "std": 1.0, "median": 0.0},
    ],
    "categorical": [{"name": "city", "levels": ["1", "Oslo", "Rome", "True"]}],
    "codes": {"unseen": 0, "missing": 1, "first_level": 2},
}
TABLE_LABELS = {
    "sale": {"kind": "binary", "classes": ["no", "yes"], "threshold": 0.5},
    "tier": {"kind": "multiclass", "classes": ["low", "mid", "high"]},
    "price": {"kind": "numeric"},
}
TABLE_WIDTHS = {"sale": 1, "tier": 3, "price": 1}
TABLE_WEIGHTS = {
    name: np.random.default_rng(3).normal(size=(3, width)).astype(np.float32)
    for name, width in TABLE_WIDTHS.items()
}


def expected_image(task, image):
    """What the graph of a task gives for images (B, 3, H, W) in [0, 1]."""
    scaled = np.einsum("kc,bchw->bkhw", WEIGHTS[task], image.astype(np.float64))
    if task == "depth":
        return np.maximum(scaled[:, 0], 0.1)
    if task == "normals":
        return scaled / np.maximum(np.sqrt((scaled**2).sum(1, keepdims=True)), 1e-6)
    if task == "scene":
        scaled = scaled.mean((2, 3)) - 3 * np.array([1, -1])
    weights = np.exp(scaled - scaled.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def expected_table(task, numeric, categorical):
    """What the graph of a task gives for standardised numbers and codes."""
    held = np.concatenate([np.nan_to_num(numeric), categorical], 1).astype(np.float64)
    raw = held @ TABLE_WEIGHTS[task]
    if task == "sale":
        return 1 / (1 + np.exp(-raw))
    if task == "tier":
        weights = np.exp(raw - raw.max(1, keepdims=True))
        return weights / weights.sum(1, keepdims=True)
    return raw


def _save(path, nodes, inputs, output, constants):
    graph = helper.make_graph(
        nodes,
        "toy",
        inputs,
        [output],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))


def image_graph(path, task, scale=1.0, batch="batch"):
    """Write the graph of a task of `expected_image`."""
    nodes = [helper.make_node("Conv", ["image", "weight"], ["scaled"])]
    constants = {"weight": (WEIGHTS[task] * np.float32(scale))[..., None, None]}
    if task == "depth":
        constants |= {"low": np.float32(0.1), "axis": np.array([1])}
        nodes.append(helper.make_node("Squeeze", ["scaled", "axis"], ["plane"]))
        nodes.append(helper.make_node("Max", ["plane", "low"], ["depth"]))
    elif task == "normals":
        constants |= {"axis": np.array([1]), "least": np.float32(1e-6)}
        nodes.append(helper.make_node("ReduceL2", ["scaled", "axis"], ["length"], keepdims=1))
        nodes.append(helper.make_node("Max", ["length", "least"], ["divisor"]))
        nodes.append(helper.make_node("Div", ["scaled", "divisor"], ["normals"]))
    elif task == "scene":
        constants |= {"axes": np.array([2, 3]), "offset": np.array([3.0, -3.0], np.float32)}
        nodes.append(helper.make_node("ReduceMean", ["scaled", "axes"], ["mean"], keepdims=0))
        nodes.append(helper.make_node("Sub", ["mean", "offset"], ["raw"]))
        nodes.append(helper.make_node("Softmax", ["raw"], ["scene"], axis=1))
    else:
        nodes.append(helper.make_node("Softmax", ["scaled"], ["semseg"], axis=1))
    _save(
        path,
        nodes,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, *SIZE])],
        helper.make_tensor_value_info(task, TensorProto.FLOAT, [batch, *IMAGE_SHAPES[task]]),
        constants,
    )


def table_graph(path, task):
    """Write the graph of a task of `expected_table`."""
    nodes = [
        helper.make_node("IsNaN", ["numeric"], ["absent"]),
        helper.make_node("Where", ["absent", "zero", "numeric"], ["numbers"]),
        helper.make_node("Cast", ["categorical"], ["codes"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["numbers", "codes"], ["both"], axis=1),
    ]
    last = {"sale": "Sigmoid", "tier": "Softmax", "price": "Identity"}[task]
    nodes.append(helper.make_node("MatMul", ["both", "weight"], ["raw"]))
    nodes.append(helper.make_node(last, ["raw"], [task]))
    _save(
        path,
        nodes,
        [
            helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["batch", 2]),
            helper.make_tensor_value_info("categorical", TensorProto.INT64, ["batch", 1]),
        ],
        helper.make_tensor_value_info(task, TensorProto.FLOAT, ["batch", TABLE_WIDTHS[task]]),
        {"zero": np.float32(0), "weight": TABLE_WEIGHTS[task]},
    )


def _finish(folder, kind, inputs, shapes, labels, preprocess, variants, golden):
    for name, value in (("preprocess.json", preprocess), ("labels.json", labels)):
        (folder / name).write_text(json.dumps(value))
    (folder / "README.md").write_text("# Toy\n")
    (folder / "golden").mkdir()
    for name, arrays in zip(("inputs", "outputs"), golden, strict=True):
        np.savez_compressed(folder / "golden" / f"{name}.npz", **arrays)
    tasks = [
        {
            "name": name,
            "kind": labels[name]["kind"],
            "index": i,
            "dense": len(shape) > 1,
            "outputs": [{"name": name, "shape": ["batch", *shape]}],
            "primary": "score",
            "higher_is_better": True,
        }
        for i, (name, shape) in enumerate(shapes.items())
    ]
    return seal(
        folder,
        {
            "producer": {"name": "mtl-suite", "version": "0", "opset": 20},
            "kind": kind,
            "model": {"class": "toys.Network", "parameters": 12},
            "inputs": inputs,
            "tasks": tasks,
            "variants": variants,
            "preprocess": "preprocess.json",
            "labels": "labels.json",
            "golden": {
                "inputs": "golden/inputs.npz",
                "outputs": "golden/outputs.npz",
                "tolerance": 1e-5,
            },
            "created": "2026-01-01",
        },
    )


def image_folder(folder, preprocess=PREPROCESS):
    """A folder with four tasks and a second variant whose weights are a little larger."""
    folder = Path(folder)
    variants = []
    for name, prefix, scale in (("fp32", "", 1.0), ("int8-dynamic", "int8-dynamic/", 1.001)):
        graphs = {task: f"{prefix}{task}.onnx" for task in IMAGE_SHAPES}
        for task, path in graphs.items():
            image_graph(folder / path, task, scale)
        held = {"id": name, "precision": name.partition("-")[0], "graphs": graphs}
        held["parity"] = {t: {"max_abs": 1e-7, "max_rel": 1e-7, "ok": True} for t in graphs}
        held["metrics"] = {task: {"score": 0.5} for task in graphs}
        variants.append(held)
    image = np.random.default_rng(0).random((4, 3, *SIZE), dtype=np.float32)
    outputs = {task: expected_image(task, image).astype(np.float32) for task in IMAGE_SHAPES}
    entry = {"name": "image", "dtype": "float32", "shape": ["batch", 3, *SIZE]}
    golden = ({"image": image}, outputs)
    _finish(folder, "image", [entry], IMAGE_SHAPES, IMAGE_LABELS, preprocess, variants, golden)
    return folder


def table_folder(folder):
    """A folder with a binary, a three-class and a numeric task."""
    folder = Path(folder)
    for task in TABLE_WIDTHS:
        table_graph(folder / f"{task}.onnx", task)
    numeric = np.array([[0.5, np.nan], [-1, 2], [0, 0]], np.float32)
    categorical = np.array([[2], [0], [1]])
    outputs = {
        task: expected_table(task, numeric, categorical).astype(np.float32) for task in TABLE_WIDTHS
    }
    inputs = [
        {"name": "numeric", "dtype": "float32", "shape": ["batch", 2]},
        {"name": "categorical", "dtype": "int64", "shape": ["batch", 1]},
    ]
    graphs = {task: f"{task}.onnx" for task in TABLE_WIDTHS}
    variants = [{"id": "fp32", "precision": "fp32", "graphs": graphs}]
    golden = ({"numeric": numeric, "categorical": categorical}, outputs)
    shapes = {task: [width] for task, width in TABLE_WIDTHS.items()}
    _finish(folder, "table", inputs, shapes, TABLE_LABELS, TABLE, variants, golden)
    return folder


def trees_folder(folder):
    """A folder whose one graph adds the features that are there and the task's number."""
    folder = Path(folder)
    nodes = [
        helper.make_node("IsNaN", ["features"], ["absent"]),
        helper.make_node("Where", ["absent", "zero", "features"], ["known"]),
        helper.make_node("ReduceSum", ["known", "axis"], ["total"], keepdims=1),
        helper.make_node("Cast", ["task"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["number", "axis"], ["column"]),
        helper.make_node("Add", ["total", "column"], ["prediction"]),
    ]
    _save(
        folder / "trees.onnx",
        nodes,
        [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info("task", TensorProto.INT64, ["batch"]),
        ],
        helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["batch", 1]),
        {"zero": np.float32(0), "axis": np.array([1])},
    )
    inputs = [
        {"name": "features", "dtype": "float32", "shape": ["batch", 3]},
        {"name": "task", "dtype": "int64", "shape": ["batch"]},
    ]
    features = np.array([[1, np.nan, 2], [0, 0, 0]], np.float32)
    tasks = np.array([1, -1])
    outputs = {"prediction": (np.nan_to_num(features).sum(1) + tasks)[:, None]}
    labels = {"north": {"kind": "numeric"}, "east": {"kind": "numeric"}}
    variants = [{"id": "fp32", "precision": "fp32", "graphs": {"*": "trees.onnx"}}]
    golden = ({"features": features, "task": tasks}, outputs)
    document = {**TABLE, "kind": "trees", "task_column": "region", "tasks": list(labels)}
    shapes = {name: [1] for name in labels}
    _finish(folder, "trees", inputs, shapes, labels, document, variants, golden)
    return folder
