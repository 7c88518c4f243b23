"""Random states survive a checkpoint."""

import random

import lightning as L
import numpy as np
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mtl_core.callbacks.random_state import RandomState, capture, restore

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")


def draw():
    return [torch.rand(3).tolist(), np.random.normal(size=3).tolist(), random.gauss(0, 1)]


def test_restored_generators_repeat_themselves():
    draw()
    random.gauss(0, 1)  # leaves half of a pair behind, in Python as in NumPy
    np.random.normal()
    state = capture()
    first = draw()
    restore(state)
    assert draw() == first
    assert draw() != first


def test_the_state_is_plain_enough_for_a_checkpoint(tmp_path):
    torch.save(RandomState().state_dict(), tmp_path / "state.pt")
    first = draw()
    (loaded,) = torch.load(tmp_path / "state.pt", weights_only=True)["ranks"]
    restore(loaded)
    assert draw() == first


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda():
    device = torch.device("cuda", 0)
    state = capture(device)
    first = torch.rand(4, device=device)
    restore(state, device)
    assert torch.equal(torch.rand(4, device=device), first)


class Trainer:
    global_rank = 1


def test_every_rank_gets_its_own_state_back(monkeypatch):
    torch.manual_seed(1)
    other = capture()
    expected = draw()

    def gather(ranks, own):
        ranks[:] = [own, other]

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", gather)
    torch.manual_seed(2)
    state = RandomState().state_dict()
    callback = RandomState()
    callback.load_state_dict(state)
    callback.on_train_start(Trainer(), None)
    assert draw() == expected


def test_a_rank_that_the_checkpoint_does_not_know_keeps_its_state():
    callback = RandomState()
    callback.load_state_dict(RandomState().state_dict())
    torch.manual_seed(3)
    state = capture()
    expected = draw()
    restore(state)
    callback.on_train_start(Trainer(), None)
    assert draw() == expected


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def training_step(self, batch, batch_idx):
        noise = np.random.normal() + random.random()
        return (self.net(batch[0]) + noise).square().mean()

    def validation_step(self, batch, batch_idx):
        torch.rand(5)  # a validation that draws; the sanity check does not count

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05)


class LateDraw(L.Callback):
    """Draws where a resumed run does so once more than an unbroken one."""

    def setup(self, trainer, pl_module, stage):
        draw()

    def on_train_start(self, trainer, pl_module):
        draw()


def fit(path, *, seed, epochs, resume=None, remember=True):
    L.seed_everything(seed)
    module = Net()
    data = TensorDataset(torch.linspace(0, 1, 24).reshape(8, 3))
    loader = DataLoader(data, batch_size=2, generator=torch.Generator())
    checkpoint = ModelCheckpoint(path, filename="{epoch}", save_top_k=-1)
    L.Trainer(
        max_epochs=epochs,
        callbacks=[LateDraw(), *([RandomState()] if remember else []), checkpoint],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, loader, loader, ckpt_path=resume, weights_only=True)
    return nn.utils.parameters_to_vector(module.parameters()).detach()


def test_resumed_training_with_dropout_and_noise_is_unbroken(tmp_path):
    whole = fit(tmp_path / "a", seed=0, epochs=4)
    halfway = tmp_path / "a" / "epoch=1.ckpt"
    assert torch.equal(fit(tmp_path / "a", seed=9, epochs=4, resume=halfway), whole)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_it_takes_the_callback(tmp_path):
    """The test above would fail without it."""
    whole = fit(tmp_path / "a", seed=0, epochs=4)
    halfway = tmp_path / "a" / "epoch=1.ckpt"
    forgetful = fit(tmp_path / "a", seed=9, epochs=4, resume=halfway, remember=False)
    assert not torch.equal(forgetful, whole)
