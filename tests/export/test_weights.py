"""Graphs over one file of weights: its size, its alignment, and that each graph stands alone."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.parity import runner
from export.weights import ALIGNMENT, share_weights
from mtl_core.errors import ArgumentError

RNG = np.random.default_rng(0)
TRUNK = RNG.normal(size=(64, 64)).astype(np.float32)
HEADS = {name: RNG.normal(size=(64, 8)).astype(np.float32) for name in ("a", "b", "c")}
X = RNG.normal(size=(2, 64)).astype(np.float32)


def write(folder, name):
    nodes = [
        helper.make_node("MatMul", ["x", "trunk"], ["h"]),
        helper.make_node("MatMul", ["h", "head"], ["g"]),
        helper.make_node("Add", ["g", "bias"], [name]),
    ]
    tensors = [
        numpy_helper.from_array(TRUNK, "trunk"),
        numpy_helper.from_array(HEADS[name], "head"),
        numpy_helper.from_array(np.ones(8, np.float32), "bias"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8])],
        tensors,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = folder / f"{name}.onnx"
    path.write_bytes(made.SerializeToString(deterministic=True))
    return path


@pytest.fixture
def shared(tmp_path):
    paths = {name: write(tmp_path, name) for name in HEADS}
    size = share_weights(list(paths.values()))
    return tmp_path, paths, size


def test_graphs_compute_what_they_did(shared):
    _, paths, _ = shared
    for name, found in runner(paths)({"x": X}).items():
        np.testing.assert_allclose(found, X @ TRUNK @ HEADS[name] + 1, rtol=1e-4, atol=1e-4)


def test_a_tensor_is_stored_once_and_begins_at_a_page(shared):
    folder, paths, size = shared
    assert size == (folder / "weights.bin").stat().st_size
    assert size <= ALIGNMENT * 4 + 3 * 64 * 8 * 4 + TRUNK.nbytes
    offsets = set()
    for path in paths.values():
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            if tensor.name == "bias":
                assert not entries, "small constants stay in the graph"
            else:
                assert entries["location"] == "weights.bin"
                offsets.add(int(entries["offset"]))
        onnx.checker.check_model(str(path), full_check=True)
    assert len(offsets) == 4
    assert all(offset % ALIGNMENT == 0 for offset in offsets)


def test_deleting_one_graph_and_moving_the_folder_leaves_the_others(shared, tmp_path_factory):
    folder, paths, _ = shared
    paths["a"].unlink()
    moved = folder.rename(tmp_path_factory.mktemp("moved") / "model")
    found = runner({"b": moved / "b.onnx"})({"x": X})["b"]
    np.testing.assert_allclose(found, X @ TRUNK @ HEADS["b"] + 1, rtol=1e-4, atol=1e-4)


def test_twice_gives_equal_bytes(shared, tmp_path_factory):
    folder, paths, _ = shared
    other = tmp_path_factory.mktemp("again")
    share_weights([write(other, name) for name in HEADS])
    for name in ("weights.bin", *(path.name for path in paths.values())):
        assert (other / name).read_bytes() == (folder / name).read_bytes()


def test_folders_and_paths_are_refused(tmp_path, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    paths = [write(tmp_path, "a"), write(other, "b")]
    with pytest.raises(ArgumentError, match="graphs of one folder"):
        share_weights(paths)
    for name in ("../weights.bin", "", ".."):
        with pytest.raises(ArgumentError, match="bare name"):
            share_weights(paths[:1], name)
