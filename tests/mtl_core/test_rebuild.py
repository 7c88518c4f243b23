import copy
from collections.abc import Callable, Mapping
from functools import partial

import pytest
import torch
from jsonargparse import ArgumentParser
from toys import ToyNetwork, toy_tasks

from mtl_core.errors import UnknownNameError
from mtl_core.nn import MultiTaskNetwork
from mtl_core.rebuild import RebuildError, build, describe, from_checkpoint
from mtl_core.tasks import Classification, Task
from mtl_vision.decoders import ASPPDecoder, FPNDecoder
from mtl_vision.encoders import TimmEncoder
from mtl_vision.networks import HardSharing
from mtl_vision.tasks import DepthEstimation, SemanticSegmentation

TINY = {"embed_dim": 24, "depth": 2, "num_heads": 2}
ENCODER = partial(TimmEncoder, "vit_tiny_patch16_224", img_size=(32, 48), model_args=TINY)
TASKS = {
    "semseg": SemanticSegmentation(num_classes=3, class_names=("a", "b", "c")),
    "depth": DepthEstimation(weight=2.0),
    "scene": Classification(num_classes=2),
}


class RecordedToy(ToyNetwork):
    pass


def sharing(**arguments):
    made = {"decoder": partial(FPNDecoder, width=8), "encoder": ENCODER}
    return HardSharing(TASKS, **{**made, **arguments})


def test_arguments_are_recorded_with_defaults_and_follow_a_copy():
    network = RecordedToy(toy_tasks(), dropout=0.25)
    expected = {"dropout": 0.25, "border": True, "norm": False}
    assert {k: v for k, v in network.arguments().items() if k != "tasks"} == expected
    assert copy.deepcopy(network).arguments()["dropout"] == 0.25
    assert not any("given" in name for name in network.state_dict())


@pytest.mark.parametrize(
    "network",
    [
        lambda: RecordedToy(toy_tasks(), dropout=0.25),
        sharing,
        lambda: sharing(decoder=FPNDecoder, decoders={"depth": partial(ASPPDecoder, width=8)}),
        lambda: HardSharing(TASKS, encoder="resnet10t"),
    ],
)
def test_a_rebuilt_network_has_the_same_description_tasks_and_parameters(network):
    original = network()
    config = describe(original)
    rebuilt = build(config)
    assert type(rebuilt) is type(original)
    assert rebuilt.tasks == original.tasks
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {
        k: v.shape for k, v in original.state_dict().items()
    }
    assert build(describe(rebuilt)).tasks == original.tasks


def test_what_a_command_line_built_is_described_as_its_config_says():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=Callable[[Mapping[str, Task]], MultiTaskNetwork])
    decoder = {"class_path": "mtl_vision.decoders.fpn.FPNDecoder", "init_args": {"width": 8}}
    init_args = {"encoder": "resnet10t", "decoder": copy.deepcopy(decoder)}
    path = "mtl_vision.networks.hard_sharing.HardSharing"
    network = {"class_path": path, "init_args": init_args}
    ready = parser.instantiate(parser.parse_object({"network": network})).network(TASKS)
    found = describe(ready)["network"]
    assert found["class_path"] == path
    assert found["init_args"]["encoder"] == "resnet10t"
    assert found["init_args"]["decoder"]["class_path"] == decoder["class_path"]
    assert found["init_args"]["decoder"]["init_args"]["width"] == 8


def test_rebuilding_downloads_nothing(monkeypatch):
    config = describe(HardSharing(TASKS, encoder="resnet10t"))
    config["network"]["init_args"]["pretrained"] = True
    before = copy.deepcopy(config)
    assert build(config).arguments()["pretrained"] is False
    assert config == before


def test_building_leaves_the_config_alone_and_takes_only_the_allowed_classes():
    config = describe(sharing())
    before = copy.deepcopy(config)
    build(config)
    assert config == before
    for path in ("datetime.timedelta", "torch.nn.Linear", "no.such.module.Network"):
        wrong = copy.deepcopy(config)
        wrong["network"]["init_args"]["decoder"]["class_path"] = path
        with pytest.raises(RebuildError, match=path.rpartition(".")[2]):
            build(wrong)


def test_errors_of_the_network_itself_come_through():
    config = describe(sharing())
    config["network"]["init_args"]["encoder"] = "resnet10x"
    with pytest.raises(UnknownNameError, match="resnet10t"):
        build(config)


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("decoder", lambda info, task: FPNDecoder(info, task), "HardSharing.decoder must be plain"),
        ("decoders", {"depth": partial(lambda i, t: FPNDecoder(i, t))}, "decoders.depth must be"),
        ("encoder", lambda: ENCODER(), "HardSharing.encoder must be plain"),
    ],
)
def test_arguments_that_are_no_plain_data_are_named(argument, value, message):
    with pytest.raises(RebuildError, match=message):
        describe(sharing(**{argument: value}))


def test_classes_that_nobody_could_import_are_refused():
    class Local(FPNDecoder):
        pass

    with pytest.raises(RebuildError, match=r"decoder must be a class that can be imported"):
        describe(sharing(decoder=Local))


def test_every_network_records_its_arguments():
    described = describe(ToyNetwork(toy_tasks(), norm=True))
    assert described["network"]["class_path"] == "toys.ToyNetwork"
    assert described["network"]["init_args"]["norm"] is True
    assert list(described["tasks"]) == list(toy_tasks())


def checkpoint(network, path, **changes):
    content = {
        "state_dict": {f"network.{k}": v for k, v in network.state_dict().items()},
        "hyper_parameters": dict(describe(network)),
        **changes,
    }
    torch.save(content, path)
    return path


def test_a_checkpoint_gives_the_bare_network(tmp_path):
    network = sharing().eval()
    found = from_checkpoint(checkpoint(network, tmp_path / "last.ckpt"))
    assert not found.training
    images = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        for name, prediction in network(images).items():
            assert torch.equal(found(images)[name], prediction)


def test_checkpoints_that_cannot_be_used_are_explained(tmp_path):
    network = sharing()
    with pytest.raises(RebuildError, match="cannot read checkpoint"):
        from_checkpoint(tmp_path / "absent.ckpt")
    good = checkpoint(network, tmp_path / "good.ckpt")
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(good.read_bytes()[:2000])
    with pytest.raises(RebuildError, match="cannot read checkpoint"):
        from_checkpoint(cut)
    bare = checkpoint(network, tmp_path / "bare.ckpt", hyper_parameters={})
    with pytest.raises(RebuildError, match="must hold the config"):
        from_checkpoint(bare)
    other = checkpoint(network, tmp_path / "other.ckpt", state_dict={})
    with pytest.raises(RebuildError, match="disagree"):
        from_checkpoint(other)
    later = {"format": 2, "version": "9.0"}
    newer = checkpoint(network, tmp_path / "newer.ckpt", mtl_suite=later)
    with pytest.raises(RebuildError, match=r"must be 1 to 1, found 2, written by mtl-suite 9\.0"):
        from_checkpoint(newer)
