"""`load_source`: what can be exported, and what is said of the rest."""

import json

import pytest
import torch
import yaml
from toy_exports import image_network, table_network, table_run, write_checkpoint
from toys import ToyNetwork, toy_tasks

from export.source import SourceError, build_data, load_source, table_schema
from mtl_core.errors import MTLError
from mtl_core.hub import HubError, save_pretrained
from mtl_tabular.data import TableDataModule
from mtl_vision.data import MultiDigits


@pytest.fixture(scope="module")
def network():
    return image_network()


def same(first, second):
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_checkpoint_alone(tmp_path, network):
    found = load_source(write_checkpoint(tmp_path / "a.ckpt", network))
    assert same(found.network, network)
    assert not found.network.training
    assert (found.kind, found.data, found.config) == ("image", None, None)
    assert list(found.tasks) == ["semseg", "depth", "scene"]
    assert found.parameters == sum(p.numel() for p in network.parameters())
    assert found.class_path == "mtl_vision.networks.hard_sharing.HardSharing"
    assert len(found.checkpoint_sha256) == len(found.config_sha256) == 64


def test_a_run_folder_brings_its_data_module(tmp_path):
    table_run(tmp_path)
    found = load_source(tmp_path)
    assert found.kind == "table"
    assert isinstance(found.data, TableDataModule)
    assert found.data.schema == table_schema(found.network)
    assert found.data.tasks == found.tasks, "classes and units are those of the checkpoint"
    again = load_source(tmp_path / "checkpoints" / "last.ckpt", data=False)
    assert again.data is None
    assert again.config == found.config


def test_a_hub_folder_and_a_config_by_short_names(tmp_path):
    from mtl_core.tasks import Classification
    from mtl_vision.networks import HardSharing

    tasks = {name: Classification(num_classes=10) for name in ("left", "right")}
    folder = save_pretrained(HardSharing(tasks, encoder="test_resnet"), tmp_path / "hub")
    config = tmp_path / "digits.yaml"
    config.write_text(yaml.safe_dump({"data": {"class_path": "MultiDigits"}, "tasks": {}}))
    found = load_source(folder, config)
    assert isinstance(found.data, MultiDigits)
    assert found.data.tasks == found.tasks


def test_a_hub_folder_of_another_version(tmp_path, network):
    folder = save_pretrained(network, tmp_path / "hub")
    record = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**record, "format": 99}))
    with pytest.raises(HubError, match="must be 1, found 99"):
        load_source(folder)


@pytest.mark.parametrize("change", ["class", "weights", "nothing"])
def test_checkpoints_of_another_version(tmp_path, network, change):
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, network)
    held = torch.load(path, weights_only=True)
    if change == "class":
        held["hyper_parameters"]["network"]["class_path"] = "mtl_vision.networks.gone.Gone"
    elif change == "weights":
        held["state_dict"].pop("network.decoders.semseg.classifier.weight")
    else:
        held["hyper_parameters"] = {}
    torch.save(held, path)
    with pytest.raises(SourceError, match="another version of mtl-suite wrote it"):
        load_source(path)


def test_what_is_no_source(tmp_path, network):
    with pytest.raises(SourceError, match=r"nowhere does not exist"):
        load_source(tmp_path / "nowhere")
    (tmp_path / "a.onnx").write_text("x")
    with pytest.raises(SourceError, match=r"must be a checkpoint \(\.ckpt\)"):
        load_source(tmp_path / "a.onnx")
    with pytest.raises(SourceError, match=r"neither one nor config\.json"):
        load_source(tmp_path)
    for name in ("a", "b"):
        write_checkpoint(tmp_path / "checkpoints" / f"{name}.ckpt", network)
    with pytest.raises(SourceError, match=r"checkpoints/a\.ckpt, checkpoints/b\.ckpt"):
        load_source(tmp_path)
    (tmp_path / "broken.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(SourceError, match="cannot read checkpoint"):
        load_source(tmp_path / "broken.ckpt")


def test_configs_that_cannot_be_used(tmp_path, network):
    path = write_checkpoint(tmp_path / "a.ckpt", network)
    with pytest.raises(SourceError, match="does not exist"):
        load_source(path, tmp_path / "absent.yaml")
    config = tmp_path / "c.yaml"
    for text, message in (("[1, 2]", "hold blocks"), ("a: [", "YAML file that can be read")):
        config.write_text(text)
        with pytest.raises(MTLError, match=message):
            load_source(path, config)
    config.write_text("data: {class_path: mtl_vision.data.Gone}")
    with pytest.raises(SourceError, match="must describe a data module"):
        load_source(path, config)
    config.write_text("model: {}")
    assert load_source(path, config).data is None


def test_a_data_module_that_refuses_the_tasks_says_so(network):
    block = {"data": {"class_path": "mtl_vision.data.MultiDigits", "init_args": {}}}
    with pytest.raises(MTLError, match="semseg"):
        build_data(network, block)


def test_only_columns_make_a_table():
    assert table_schema(table_network()) is not None
    assert table_schema(ToyNetwork(toy_tasks())) is None
