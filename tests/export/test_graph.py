"""`ExportNetwork`: what is before and behind a network in its graph."""

import pytest
import torch
from toys import ToyNetwork, toy_tasks

from export.graph import ExportNetwork
from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.tasks import Classification
from mtl_vision.networks import HardSharing
from mtl_vision.tasks import DepthEstimation, SemanticSegmentation

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    tasks = {
        "semseg": SemanticSegmentation(num_classes=3),
        "depth": DepthEstimation(),
        "scene": Classification(num_classes=2),
    }
    return HardSharing(tasks, encoder="test_resnet").eval()


def test_images_are_normalised_and_predictions_activated_in_the_order_asked_for(network):
    image = torch.rand(2, 3, 32, 48)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    with torch.no_grad():
        raw = network((image - mean) / std)
        found = ExportNetwork(network, ["scene", "semseg"], mean=MEAN, std=STD)(image)
    assert torch.allclose(found[0], raw["scene"].softmax(1), atol=1e-6)
    assert torch.allclose(found[1], raw["semseg"].softmax(1), atol=1e-6)
    assert found[1].shape == (2, 3, 32, 48), "dense predictions have the size of the image"


def test_images_as_bytes_are_scaled_and_put_in_order_inside(network):
    image = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    statistics = {"mean": MEAN, "std": STD}
    floats = image.permute(0, 3, 1, 2).float() / 255
    found = ExportNetwork(network, list(network.tasks), pixels=True, **statistics)(image)
    wanted = ExportNetwork(network, list(network.tasks), **statistics)(floats)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_outputs_come_by_name(network):
    image = torch.rand(2, 3, 32, 48)
    found = ExportNetwork(network, ["depth"]).outputs({"image": image})
    assert {name: tuple(value.shape) for name, value in found.items()} == {"depth": (2, 32, 48)}
    assert not found["depth"].requires_grad


def test_columns_are_handed_over_by_name():
    class Table(ToyNetwork):
        def encode(self, inputs, tags=None):
            return super().encode(torch.cat([inputs["numeric"], inputs["categorical"] * 0.5], 1))

    network = Table(toy_tasks()).eval()
    module = ExportNetwork(network, ["size"], inputs=("numeric", "categorical"))
    numbers, codes = torch.rand(3, 4), torch.tensor([[0, 2]]).expand(3, 2)
    assert torch.equal(
        module(numbers, codes)[0], network({"numeric": numbers, "categorical": codes})["size"]
    )


def test_unknown_tasks_and_networks_in_training_are_refused(network):
    with pytest.raises(UnknownNameError, match=r"'semsge'.*Did you mean semseg"):
        ExportNetwork(network, ["semsge"])
    with pytest.raises(ArgumentError, match="at least one task"):
        ExportNetwork(network, [])
    with pytest.raises(ArgumentError, match="evaluation mode"):
        ExportNetwork(ToyNetwork(toy_tasks()), ["size"])
