"""A run killed in the middle of an epoch and resumed ends with the parameters of an unbroken one.

A real data module with a shuffled order, stochastic depth and BatchNorm in the network, and every
balancer family: all random numbers have to be where they were.
"""

from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from toys import parameters_of

from mtl_core.balancing import MGDAUB, UW, Equal, GradDrop, PCGrad
from mtl_core.callbacks import RandomState
from mtl_core.modules import MultiTaskModule
from mtl_core.tasks import Classification
from mtl_vision.data import MultiDigits
from mtl_vision.encoders import TimmEncoder
from mtl_vision.networks import HardSharing

TASKS = {name: Classification(num_classes=10) for name in ("left", "right")}


class KilledError(Exception):
    """Stands for the signal."""


class KillAt(L.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise KilledError


def module() -> MultiTaskModule:
    torch.manual_seed(0)
    encoder = partial(TimmEncoder, "test_resnet", drop_path=0.3)
    return MultiTaskModule(
        TASKS,
        lambda tasks: HardSharing(tasks, encoder=encoder),
        lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 5, gamma=0.5),
        scheduler_interval="step",
    )


def train(folder, *callbacks, ckpt_path=None, accumulate=1) -> tuple[torch.Tensor, torch.Tensor]:
    """Parameters and buffers at the end of three epochs of five steps."""
    L.seed_everything(1, verbose=False)
    trained = module()
    data = MultiDigits(TASKS, train_size=40, val_size=8, test_size=8, batch_size=8 // accumulate)
    saver = ModelCheckpoint(folder, every_n_train_steps=2, save_top_k=-1, filename="{step}")
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        accumulate_grad_batches=accumulate,
        callbacks=[*callbacks, saver, RandomState()],
    )
    trainer.fit(trained, data, ckpt_path=ckpt_path)
    return parameters_of(trained), torch.cat([b.flatten().float() for b in trained.buffers()])


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("balancer", [None, Equal, UW, PCGrad, GradDrop, MGDAUB])
def test_killed_and_resumed_equals_unbroken(balancer, accumulate, tmp_path):
    def methods() -> list[L.Callback]:
        return [balancer()] if balancer else []

    unbroken = train(tmp_path / "whole", *methods(), accumulate=accumulate)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", *methods(), KillAt(9), accumulate=accumulate)
    path = tmp_path / "killed" / "step=8.ckpt"  # in the middle of the second epoch
    resumed = train(tmp_path / "killed", *methods(), ckpt_path=path, accumulate=accumulate)
    assert torch.equal(resumed[0], unbroken[0])
    assert torch.equal(resumed[1], unbroken[1])
