"""Graphs of networks with experts: one a task, and what is exact about them."""

from functools import partial

import pytest
import torch
from toy_exports import small_source

from export.build import build
from export.samples import input_spec
from export.settings import BuildSettings
from export.source import Source
from export.task_graphs import export_module, write_graphs
from mtl_core.errors import ArgumentError
from mtl_vision.decoders import LinearMapDecoder
from mtl_vision.encoders import MoEViT
from mtl_vision.networks import M3ViT
from mtl_vision.tasks import DepthEstimation, SemanticSegmentation

SIZE = (32, 48)


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(0)
    encoder = partial(
        MoEViT,
        name="vit_tiny_patch16_224",
        img_size=SIZE,
        model_args={"embed_dim": 24, "depth": 2, "num_heads": 2},
        num_experts=6,
        top_k=2,
    )
    tasks = {"semseg": SemanticSegmentation(num_classes=3), "depth": DepthEstimation()}
    network = M3ViT(tasks, encoder=encoder, decoder=LinearMapDecoder)
    return Source(network.eval(), None, None, "M3ViT")


def test_one_graph_of_all_tasks_is_refused_where_tasks_have_tokens_of_their_own(source, tmp_path):
    with pytest.raises(ArgumentError, match="layout must be per-task for a network with experts"):
        build(source, tmp_path / "m", BuildSettings(layout="all"))
    assert list(tmp_path.iterdir()) == []


def test_a_form_with_few_places_is_compared_with_itself_and_says_so(source, tmp_path):
    settings = BuildSettings(tasks=("depth",), moe="capacity", capacity_factor=1.0)
    manifest = build(source, tmp_path / "m", settings)
    (layer,) = manifest["variants"][0]["moe"]["depth"]
    assert (layer["form"], layer["capacity_factor"]) == ("capacity", 1.0)
    assert layer["overflow_rate"] >= 0
    assert manifest["drift"] == []


def test_removing_used_experts_needs_a_score(source, tmp_path, monkeypatch):
    settings = BuildSettings(tasks=("depth",), moe="dense", keep_experts=3)
    with pytest.raises(ArgumentError, match="--keep-experts must be 'window' where nothing"):
        build(source, tmp_path / "m", settings)
    assert list(tmp_path.iterdir()) == []


def test_networks_without_experts_are_exact(tmp_path):
    source = small_source()
    spec = input_spec(source)
    found = write_graphs(source, ["click"], spec, spec.random(3), tmp_path, BuildSettings())
    assert found["click"].exact
    assert found["click"].layers == []
    assert found["click"].report.outputs == {"click": ["batch", 1]}
    module = export_module(source.network, ["price", "click"], spec)
    assert module.names == ("price", "click")
