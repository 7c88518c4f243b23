import torch
from toys import ToyNetwork, fit, toy_module

from mtl_core.balancing import FeatureBalancer, Merged
from mtl_core.nn import Features


class Summed(FeatureBalancer):
    def merge(self, rows, losses, step):
        assert rows.shape[0] == len(losses) == len(step.entries)
        return Merged(rows.sum(0), torch.ones(len(rows)))


class Halved(FeatureBalancer):
    def merge(self, rows, losses, step):
        return Merged(rows.sum(0) / 2, torch.full((len(rows),), 0.5))


class Routed(ToyNetwork):
    """Several maps, one of them unused, tokens, and an auxiliary loss of the encoder."""

    def encode(self, inputs, tags=None):
        hidden = super().encode(inputs).maps[0]
        load = self.trunk[0].weight.square().sum()
        return Features([hidden * 2, hidden], tokens=hidden[:, None], aux={"load": load})


def routed():
    module = toy_module()
    state = module.network.state_dict()
    module.network = Routed(module.tasks)
    module.network.load_state_dict(state)
    return module


def test_sum_of_feature_gradients_is_the_plain_sum():
    torch.testing.assert_close(fit(Summed()), fit())


def test_several_borders_and_auxiliary_losses():
    torch.testing.assert_close(fit(Summed(), module=routed()), fit(module=routed()))


def test_weights_reach_the_decoders_where_wanted():
    halved = fit(Halved(weight_decoders=True), module=toy_module(lr=0.2))
    torch.testing.assert_close(halved, fit(module=toy_module(lr=0.1)))


def test_accumulation_acts_on_every_micro_batch():
    torch.testing.assert_close(
        fit(Summed(), accumulate_grad_batches=3), fit(accumulate_grad_batches=3)
    )
