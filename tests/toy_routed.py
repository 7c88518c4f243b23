"""A network of experts small enough to be followed by hand, for tests of what watches routers."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtl_core.moe import ExpertBank, MoEFFN, PerTaskRouter, Router
from mtl_core.nn import FeatureInfo, Features, LinearDecoder, MultiTaskNetwork, Outputs
from mtl_core.tasks import Task


class RoutedToy(MultiTaskNetwork):
    """Two layers of experts on one token a sample, then a decoder a task.

    Args:
        tasks: records by name.
        stacked: all tasks in one batch, told apart by indices; else one after another by name.
    """

    border = False

    def __init__(self, tasks: Mapping[str, Task], *, stacked: bool = False) -> None:
        super().__init__(tasks)
        names = tuple(tasks)
        self.stacked = stacked
        self.blocks = nn.ModuleList(
            MoEFFN(PerTaskRouter(names, 6, 4, 2), ExpertBank(4, 6, 8)) for _ in range(2)
        )
        info = FeatureInfo((6,), (1,))
        self.decoders = nn.ModuleDict({n: LinearDecoder(info, t) for n, t in tasks.items()})

    def encode(self, inputs, tags=None) -> Features:
        raise NotImplementedError

    def decode(self, features: Features, task: str) -> Tensor:
        out: Tensor = self.decoders[task](features)
        return out

    def decoder_modules(self, task: str) -> Sequence[nn.Module]:
        return [self.decoders[task], *(block.router.gate(task) for block in self.blocks)]

    def run(self, inputs, *, tasks=None, tags=None, cut=False) -> Outputs:
        names, out = self.select(tasks), Outputs({})
        if self.stacked:
            which = torch.tensor([list(self.tasks).index(n) for n in names])
            x = inputs[:, None].repeat(len(names), 1, 1)
            x = self._through(x, which.repeat_interleave(len(inputs)))
            parts = x.chunk(len(names))
        else:
            parts = [self._through(inputs[:, None], name) for name in names]
        for name, part in zip(names, parts, strict=True):
            out.predictions[name] = self.decode(Features([part[:, 0]]), name)
        return out

    def _through(self, x: Tensor, task) -> Tensor:
        for block in self.blocks:
            x = x + block(x, task)[0]
        return x


def routers(network: nn.Module) -> dict[str, Router]:
    return {name: m for name, m in network.named_modules() if isinstance(m, Router)}
