"""The toy with a rotation in front of every decoder."""

from functools import partial

import torch
from toys import ToyNetwork, toy_module

from mtl_core.modules import MultiTaskModule
from mtl_core.nn import Rotated


class RotatedToy(Rotated):
    """Shows the parts of the toy inside."""

    @property
    def trunk(self):
        return self.network.trunk

    @property
    def decoders(self):
        return self.network.decoders


def rotated_toy_module(*, tasks=None, lr: float = 0.1, **network) -> MultiTaskModule:
    """As `toys.toy_module`, with the same weights; six of the eight features are rotated.

    Without a border there is nothing to rotate: it is the toy then.
    """
    module = toy_module(tasks=tasks, lr=lr, **network)
    if not network.get("border", True):
        return module
    torch.manual_seed(0)
    inner = partial(ToyNetwork, **network)
    module.network = RotatedToy(module.tasks, network=inner, latent_size=6)
    return module
