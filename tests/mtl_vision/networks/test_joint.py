"""What `JointNetwork` and `ImageNetwork` (mtl_vision.networks.image) promise."""

from functools import partial

import pytest
import torch
from dense_laws import ENCODER, SIZE, first, random_batch
from torch.utils.data import DataLoader
from toys import toy_trainer

from mtl_core.balancing import MGDAUB
from mtl_core.data.batch import collate
from mtl_core.errors import ArgumentError, BalancerError, UnknownNameError
from mtl_core.modules import MultiTaskModule
from mtl_vision.networks import MTAN, MTINet, PADNet


def network():
    return PADNet(first(3), encoder=ENCODER, width=8).eval()


def test_there_is_no_border():
    made = network()
    assert not made.independent_decoders()
    out = made.run(torch.randn(1, 3, *SIZE), cut=True)
    assert out.features is None
    assert out.cut == {}


@pytest.mark.parametrize("kind", [PADNet, MTAN])
def test_a_method_that_needs_a_border_says_so(kind):
    tasks = first(2)
    module = MultiTaskModule(tasks, partial(kind, encoder=ENCODER), torch.optim.SGD)
    batch = random_batch(tasks)
    loader = DataLoader(
        [{"inputs": batch["inputs"][0], "targets": {n: t[0] for n, t in batch["targets"].items()}}],
        collate_fn=collate,
    )
    with pytest.raises(BalancerError, match="border"):
        toy_trainer(MGDAUB(), max_epochs=1).fit(module, loader, loader)


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
