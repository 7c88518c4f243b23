import errno
import json
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from toys import ToyNetwork, toy_tasks

from mtl_core import hub
from mtl_core.errors import ArgumentError, CheckpointWriteError
from mtl_core.hub import HubError, from_pretrained, model_card, push_to_hub, save_pretrained
from mtl_core.tasks import Classification
from mtl_vision.decoders import FPNDecoder
from mtl_vision.networks import HardSharing
from mtl_vision.tasks import DepthEstimation

TASKS = {"depth": DepthEstimation(), "scene": Classification(num_classes=2)}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = HardSharing(TASKS, encoder="resnet10t", decoder=partial(FPNDecoder, width=8))
    made(torch.randn(2, 3, 32, 32))  # moves the statistics of batch norm
    return made.eval()


@pytest.fixture
def saved(network, tmp_path):
    return save_pretrained(network, tmp_path / "model")


def test_a_round_trip_is_bit_identical(network, saved):
    found = from_pretrained(saved)
    assert type(found) is HardSharing
    assert not found.training
    assert found.tasks == network.tasks
    expected = network.state_dict()
    assert found.state_dict().keys() == expected.keys()
    assert all(torch.equal(v, expected[k]) for k, v in found.state_dict().items())
    images = torch.randn(2, 3, 33, 47)
    with torch.no_grad():
        assert all(torch.equal(p, network(images)[k]) for k, p in found(images).items())
    again = save_pretrained(found, saved.parent / "again")
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (again / name).read_bytes() == (saved / name).read_bytes()


def test_the_folder_holds_three_files_and_plain_json(saved):
    assert {p.name for p in saved.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert [p.name for p in saved.parent.iterdir()] == ["model"]
    record = json.loads((saved / "config.json").read_text())
    assert record["format"] == 1
    assert record["tasks"]["scene"] == {
        "class_path": "mtl_core.tasks.classification.Classification",
        "init_args": {
            "weight": 1.0,
            "groups": [],
            "num_classes": 2,
            "class_names": [],
            "label_smoothing": 0.0,
        },
    }
    assert record["network"]["init_args"]["decoder"]["init_args"] == {
        "width": 8,
        "stride": 4,
        "dropout": 0.0,
        "norm": "batch",
    }


def test_an_explicit_config_serves_networks_that_record_nothing(tmp_path):
    network = ToyNetwork(toy_tasks(), dropout=0.5)
    specs = {
        "size": {"class_path": "mtl_core.tasks.Regression"},
        "kind": {"class_path": "mtl_core.tasks.Classification", "init_args": {"num_classes": 3}},
        "marks": {"class_path": "mtl_core.tasks.MultiLabel", "init_args": {"num_labels": 2}},
    }
    config = {"tasks": specs, "network": {"class_path": "toys.ToyNetwork"}}
    found = from_pretrained(save_pretrained(network, tmp_path / "toy", config=config))
    x = torch.randn(4, 6)
    assert torch.equal(found(x)["kind"], network.eval()(x)["kind"])


def test_nothing_is_replaced_unasked_and_never_anything_else(network, saved):
    before = (saved / "config.json").read_bytes()
    with pytest.raises(ArgumentError, match="must be empty, unless overwrite"):
        save_pretrained(network, saved)
    (saved / "notes.txt").write_text("mine")
    with pytest.raises(ArgumentError, match=r"there is notes\.txt"):
        save_pretrained(network, saved, overwrite=True)
    assert (saved / "config.json").read_bytes() == before
    (saved / "notes.txt").unlink()
    save_pretrained(network, saved, overwrite=True, description="Second edition.")
    assert "Second edition." in (saved / "README.md").read_text()
    file = saved.parent / "file"
    file.write_text("")
    with pytest.raises(ArgumentError, match="be a folder, not a file"):
        save_pretrained(network, file)


@pytest.mark.parametrize("step", ["model_card", "save_model", "_digest"])
def test_a_full_disk_leaves_the_earlier_save_whole(network, saved, monkeypatch, step):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hub, step, full)
    with pytest.raises(CheckpointWriteError, match="No space left"):
        save_pretrained(network, saved, overwrite=True)
    monkeypatch.undo()
    assert from_pretrained(saved).tasks == network.tasks
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


def test_a_rename_that_fails_puts_the_earlier_save_back(network, saved, monkeypatch):
    original = type(saved).rename

    def rename(self, target):
        if self.name.startswith(".model.") and not self.name.endswith(".old"):
            raise OSError(errno.EIO, "Input/output error")
        return original(self, target)

    monkeypatch.setattr(type(saved), "rename", rename)
    with pytest.raises(CheckpointWriteError, match="Input/output error"):
        save_pretrained(network, saved, overwrite=True)
    assert from_pretrained(saved).tasks == network.tasks
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


def test_missing_files_are_named(saved, tmp_path):
    (saved / "model.safetensors").unlink()
    with pytest.raises(HubError, match=r"must hold model\.safetensors"):
        from_pretrained(saved)
    (saved / "config.json").unlink()
    with pytest.raises(HubError, match=r"must hold config\.json"):
        from_pretrained(saved)
    with pytest.raises(HubError, match="must be a folder or owner/name"):
        from_pretrained(tmp_path / "a" / "b" / "c")


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_damaged_weights_are_recognised(saved, damage):
    weights = saved / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data if damage == "flip" else data[:-8])
    with pytest.raises(HubError, match=r"model\.safetensors must have the checksum"):
        from_pretrained(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2, "mtl_suite": "9.0"}, r"must be 1, found 2, written by mtl-suite 9\.0"),
        ({"network": None}, "it lacks network"),
        ({"weights_sha256": None}, "it lacks weights_sha256"),
    ],
)
def test_configs_of_another_kind_are_explained(saved, change, message):
    path = saved / "config.json"
    record = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({k: v for k, v in record.items() if v is not None}))
    with pytest.raises(HubError, match=message):
        from_pretrained(saved)


def test_a_config_that_is_no_json_is_explained(saved):
    (saved / "config.json").write_text("{")
    with pytest.raises(HubError, match="must be JSON"):
        from_pretrained(saved)


def test_weights_of_another_network_are_explained(saved):
    path = saved / "config.json"
    record = json.loads(path.read_text())
    record["network"]["init_args"]["decoder"]["init_args"]["width"] = 16
    path.write_text(json.dumps(record))
    with pytest.raises(HubError, match=r"must hold the weights that config\.json needs"):
        from_pretrained(saved)


def test_the_card_names_tasks_results_and_how_to_load(network):
    card = model_card(network, description="Trained on rooms.", metrics={"depth": {"rmse": 0.51}})
    assert card.startswith("---\nlibrary_name: mtl-suite\n")
    assert "# HardSharing for depth, scene" in card
    assert "| depth | DepthEstimation | 1 | rmse ↓ | atrc |" in card
    assert "| scene | Classification | 2 | accuracy ↑ | – | 1,026 |" in card
    assert "| depth | rmse | 0.51 |" in card
    assert "Trained on rooms." in card
    assert "from_pretrained(" in card


def test_without_the_extra_the_install_line_is_shown(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(HubError, match=r"pip install 'mtl-suite\[hub\]'"):
        push_to_hub(saved, "someone/rooms")
    with pytest.raises(HubError, match=r"no folder 'someone/rooms'.*mtl-suite\[hub\]"):
        from_pretrained("someone/rooms")


def test_push_and_download_go_through_the_hubs_client(network, saved, monkeypatch):
    calls = []

    def upload_folder(**arguments):
        calls.append(arguments)
        return SimpleNamespace(commit_url="somewhere/commit/1")

    def snapshot_download(repository, *, revision, allow_patterns):
        if revision == "gone":
            raise ConnectionError("no route to host")
        return str(saved)

    client = SimpleNamespace(
        create_repo=lambda name, **arguments: calls.append({"name": name, **arguments}),
        upload_folder=upload_folder,
        snapshot_download=snapshot_download,
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    assert push_to_hub(saved, "someone/rooms", private=True) == "somewhere/commit/1"
    assert calls[0] == {"name": "someone/rooms", "private": True, "exist_ok": True}
    assert calls[1]["folder_path"] == saved
    assert from_pretrained("someone/rooms").tasks == network.tasks
    with pytest.raises(HubError, match=r"is no folder, and cannot be had.*no route to host"):
        from_pretrained("someone/rooms", revision="gone")
    (saved / "README.md").unlink()
    with pytest.raises(HubError, match=r"must hold README\.md"):
        push_to_hub(saved, "someone/rooms")
