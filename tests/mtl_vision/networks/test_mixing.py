"""Starting from single-task networks, and the mixing units' own learning rate."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
from dense_laws import ENCODER, SIZE, TASKS, first, scramble
from jsonargparse import ArgumentParser

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.hub import from_pretrained, save_pretrained
from mtl_core.modules import MultiTaskModule
from mtl_core.nn import MultiTaskNetwork
from mtl_core.rebuild import RebuildError, describe
from mtl_core.tasks import Classification, Task
from mtl_vision.decoders import FPNDecoder
from mtl_vision.networks import NDDRCNN, CrossStitch, HardSharing

FPN = partial(FPNDecoder, width=16)
TWO = first(2)


def single(name: str, **arguments) -> HardSharing:
    torch.manual_seed(len(name))
    made = {"encoder": ENCODER, "decoder": FPN, **arguments}
    return scramble(HardSharing({name: TASKS[name]}, **made))


def checkpoint(network: HardSharing, path: Path) -> Path:
    """What the command line leaves behind."""
    weights = {f"network.{key}": tensor for key, tensor in network.state_dict().items()}
    torch.save({"hyper_parameters": dict(describe(network)), "state_dict": weights}, path)
    return path


@pytest.fixture
def started(tmp_path):
    """Single-task networks, one in a checkpoint and one in a folder, and where they are."""
    networks = {name: single(name) for name in TWO}
    paths = {
        "semseg": checkpoint(networks["semseg"], tmp_path / "semseg.ckpt"),
        "depth": save_pretrained(networks["depth"], tmp_path / "depth"),
    }
    return networks, paths


def test_it_starts_from_single_task_networks(started):
    networks, paths = started
    make = partial(CrossStitch, TWO, encoder=ENCODER, decoder=FPN, start_from=paths)
    network = make(diagonal=1, off_diagonal=0).eval()
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        for name, prediction in network(images).items():
            assert torch.equal(prediction, networks[name](images)[name])


def test_a_config_names_them(started):
    """As text; a task that is left out starts fresh."""
    networks, paths = started
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=Callable[[Mapping[str, Task]], MultiTaskNetwork])
    init_args = {
        "encoder": {
            "class_path": "TimmEncoder",
            "init_args": {**ENCODER.keywords, "name": "vit_tiny_patch16_224"},
        },
        "decoder": {"class_path": "FPNDecoder", "init_args": {"width": 16}},
        "start_from": {"depth": str(paths["depth"])},
    }
    spec = {"class_path": "CrossStitch", "init_args": init_args}
    made = parser.instantiate(parser.parse_object({"network": spec})).network(TWO)
    for name, same in (("depth", True), ("semseg", False)):
        pairs = zip(made.encoders[name].parameters(), networks[name].parameters(), strict=False)
        assert all(torch.equal(a, b) for a, b in pairs) is same


def test_a_saved_network_is_rebuilt_without_them(started, tmp_path):
    _, paths = started
    network = CrossStitch(TWO, encoder=ENCODER, decoder=FPN, start_from=paths).eval()
    folder = save_pretrained(network, tmp_path / "both")
    paths["semseg"].unlink()
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        expected, found = network(images), from_pretrained(folder)(images)
    assert torch.equal(found["depth"], expected["depth"])


def test_what_cannot_be_started_from(started, tmp_path):
    _, paths = started
    make = partial(CrossStitch, TWO, encoder=ENCODER, decoder=FPN)
    with pytest.raises(UnknownNameError, match=r"start_from .*'dept'.*Did you mean depth"):
        make(start_from={"dept": paths["depth"]})
    with pytest.raises(ArgumentError, match=r"start_from\['depth'\] .* with the task 'depth'"):
        make(start_from={"depth": paths["semseg"]})
    with pytest.raises(RebuildError, match=r"cannot read checkpoint .*none\.ckpt"):
        make(start_from={"depth": tmp_path / "none.ckpt"})
    wide = checkpoint(single("depth", decoder=partial(FPNDecoder, width=24)), tmp_path / "w.ckpt")
    with pytest.raises(ArgumentError, match=r"start_from\['depth'\] must have the same decoder"):
        make(start_from={"depth": wide})
    other = checkpoint(single("depth", encoder="resnet10t"), tmp_path / "r.ckpt")
    with pytest.raises(ArgumentError, match="the same encoder"):
        make(start_from={"depth": other})
    joint = save_pretrained(make().eval(), tmp_path / "joint")
    with pytest.raises(ArgumentError, match=r"be a HardSharing network .* found 'CrossStitch'"):
        make(start_from={"depth": joint})


def module_of(scheduler=None, **arguments) -> MultiTaskModule:
    def network(tasks):
        return CrossStitch(tasks, encoder=ENCODER, decoder=FPN, **arguments)

    return MultiTaskModule(TWO, network, partial(torch.optim.SGD, lr=0.01), scheduler)


def test_mixing_learns_a_hundred_times_faster():
    module = module_of(partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5))
    found = module.configure_optimizers()
    groups = found["optimizer"].param_groups
    assert [g["lr"] for g in groups] == pytest.approx([0.01, 1.0])
    mixing = {id(p) for p in module.network.mixers.parameters()}
    assert {id(p) for p in groups[1]["params"]} == mixing
    everything = [id(p) for g in groups for p in g["params"]]
    assert sorted(everything) == sorted(id(p) for p in module.network.parameters())
    found["optimizer"].step()
    found["lr_scheduler"]["scheduler"].step()
    assert [g["lr"] for g in groups] == pytest.approx([0.005, 0.5])


def test_a_scheduler_that_sets_rates_itself_is_refused():
    cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=10)
    with pytest.raises(ArgumentError, match=r"scheduler must keep the 100 times higher"):
        module_of(cycle).configure_optimizers()
    module_of(cycle, mixing_rate=1.0).configure_optimizers()


def test_the_rate_must_be_positive():
    with pytest.raises(ArgumentError, match="mixing_rate must be positive"):
        CrossStitch(TWO, encoder=ENCODER, decoder=FPN, mixing_rate=0)


@pytest.mark.parametrize("network", [CrossStitch, partial(NDDRCNN, activation="none")])
def test_tokens_are_mixed_with_the_class_token(network):
    """A plain transformer's decoders and tokens see the same mixed sequence."""
    made = scramble(network(TWO, encoder=ENCODER, decoder=FPN))
    with torch.no_grad():
        features = made.encode(torch.randn(1, 3, *SIZE))
    assert features.tokens.shape == (1, 1 + 4 * 6, 24)
    last = features.maps[-1].flatten(2).transpose(1, 2)
    assert torch.equal(features.tokens[:, 1:], last)


def test_a_task_of_whole_images():
    tasks = {"depth": TASKS["depth"], "scene": Classification(num_classes=3)}
    network = CrossStitch(tasks, encoder=ENCODER, decoder=FPN)
    assert network(torch.randn(2, 3, *SIZE))["scene"].shape == (2, 3)


def test_an_encoder_without_stages_is_refused():
    with pytest.raises(ArgumentError, match=r"must be a timm model that has stages"):
        CrossStitch(TWO, encoder="mobilenetv3_small_050", decoder=FPN)
