"""What `infer` writes without torch is what `predict` of training writes, on the same files."""

import csv
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from dense_laws import scramble
from PIL import Image
from toy_exports import SIZE, small_source
from toy_files import write_camvid
from toy_tables import wide_frame

from export.build import build
from export.infer import main
from export.settings import BuildSettings
from export.source import Source
from mtl_core.data.batch import collate
from mtl_tabular.callbacks.prediction_writer import prediction_frame
from mtl_tabular.data import TableDataModule
from mtl_vision.callbacks import ImagePredictionWriter
from mtl_vision.data import ImageFolderTasks
from mtl_vision.data.targets import TargetSource
from mtl_vision.decoders import LinearMapDecoder
from mtl_vision.encoders import TimmEncoder
from mtl_vision.networks import HardSharing
from mtl_vision.tasks import SemanticSegmentation


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def same(left, right):
    try:
        return float(left) == pytest.approx(float(right), rel=1e-4, abs=1e-6)
    except ValueError:
        return left == right


def assert_same_rows(found, expected):
    assert len(found) == len(expected)
    for left, right in zip(found, expected, strict=True):
        assert list(left) == list(right)
        assert {k: v for k, v in left.items() if not same(v, right[k])} == {}


@torch.no_grad()
def test_on_a_folder_of_pictures_of_many_sizes(tmp_path):
    torch.manual_seed(0)
    tasks = {"semseg": SemanticSegmentation(num_classes=12)}
    shape = {"embed_dim": 24, "depth": 1, "num_heads": 2}
    encoder = partial(TimmEncoder, "vit_tiny_patch16_224", img_size=SIZE, model_args=shape)
    network = HardSharing(tasks, encoder=encoder, decoder=LinearMapDecoder)
    scramble(network)
    network.eval()
    rng = np.random.default_rng(0)
    pictures = tmp_path / "pictures"
    for name, size in (("a.png", (45, 60)), ("sub/b.png", (90, 130)), ("c.png", (20, 200))):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(pictures / name)
    data = ImageFolderTasks(
        tasks,
        root=write_camvid(tmp_path / "camvid"),
        targets={"semseg": TargetSource(folder="{split}/label")},
        predict=pictures,
        size=SIZE,
    )
    source = Source(network, None, data, "mtl_vision.networks.hard_sharing.HardSharing")
    build(source, tmp_path / "model", BuildSettings(metrics=False))

    split = data.prepared("predict")
    batch = collate([split.sample(i) for i in range(len(split))])
    raw = network(batch["inputs"])
    predictions = {name: tasks[name].activate(values.float()) for name, values in raw.items()}
    writer = ImagePredictionWriter()
    writer.target = tmp_path / "predict"
    trainer = SimpleNamespace(datamodule=data, world_size=1)
    outputs = {"keys": batch["keys"], "predictions": predictions}
    writer.write_on_batch_end(trainer, SimpleNamespace(tasks=tasks), outputs, None, batch, 0, 0)
    writer.on_predict_end(trainer, SimpleNamespace())

    out = tmp_path / "infer"
    main([str(tmp_path / "model"), str(pictures), "--out", str(out), "--save-maps", "--batch", "2"])
    assert_same_rows(read(out / "predictions.csv"), read(writer.target / "predictions.csv"))
    for stem in ("a", "sub/b", "c"):
        files = [folder / f"arrays/{stem}.npz" for folder in (out, writer.target)]
        with np.load(files[0]) as first, np.load(files[1]) as second:
            np.testing.assert_allclose(first["semseg"], second["semseg"], atol=1e-5)
        files = [folder / f"images/{stem}.semseg.png" for folder in (out, writer.target)]
        with Image.open(files[0]) as first, Image.open(files[1]) as second:
            changed = (np.asarray(first) != np.asarray(second)).any(-1)
        assert changed.mean() < 1e-3, "but for pixels between two equally likely classes"


@torch.no_grad()
def test_on_a_table(tmp_path):
    source = small_source()
    build(source, tmp_path / "model", BuildSettings(tasks=("price", "click"), metrics=False))
    frame = wide_frame(40, missing=True, seed=7).drop(columns=["price", "click", "kind"])
    frame = frame[frame.columns[::-1]].assign(more="x")
    path = tmp_path / "rows.csv"
    frame.to_csv(path, index=False)

    tasks = {name: source.tasks[name] for name in ("price", "click")}
    data = TableDataModule(source.tasks, predict=path, schema=source.network.schema)
    rows = data.dataset("predict").batch(np.arange(len(frame)))
    raw = source.network(rows["inputs"], tasks=list(tasks))
    activated = {name: tasks[name].activate(raw[name].float()) for name in tasks}
    expected = prediction_frame(rows["keys"], activated, tasks)

    out = tmp_path / "infer"
    main([str(tmp_path / "model"), str(path), "--out", str(out), "--task", "price,click"])
    found = pd.read_csv(out / "predictions.csv", dtype=str)
    assert_same_rows(found.to_dict("records"), expected.astype(str).to_dict("records"))
