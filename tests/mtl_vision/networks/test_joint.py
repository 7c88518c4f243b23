"""What `JointNetwork` and `ImageNetwork` (mtl_vision.networks.image) promise."""

import pytest
import torch
from dense_laws import ENCODER, SIZE, first

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_vision.networks import MTINet, PADNet


def network():
    return PADNet(first(3), encoder=ENCODER, width=8).eval()


def test_there_is_no_border():
    made = network()
    assert not made.independent_decoders()
    out = made.run(torch.randn(1, 3, *SIZE), cut=True)
    assert out.features is None
    assert out.cut == {}


def test_one_tasks_decoding_is_that_of_all():
    made = network()
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        together = made.run(images)
        decoded = made.decode(made.encode(images), "depth")
    torch.testing.assert_close(decoded.prediction, together.predictions["depth"])
    torch.testing.assert_close(decoded.intermediate, together.intermediate["depth"])


def test_every_task_needs_all():
    assert network().required_tasks("depth") == tuple(first(3))
    with pytest.raises(UnknownNameError, match="Did you mean depth"):
        network().required_tasks("dept")


def test_inputs_by_name_are_refused():
    with pytest.raises(ArgumentError, match="one image tensor"):
        network()({"image": torch.randn(1, 3, *SIZE)})


def test_run_keeps_the_decoders_resolution():
    made = MTINet(first(1), encoder=ENCODER, width=8).eval()
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        raw, full = made.run(images).predictions["semseg"], made(images)["semseg"]
    resized = torch.nn.functional.interpolate(raw, SIZE, mode="bilinear")
    torch.testing.assert_close(full, resized)
