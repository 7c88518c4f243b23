import errno
import os
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from toys import ToyNetwork, toy_loader, toy_tasks

from mtl_core.callbacks import PredictionWriter
from mtl_core.callbacks.prediction_writer import summary
from mtl_core.errors import ArgumentError, CheckpointWriteError
from mtl_core.modules import MultiTaskModule
from mtl_core.tasks import Classification, MultiLabel, Regression


def predict(folder, writer) -> MultiTaskModule:
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        callbacks=[writer],
    )
    torch.manual_seed(0)
    model = MultiTaskModule(toy_tasks(), ToyNetwork)
    trainer.predict(model, toy_loader(count=10), return_predictions=False)
    return model


@pytest.mark.parametrize("arrays", ["npz", "npy"])
def test_arrays_and_rows_of_every_sample(tmp_path, arrays):
    model = predict(tmp_path, PredictionWriter(arrays=arrays))
    folder = tmp_path / "predictions"
    lines = (folder / "predictions.csv").read_text().splitlines()
    assert lines[0] == "key,size,kind,kind/probability,marks/0,marks/1"
    assert [line.split(",")[0] for line in lines[1:]] == [f"row {i}" for i in range(10)]
    raw = model.network(next(iter(toy_loader(count=10)))["inputs"])
    if arrays == "npz":
        held = np.load(folder / "arrays" / "row 2.npz")
    else:
        held = {n: np.load(folder / "arrays" / f"row 2.{n}.npy") for n in raw}
    for name, task in toy_tasks().items():
        expected = task.activate(raw[name])[2].detach().numpy()
        np.testing.assert_allclose(held[name], expected, rtol=1e-5, atol=1e-6)
    assert float(lines[3].split(",")[1]) == pytest.approx(float(held["size"][0]), rel=1e-4)


def test_no_arrays_where_none_are_wanted(tmp_path):
    predict(tmp_path, PredictionWriter(str(tmp_path / "out"), arrays="none"))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["predictions.csv"]


def test_summary_of_each_kind_of_task():
    named = Classification(num_classes=2, class_names=("cat", "dog"))
    assert summary("pet", named, np.array([0.25, 0.75])) == {"pet": "dog", "pet/probability": 0.75}
    assert summary("tag", MultiLabel(num_labels=2), np.array([0.5, 0.1])) == {
        "tag/0": 0.5,
        "tag/1": 0.1,
    }
    assert summary("at", Regression(dim=2), np.array([1.0, 2.0])) == {"at/0": 1.0, "at/1": 2.0}


def test_equal_names_do_not_overwrite_each_other_nor_leave_the_folder():
    writer = PredictionWriter()
    stems = [writer._stem(key) for key in ("a/x.png", "a/x.jpg", "/etc/x.png", "../up/y.png", "")]
    assert stems == ["a/x", "a/x_2", "etc/x", "up/y", "sample"]
    assert not any(Path(stem).is_absolute() or ".." in Path(stem).parts for stem in stems)


def test_full_disk_is_an_error_of_ours(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointWriteError, match="No space left"):
        predict(tmp_path, PredictionWriter())
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_kind_of_arrays_is_checked():
    with pytest.raises(ArgumentError, match="arrays must be npz, npy or none"):
        PredictionWriter(arrays="mat")
