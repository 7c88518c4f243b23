from dataclasses import replace
from functools import partial

import pytest
import torch
from toys import toy_module, toy_samples

from mtl_core.balancing.lookahead import LookAhead
from mtl_core.balancing.moved_weights import MovedWeights
from mtl_core.data.batch import collate, take_samples
from mtl_core.errors import BalancerError


def looking(scale: float = 1.0):
    """A module, its batch, and a look ahead on it."""
    module, batch = toy_module(), collate(toy_samples(12))

    def losses(tasks=None, part=slice(None)):
        taken = take_samples(batch, part)
        return module.compute_losses(taken, module.network.run(taken["inputs"]), 0)

    step = replace(losses(), recompute=partial(losses))
    parameters = [p for p in module.parameters() if p.requires_grad]
    return losses, LookAhead(step, parameters, module.entries, scale=scale, name="Toy")


def flat(loss, parameters):
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten()
            for p, g in zip(parameters, found, strict=True)
        ]
    )


@pytest.mark.parametrize("scale", [1.0, 64.0])
@pytest.mark.parametrize("half", [0, 1])
def test_gradients_are_those_of_half_the_samples(half, scale):
    losses, ahead = looking(scale)
    wanted = losses(part=slice(half, None, 2)).losses
    each = torch.stack([flat(loss, ahead.parameters) for loss in wanted.values()])
    torch.testing.assert_close(ahead.rows(ahead.evaluate(half)), each)
    weights = dict(zip(wanted, (0.5, 2.0, -1.0), strict=True))
    found = ahead.gradient(ahead.evaluate(half), weights)
    torch.testing.assert_close(found, torch.tensor([0.5, 2.0, -1.0]) @ each)


def test_a_look_is_at_the_weights_as_they_are():
    _, ahead = looking()
    before = ahead.evaluate(0).means
    direction = ahead.gradient(ahead.evaluate(0), dict.fromkeys(before, 1.0))
    with MovedWeights(ahead.parameters):
        ahead.move(direction, -1e-2)
        assert sum(ahead.evaluate(0).means.values()) < sum(before.values())
    assert ahead.evaluate(0).means == before


def test_a_module_that_cannot_evaluate_again_is_refused():
    losses, ahead = looking()
    with pytest.raises(BalancerError, match="Toy needs a module"):
        LookAhead(losses(), ahead.parameters, ahead.entries, scale=1.0, name="Toy")
