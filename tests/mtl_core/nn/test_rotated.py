import copy
from functools import partial

import pytest
import torch
from toys import ToyNetwork, toy_tasks

from mtl_core.errors import ArgumentError
from mtl_core.hub import from_pretrained, save_pretrained
from mtl_core.nn import Features, LinearDecoder
from mtl_core.nn.rotated import Rotated, rotate, rotations
from mtl_vision.decoders import FPNDecoder
from mtl_vision.networks import HardSharing
from mtl_vision.tasks import DepthEstimation


def angles_of(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(network.angles.shape, generator=generator)


def rotated_toy(latent_size=5, **options):
    torch.manual_seed(0)
    return Rotated(toy_tasks(), network=partial(ToyNetwork, **options), latent_size=latent_size)


class Two(ToyNetwork):
    """A map and tokens."""

    def encode(self, inputs, tags=None):
        hidden = super().encode(inputs).maps[0]
        return Features([hidden[..., None, None].expand(-1, -1, 2, 3)], tokens=hidden[:, None])

    def decode(self, features, task):
        return super().decode(
            Features([features.maps[0].mean((2, 3)) + features.tokens[:, 0]]), task
        )


def test_exponentials_are_rotations():
    found = rotations(torch.randn(3, 2, 10, dtype=torch.float64), 5)
    torch.testing.assert_close(found @ found.mT, torch.eye(5).double().expand(3, 2, 5, 5))
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(3, 2).double())
    angle = torch.tensor([0.3], dtype=torch.float64)
    turn = [[angle.cos(), angle.sin()], [-angle.sin(), angle.cos()]]
    torch.testing.assert_close(rotations(angle, 2), torch.tensor(turn).double())


def test_it_starts_as_the_inner_network():
    inputs = torch.randn(4, 6)
    torch.manual_seed(0)
    plain = ToyNetwork(toy_tasks())(inputs)
    found = rotated_toy()(inputs)
    for task, wanted in plain.items():
        torch.testing.assert_close(found[task], wanted)


def test_decoders_see_their_own_rotation_of_the_first_channels():
    network, inputs = rotated_toy(), torch.randn(4, 6)
    network.turn(angles_of(network))
    features = network.encode(inputs)
    for i, task in enumerate(network.tasks):
        turned = features.maps[0].clone()
        turned[:, :5] = turned[:, :5] @ network.rotation[i, 0].t()
        wanted = network.network.decoders[task](Features([turned]))
        torch.testing.assert_close(network(inputs)[task], wanted)
        torch.testing.assert_close(network.decode(features, task), wanted)
        torch.testing.assert_close(network.run(inputs, cut=True).predictions[task], wanted)


def test_maps_and_tokens():
    tensor, turn = torch.randn(2, 4, 3, 5), rotations(torch.randn(3), 3)
    turned = rotate(tensor, turn, 1)
    torch.testing.assert_close(turned[:, :3], torch.einsum("ij,bjhw->bihw", turn, tensor[:, :3]))
    assert torch.equal(turned[:, 3], tensor[:, 3])
    network = Rotated(toy_tasks(), network=Two, latent_size=8, tensors=2)
    network.turn(angles_of(network))
    assert network(torch.randn(4, 6))["kind"].shape == (4, 3)


def test_parameters_and_compiled_parts_are_the_inner_ones():
    network = rotated_toy()
    split = network.split_parameters()
    assert {id(p) for p in split.shared} == {id(p) for p in network.network.trunk.parameters()}
    assert network.independent_decoders()
    assert isinstance(network.compiled_parts()[-1], LinearDecoder)
    assert "angles" in network.state_dict()
    assert "rotation" not in network.state_dict()


def test_copies_keep_their_own_rotations():
    network, inputs = rotated_toy(), torch.randn(4, 6)
    other = copy.deepcopy(network)
    other.turn(angles_of(other))
    assert not torch.allclose(other(inputs)["size"], network(inputs)["size"])
    network.load_state_dict(other.state_dict())
    assert torch.equal(other(inputs)["size"], network(inputs)["size"])


def test_saved_networks_keep_their_rotations(tmp_path):
    tasks = {"depth": DepthEstimation()}
    inner = partial(HardSharing, encoder="resnet10t", decoder=partial(FPNDecoder, width=8))
    network = Rotated(tasks, network=inner, latent_size=16, tensors=4).eval()
    network.turn(angles_of(network))
    found = from_pretrained(save_pretrained(network, tmp_path / "model"))
    assert type(found) is Rotated
    images = torch.randn(1, 3, 33, 47)
    with torch.no_grad():
        wanted = network(images)["depth"]
        assert wanted.shape == (1, 1, 33, 47)
        assert torch.equal(found(images)["depth"], wanted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_size": 1}, "latent_size must be at least 2"),
        ({"latent_size": 9}, "latent_size must be at most 8"),
        ({"latent_size": 4, "tensors": 0}, "tensors must be at least 1"),
        ({"latent_size": 4, "tensors": 2}, "tensors must be 1"),
        ({"latent_size": 4, "network": partial(ToyNetwork, border=False)}, "meet only in"),
    ],
)
def test_what_does_not_fit_is_explained(options, message):
    with pytest.raises(ArgumentError, match=message):
        Rotated(toy_tasks(), **({"network": ToyNetwork} | options))(torch.randn(2, 6))
