import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch.utils.data import DataLoader

from mtl_core.errors import ArgumentError
from mtl_core.tasks import Classification
from mtl_vision.callbacks import PredictionSheet
from mtl_vision.callbacks import prediction_sheet as module
from mtl_vision.tasks import DepthEstimation, HumanParts, SemanticSegmentation

SIZE = (8, 12)
TASKS = {
    "semseg": SemanticSegmentation(num_classes=3),
    "depth": DepthEstimation(),
    "scene": Classification(num_classes=2),
}


class Guess(L.LightningModule):
    """Gives predictions at a quarter of the size, without learning anything."""

    def __init__(self, tasks=TASKS):
        super().__init__()
        self.tasks = tasks
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def validation_step(self, batch, batch_idx):
        b = len(batch["inputs"])
        found = {
            name: torch.ones(b, task.out_channels, *([2, 3] if task.dense else []))
            for name, task in self.tasks.items()
        }
        return {"predictions": found}

    test_step = validation_step

    def training_step(self, batch, batch_idx):
        return self.weight**2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def batch(b=2, **targets):
    found = {
        "semseg": torch.zeros(b, *SIZE, dtype=torch.uint8),
        "depth": torch.ones(b, *SIZE),
        "scene": torch.zeros(b, dtype=torch.int64),
    }
    return {"inputs": torch.zeros(b, 3, *SIZE), "targets": {**found, **targets}}


def loader(batches=3, **targets):
    return DataLoader([batch(**targets) for _ in range(batches)], batch_size=None)


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
    draw = module.draw_sheet

    def record(images, targets, predictions, tasks, *, title):
        copied = (
            {k: list(v) for k, v in targets.items()},
            {k: list(v) for k, v in predictions.items()},
        )
        calls.append((list(images), *copied, title))
        return draw(images[:1], {}, {}, {}, title=title)

    monkeypatch.setattr(module, "draw_sheet", record)
    return calls


def test_fit_and_test_write_sheets_beside_the_log(tmp_path):
    run = trainer(tmp_path, PredictionSheet(samples=1), logger=CSVLogger(tmp_path, name="run"))
    run.fit(Guess(), loader(1), loader(1))
    run.test(Guess(), loader(1), verbose=False)
    folder = tmp_path / "run" / "version_0" / "sheets"
    assert {path.name for path in folder.iterdir()} == {"epoch_000.png", "last.png", "test.png"}
    with Image.open(folder / "last.png") as picture:
        assert min(picture.size) > 100


def test_every_n_epochs_and_after_the_last(tmp_path, drawn):
    callback = PredictionSheet(samples=1, every_n_epochs=2)
    trainer(tmp_path, callback, max_epochs=5).fit(Guess(), loader(1), loader(1))
    assert [title for *_, title in drawn] == [f"validation, epoch {e}" for e in (1, 3, 4)]
    names = {path.name for path in (tmp_path / "sheets").iterdir()}
    assert names == {"epoch_001.png", "epoch_003.png", "epoch_004.png", "last.png"}


def test_samples_are_the_first_of_several_batches(tmp_path, drawn):
    trainer(tmp_path, PredictionSheet(samples=3)).validate(Guess(), loader(3), verbose=False)
    images, targets, predictions, _ = drawn[0]
    assert len(images) == 3
    for name, task in TASKS.items():
        assert len(targets[name]) == len(predictions[name]) == 3
        if task.dense:
            assert predictions[name][0].shape[-2:] == SIZE, "brought to the target's size"
    np.testing.assert_allclose(predictions["semseg"][0].sum(0), 1, rtol=1e-6)


def test_fewer_samples_than_rows(tmp_path, drawn):
    trainer(tmp_path, PredictionSheet(samples=9)).validate(Guess(), loader(1), verbose=False)
    assert len(drawn[0][0]) == 2


def test_the_sanity_check_and_fast_dev_run_draw_nothing(tmp_path, drawn):
    run = trainer(tmp_path, PredictionSheet(), max_epochs=0, num_sanity_val_steps=1)
    run.fit(Guess(), loader(1), loader(1))
    trainer(tmp_path, PredictionSheet(), fast_dev_run=True).fit(Guess(), loader(1), loader(1))
    assert not drawn
    assert not (tmp_path / "sheets").exists()


def test_what_carries_no_label_is_marked(tmp_path, drawn):
    tasks = {**TASKS, "parts": HumanParts()}
    held = batch(parts=torch.zeros(2, *SIZE, dtype=torch.uint8))
    held["labelled"] = {"depth": torch.tensor([False, True]), "scene": torch.tensor([True, False])}
    held["valid"] = {"depth": torch.ones(2, *SIZE, dtype=torch.bool)}
    held["valid"]["depth"][:, 0] = False
    del held["targets"]["semseg"]
    run = trainer(tmp_path, PredictionSheet(samples=2))
    run.validate(Guess(tasks), DataLoader([held], batch_size=None), verbose=False)
    _, targets, predictions, _ = drawn[0]
    assert targets["depth"][0] is None
    assert (targets["depth"][1][0] == 0).all()
    assert (targets["depth"][1][1:] == 1).all()
    assert targets["scene"] == [0, None]
    assert targets["semseg"] == [None, None]
    assert predictions["semseg"][0].shape[-2:] == SIZE, "the input's size where there is no target"
    assert (targets["parts"][0] == 255).all(), "an image without people"


def test_images_are_brought_back_to_their_colours():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    original = np.random.default_rng(0).integers(256, size=(*SIZE, 3)).astype(np.uint8)
    normalised = (original / 255 - mean) / std
    tensor = torch.from_numpy(normalised).permute(2, 0, 1).float()
    np.testing.assert_array_equal(module.to_picture(tensor, mean, std), original)
    grey = module.to_picture(torch.linspace(-3, 7, 6).view(1, 2, 3), mean, std)
    assert (grey.min(), grey.max(), grey.shape) == (0, 255, (2, 3, 3))


def test_inputs_that_are_no_images_are_left_alone(tmp_path, drawn):
    held = {"inputs": torch.zeros(2, 7), "targets": {}}
    run = trainer(tmp_path, PredictionSheet())
    run.validate(Guess(), DataLoader([held], batch_size=None), verbose=False)
    assert not drawn


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"every_n_epochs": 0}, {"std": (0.0, 1.0, 1.0)}])
def test_bad_arguments_are_refused(wrong):
    with pytest.raises(ArgumentError):
        PredictionSheet(**wrong)
