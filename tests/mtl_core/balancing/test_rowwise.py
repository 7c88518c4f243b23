import pytest
import torch
from toys import ToyNetwork, fit, toy_module

from mtl_core.balancing import GradientBalancer
from mtl_core.balancing.stages import Stages
from mtl_core.errors import ArgumentError
from mtl_core.nn import Features
from mtl_core.tasks import Regression


class Same(GradientBalancer):
    def weigh(self, gramian, losses, step):
        return torch.ones(len(gramian), dtype=torch.float64)


class Halved(GradientBalancer):
    def weigh(self, gramian, losses, step):
        return torch.full((len(gramian),), 0.5, dtype=torch.float64)


class Routed(ToyNetwork):
    def encode(self, inputs, tags=None):
        features = super().encode(inputs)
        return Features(features.maps, aux={"load": self.trunk[0].weight.square().sum()})


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("border", [True, False])
def test_equal_weights_are_the_plain_sum(accumulate, border):
    found = fit(Same(), module=toy_module(border=border), accumulate_grad_batches=accumulate)
    torch.testing.assert_close(found, fit(accumulate_grad_batches=accumulate))


def test_auxiliary_loss_is_added_outside_of_the_weights():
    modules = []
    for _ in range(2):
        module = toy_module()
        state = module.network.state_dict()
        module.network = Routed(module.tasks)
        module.network.load_state_dict(state)
        modules.append(module)
    torch.testing.assert_close(fit(Same(), module=modules[0]), fit(module=modules[1]))


def test_weighting_decoders():
    """Half the weights everywhere at twice the rate is the same run; without decoders it is not."""
    both = fit(Halved(stages=Stages(weight_decoders=True)), module=toy_module(lr=0.2))
    torch.testing.assert_close(both, fit(module=toy_module(lr=0.1)))
    trunk_only = fit(Halved(), module=toy_module(lr=0.2))
    assert not torch.allclose(trunk_only, both)


def test_decoders_of_grouped_tasks_have_no_single_weight():
    method = Halved(stages=Stages(weight_decoders=True))
    module = toy_module(tasks={"size": Regression(groups=("a", "b"))})
    method.start(module.entries)
    split = module.network.split_parameters()
    with pytest.raises(ArgumentError, match="weight_decoders must be false for tasks with groups"):
        method.scale_decoders(torch.ones(2), method.step(module.entries), split)


def test_unfreezing_during_training_is_followed():
    class Unfreeze(Same):
        def on_train_epoch_start(self, trainer, pl_module):
            pl_module.network.trunk[0].requires_grad_(trainer.current_epoch > 0)

    for epochs, moved in ((1, False), (2, True)):
        module = toy_module()
        start = module.network.trunk[0].weight.detach().clone()
        fit(Unfreeze(), module=module, max_epochs=epochs)
        assert torch.equal(module.network.trunk[0].weight, start) is not moved
