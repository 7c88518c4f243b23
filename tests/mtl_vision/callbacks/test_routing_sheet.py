import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from mtl_core.errors import ArgumentError
from mtl_core.moe import PerTaskRouter, SingleRouter
from mtl_core.moe.context import ContextRouter
from mtl_vision.callbacks import RoutingSheet
from mtl_vision.callbacks import routing_sheet as module

SIZE = (8, 12)
TASKS = ("semseg", "depth")


class Patches(L.LightningModule):
    """Routes 2×2 patches and a class token, by name or by index, without learning anything."""

    def __init__(self, kind="names"):
        super().__init__()
        self.kind = kind
        self.patches = nn.Conv2d(3, 8, 2, stride=2)
        make = {
            "single": lambda: SingleRouter(TASKS, 8, 4, 2),
            "maps": lambda: ContextRouter(TASKS, 8, 4, granularity="token"),
            "samples": lambda: ContextRouter(TASKS, 8, 4),
        }
        made = make.get(kind, lambda: PerTaskRouter(TASKS, 8, 4, 2))
        self.blocks = nn.ModuleList(made() for _ in range(3))

    def tokens(self, images):
        patches = self.patches(images).flatten(2).mT
        return torch.cat([patches.new_zeros(len(images), 1, 8), patches], 1)

    def validation_step(self, batch, batch_idx):
        images = batch["inputs"]
        x = self.patches(images) if self.kind in ("maps", "samples") else self.tokens(images)
        for block in self.blocks:
            if self.kind == "indices":
                which = torch.arange(2).repeat_interleave(len(images))
                block(torch.cat([x, x]), which)
            else:
                for task in TASKS:
                    block(x, task)
        return {"predictions": {}}

    test_step = validation_step

    def training_step(self, batch, batch_idx):
        return self.tokens(batch["inputs"]).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def loader():
    torch.manual_seed(0)
    return DataLoader([{"inputs": torch.rand(2, 3, *SIZE)} for _ in range(3)], batch_size=None)


def trainer(folder, callback, **options):
    defaults = {
        "max_epochs": 1,
        "logger": False,
        "default_root_dir": folder,
        "callbacks": [callback],
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    return L.Trainer(**{**defaults, **options})


@pytest.fixture
def drawn(monkeypatch):
    """Records what is drawn, instead of drawing it."""
    calls = []

    def draw(images, routes, *, num_experts):
        calls.append((images, routes, num_experts))
        return

    monkeypatch.setattr(module, "draw_routes", draw)
    monkeypatch.setattr(module, "save_figure", lambda *_: None)
    return calls


@pytest.mark.parametrize("kind", ["names", "indices", "single", "maps"])
def test_every_patch_has_its_best_expert(kind, drawn, tmp_path):
    model = Patches(kind)
    trainer(tmp_path, RoutingSheet(samples=3, layers=2)).test(model, loader(), verbose=False)
    ((images, routes, experts),) = drawn
    assert experts == 4
    assert len(images) == len(routes) == 3
    inputs = torch.cat([batch["inputs"] for batch in loader()])[:3]
    with torch.no_grad():
        x = model.patches(inputs) if kind == "maps" else model.tokens(inputs)
        for task in TASKS:
            out = model.blocks[2](x, task)
            best = out.probs.argmax(-1)
            best = best if kind == "maps" else best[:, 1:].unflatten(1, (4, 6))
            for i in range(3):
                assert set(routes[i]) == {"blocks.0", "blocks.2"}
                assert np.array_equal(routes[i]["blocks.2"][task], best[i])


def test_files_and_intervals(tmp_path):
    callback = RoutingSheet(samples=1, every_n_epochs=2)
    trainer(tmp_path, callback, max_epochs=3).fit(Patches(), loader(), loader())
    folder = tmp_path / "sheets"
    names = {p.name for p in folder.iterdir()}
    assert names == {"routing_epoch_001.png", "routing_epoch_002.png", "routing_last.png"}
    with Image.open(folder / "routing_last.png") as picture:
        assert min(picture.size) > 200
    assert callback._watch is None


def test_no_drawing_of_whole_images_or_in_quick_runs(drawn, tmp_path):
    trainer(tmp_path, RoutingSheet()).test(Patches("samples"), loader(), verbose=False)
    trainer(tmp_path, RoutingSheet(), fast_dev_run=True).fit(Patches(), loader(), loader())
    assert drawn == []


def test_hooks_leave_with_the_run(tmp_path):
    model = Patches()
    trainer(tmp_path, RoutingSheet(), fast_dev_run=True).fit(model, loader(), loader())
    assert not any(m._forward_hooks for m in model.modules())


def test_mistakes():
    for options in ({"samples": 0}, {"layers": 0}, {"every_n_epochs": 0}, {"std": (0, 1, 1)}):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            RoutingSheet(**options)
