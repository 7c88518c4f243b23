"""`write_graph`: a free batch, the operators of a profile, nothing but computation in the file."""

import onnx
import pytest
import torch
from torch import nn

from export import onnx as written
from export.onnx import GraphError, TracingError, write_graph
from export.operators import OperatorError
from export.parity import compare, runner
from mtl_core.errors import ArgumentError


class Tupled(nn.Module):
    """What an export sees: a tuple out."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 32), nn.GELU(), *layers)

    def forward(self, x):
        return (self.layers(x),)


def write(path, *layers, batch=3, **options):
    torch.manual_seed(0)
    module = Tupled(*layers).eval()
    report = write_graph(module, {"numeric": torch.rand(batch, 8)}, ["y"], path, **options)
    return module, report


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "y.onnx"
    module, report = write(path, nn.Linear(32, 32))
    return path, module, report


def inputs(size):
    return {"numeric": torch.rand(size, 8).numpy()}


def test_the_batch_is_free_and_other_dimensions_are_fixed(graph):
    path, module, report = graph
    model = onnx.load(path)
    shapes = [written.io_shape(v) for v in [*model.graph.input, *model.graph.output]]
    assert shapes == [["batch", 8], ["batch", 32]]
    assert report.outputs == {"y": ["batch", 32]}
    reference = {"y": lambda b: module(torch.from_numpy(b["numeric"]))[0].detach().numpy()}
    found = compare(
        runner({"y": path}), lambda b: {"y": reference["y"](b)}, [inputs(n) for n in (1, 2, 7)]
    )
    assert found["y"].ok
    assert found["y"].batches == (1, 2, 7)


def test_a_trace_with_one_sample_is_refused_and_would_be_caught(tmp_path, graph):
    with pytest.raises(ArgumentError, match=r"example must have a batch of 2 or more.*\[1\]"):
        write(tmp_path / "x.onnx", batch=1)
    example = {"numeric": torch.rand(1, 8)}
    with pytest.raises((GraphError, TracingError), match=r"batch"):
        written._check_io(
            written._exported(graph[1], example, ["y"], 20, None), example, ["y"], "batch", 20
        )


def test_only_computation_is_in_the_file(graph):
    path, _, report = graph
    model = onnx.load(path)
    assert report.weight_bytes == sum(len(t.raw_data) for t in model.graph.initializer)
    assert (report.opset, report.nodes) == (20, len(model.graph.node))
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    assert b"/" not in model.SerializeToString(), "no path of any kind"
    notes = [model.metadata_props, model.graph.metadata_props, model.graph.value_info]
    notes += [node.metadata_props for node in model.graph.node]
    assert not any(notes)


def test_a_fixed_batch_and_an_older_opset(tmp_path):
    _, report = write(tmp_path / "x.onnx", static_batch=1, batch=1, opset=17)
    assert report.outputs == {"y": [1, 32]}
    assert report.opset == 17
    assert "Gelu" not in report.operators, "it came with opset 20"
    for opset in (16, 24):
        with pytest.raises(ArgumentError, match=r"opset must lie in 17\.\.23"):
            write(tmp_path / "x.onnx", opset=opset)
    with pytest.raises(ArgumentError, match="a batch of 2 in every input"):
        write(tmp_path / "x.onnx", static_batch=2)


class Chosen(nn.Module):
    """Rows whose first entry is positive count double: needs NonZero."""

    def forward(self, x):
        rows = (x[:, 0] > 0).nonzero()[:, 0]
        return x.index_add(0, rows, x.index_select(0, rows))


class Bessel(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


class Branching(nn.Module):
    def forward(self, x):
        return 2 * x if x.sum() > 0 else x


class Fixing(nn.Module):
    def forward(self, x):
        return x.reshape(3, -1) + 1


def test_operators_beyond_the_profile_are_named_with_their_module(tmp_path):
    with pytest.raises(OperatorError, match=r"layers\.2 \(Chosen\).*profile 'cpu' allows it") as e:
        write(tmp_path / "x.onnx", Chosen(), profile="portable")
    assert e.value.modules == ["layers.2 (Chosen)"]
    assert not (tmp_path / "x.onnx").exists()


def test_operators_that_onnx_lacks_are_named_with_their_module(tmp_path):
    with pytest.raises(OperatorError, match=r"bessel_j0 is not. It comes from layers\.2 \(Bessel"):
        write(tmp_path / "x.onnx", Bessel())


def test_modules_that_branch_on_values_or_fix_the_batch_are_named(tmp_path):
    with pytest.raises(TracingError, match=r"layers\.2 \(Branching\) does not .*data-dependent"):
        write(tmp_path / "x.onnx", Branching())
    with pytest.raises(TracingError, match="fixes the batch size"):
        write(tmp_path / "x.onnx", Fixing())
