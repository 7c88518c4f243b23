"""What several tests train: a tiny network, three kinds of tasks, partial labels."""

from collections.abc import Mapping, Sequence

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mtl_core.data.batch import Sample, collate
from mtl_core.modules import MultiTaskModule
from mtl_core.nn import FeatureInfo, Features, LinearDecoder, MultiTaskNetwork
from mtl_core.tasks import Classification, MultiLabel, Regression, Task


class ToyNetwork(MultiTaskNetwork):
    """A two-layer trunk and a linear decoder per task."""

    def __init__(
        self,
        tasks: Mapping[str, Task],
        *,
        dropout: float = 0.0,
        border: bool = True,
        norm: bool = False,
    ) -> None:
        super().__init__(tasks)
        self.trunk = nn.Sequential(
            nn.Linear(6, 16),
            nn.BatchNorm1d(16) if norm else nn.Identity(),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(16, 8),
            nn.Tanh(),
        )
        info = FeatureInfo((8,), (1,))
        self.decoders = nn.ModuleDict({n: LinearDecoder(info, t) for n, t in self.tasks.items()})
        self.border = border  # type: ignore[misc]  # one toy for both kinds

    def encode(self, inputs, tags=None) -> Features:
        return Features([self.trunk(inputs)])

    def decode(self, features: Features, task: str) -> Tensor:
        out: Tensor = self.decoders[task](features)
        return out

    def decoder_modules(self, task: str) -> Sequence[nn.Module]:
        return [self.decoders[task]]


def toy_tasks() -> dict[str, Task]:
    return {
        "size": Regression(),
        "kind": Classification(num_classes=3),
        "marks": MultiLabel(num_labels=2),
    }


def toy_samples(count: int = 48, *, partial: bool = True, seed: int = 0) -> list[Sample]:
    """Samples of six inputs; where `partial`, every third lacks ``size``, every fifth ``kind``."""
    rng = np.random.default_rng(seed)
    samples: list[Sample] = []
    for i in range(count):
        x = rng.normal(size=6).astype("float32")
        targets = {
            "size": np.float32(x[0] - x[1]),
            "kind": int(np.digitize(x[1], [-0.5, 0.5])),
            "marks": (x[2:4] + x[0] > 0).astype("int64"),
        }
        if partial and i % 3 == 0:
            del targets["size"]
        if partial and i % 5 == 0:
            del targets["kind"]
        samples.append({"inputs": x, "targets": targets, "key": f"row {i}"})
    return samples


def toy_loader(batch_size: int = 8, **kwargs) -> DataLoader:
    return DataLoader(toy_samples(**kwargs), batch_size, collate_fn=collate)


def toy_module(
    *, tasks: dict[str, Task] | None = None, lr: float = 0.1, compile: str = "", **network
) -> MultiTaskModule:
    torch.manual_seed(0)
    return MultiTaskModule(
        tasks or toy_tasks(),
        lambda t: ToyNetwork(t, **network),
        lambda p: torch.optim.SGD(p, lr=lr, momentum=0.9),
        compile=compile,
    )


def toy_trainer(*callbacks: L.Callback, **kwargs) -> L.Trainer:
    defaults = {
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "devices": 1,
        "num_sanity_val_steps": 0,
    }
    return L.Trainer(callbacks=list(callbacks), **(defaults | kwargs))


def parameters_of(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def fit(
    *callbacks: L.Callback, module: MultiTaskModule | None = None, ckpt_path=None, **kwargs
) -> Tensor:
    """Train the toy and return its parameters as one vector."""
    module = module or toy_module()
    trainer = toy_trainer(*callbacks, **kwargs)
    trainer.fit(module, toy_loader(), toy_loader(count=16, seed=1), ckpt_path=ckpt_path)
    return parameters_of(module)
