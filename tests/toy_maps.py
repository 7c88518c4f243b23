"""What tests of dense networks share: three dense tasks, a tiny ViT, random maps, one epoch."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from toys import toy_trainer

from mtl_core.data.batch import Sample, collate
from mtl_core.modules import MultiTaskModule
from mtl_core.nn import MultiTaskNetwork
from mtl_core.tasks import Task
from mtl_vision.encoders import TimmEncoder
from mtl_vision.tasks import DepthEstimation, SemanticSegmentation, SurfaceNormals

DENSE_TASKS: dict[str, Task] = {
    "semseg": SemanticSegmentation(num_classes=4),
    "depth": DepthEstimation(),
    "normals": SurfaceNormals(),
}
TINY_VIT = partial(
    TimmEncoder,
    "vit_tiny_patch16_224",
    img_size=(64, 96),
    model_args={"embed_dim": 32, "depth": 4, "num_heads": 2},
)


def randomised(module: nn.Module) -> nn.Module:
    """The module in evaluation mode with arbitrary statistics."""
    torch.manual_seed(0)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5 if "var" in name else -0.5, 1.5)
    return module.eval()


def images(batch: int = 2, size: tuple[int, int] = (64, 96)) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))


def dense_samples(count: int) -> list[Sample]:
    drawn = torch.Generator().manual_seed(0)
    normals = nn.functional.normalize(torch.randn(count, 3, 64, 96, generator=drawn), dim=1)
    return [
        {
            "inputs": torch.randn(3, 64, 96, generator=drawn),
            "targets": {
                "semseg": torch.randint(4, (64, 96), generator=drawn),
                "depth": 1 + torch.rand(64, 96, generator=drawn),
                "normals": normals[i],
            },
            "key": str(i),
        }
        for i in range(count)
    ]


def train_dense(
    network: Callable[[Mapping[str, Task]], MultiTaskNetwork],
    *callbacks,
    precision: str = "32-true",
) -> tuple[MultiTaskModule, list[str]]:
    """One epoch of two steps; the module, and the names of parameters that did not move."""
    torch.manual_seed(0)
    module = MultiTaskModule(dict(DENSE_TASKS), network, lambda p: torch.optim.SGD(p, lr=0.01))
    before = {k: p.detach().clone() for k, p in module.network.named_parameters()}
    loader = DataLoader(dense_samples(4), 2, collate_fn=collate)
    toy_trainer(*callbacks, max_epochs=1, precision=precision).fit(module, loader, loader)
    after = dict(module.network.named_parameters())
    assert all(torch.isfinite(p).all() for p in after.values())
    return module, [k for k, p in after.items() if torch.equal(p, before[k])]
