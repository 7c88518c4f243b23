"""Every YAML of vision and balancing runs on tiny data of its own layout."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from toy_files import (
    write_camvid,
    write_cityscapes,
    write_fashion,
    write_images,
    write_nyud,
    write_pascal,
)

from mtl_vision.__main__ import main

CONFIGS = Path(__file__).parents[1] / "configs"
FOUND = [
    p for folder in ("vision", "balancing") for p in sorted((CONFIGS / folder).rglob("*.yaml"))
]
WHOLE = [p for p in FOUND if "tasks" in yaml.safe_load(p.read_text())]
PARTS = [p for p in FOUND if p not in WHOLE]
BASE = CONFIGS / "vision" / "rooms_vit.yaml"

# Files in the layout of the data set that a config reads.
WRITERS = {
    "data_nyud": write_nyud,
    "data_pascal_context": write_pascal,
    "m3vit_pascal": write_pascal,
    "task_expert_pascal": write_pascal,
    "mlore_pascal": write_pascal,
    "data_cityscapes": write_cityscapes,
    "multi_fashion": write_fashion,
    "camvid": write_camvid,
    "camvid_dense": write_camvid,
}
# A smaller encoder where the config's own would take seconds, and no download of its weights.
SMALL = {
    "data_nyud": [
        "--model.network.encoder=test_vit",
        "--model.network.img_size=[64, 64]",
        "--data.size=[64, 64]",
        "--model.network.decoder.width=16",
        "--data.batch_size=2",
    ],
    "data_pascal_context": [
        "--model.network.encoder.name=resnet10t",
        "--data.size=[64, 64]",
        "--model.network.decoder.width=16",
        "--data.batch_size=2",
        "--data.drop_last=false",
    ],
    "m3vit_pascal": [
        "--model.network.encoder.name=test_vit",
        "--model.network.encoder.img_size=[64, 64]",
        "--model.network.encoder.num_experts=4",
        "--model.network.encoder.top_k=2",
        "--data.size=[64, 64]",
        "--model.network.decoder.width=8",
        "--data.batch_size=2",
        "--data.drop_last=false",
    ],
    "task_expert_pascal": [
        "--model.network.encoder=resnet10t",
        "--model.network.width=16",
        "--data.size=[64, 64]",
        "--data.batch_size=2",
        "--data.drop_last=false",
    ],
    "mlore_pascal": [
        "--model.network.encoder=resnet10t",
        "--model.network.width=16",
        "--model.network.ranks=[1, 2, 3, 4, 5, 6, 7, 8, 9]",
        "--data.size=[64, 64]",
        "--data.batch_size=2",
        "--data.drop_last=false",
    ],
    "data_cityscapes": [
        "--model.network.encoder.name=resnet10t",
        "--model.network.decoder.width=16",
        "--data.batch_size=2",
    ],
    "multi_fashion": ["--data.train_size=64", "--data.val_size=16", "--data.test_size=16"],
    "digits_bayes_agg": ["--data.train_size=64", "--data.val_size=16", "--data.test_size=16"],
    "multi_digits": ["--data.train_size=64", "--data.val_size=16", "--data.test_size=16"],
    "m3vit_rooms": ["--data.train_size=8", "--data.val_size=4", "--data.test_size=4"],
    "rooms_vit": ["--data.train_size=8", "--data.val_size=4", "--data.test_size=4"],
    "rooms_all": ["--data.train_size=8", "--data.val_size=4", "--data.test_size=4"],
    "camvid": ["--data.splits={train: train, val: val, test: val}"],
    "camvid_dense": ["--data.splits={train: train, val: val, test: val}"],
}


def arguments(path: Path, tmp_path: Path) -> list[str]:
    small = SMALL["rooms_vit"] if path.stem.endswith("_rooms") else SMALL.get(path.stem, [])
    words = ["-c", str(path), *small]
    if path.stem in WRITERS:
        WRITERS[path.stem](tmp_path / "data")
        words.append(f"--data.root={tmp_path / 'data'}")
    text = path.read_text()
    if "pretrained: true" in text:
        where = "encoder." if "{name: resnet" in text or "MoEViT" in text else ""
        words.append(f"--model.network.{where}pretrained=false")
    return [*words, "--data.num_workers=0"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Runs write to the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["mtl_vision"])


def test_every_folder_of_configs_is_tested_somewhere():
    """Here, in `test_tabular_configs.py`, or by the tests of the verb that reads them."""
    folders = {p.parent.relative_to(CONFIGS).as_posix() for p in CONFIGS.rglob("*.yaml")}
    assert folders <= {"vision", "balancing", "tabular", "bench", "boost", "sweep", "compare"}


@pytest.mark.parametrize("path", WHOLE, ids=lambda p: p.stem)
def test_config_runs(path, tmp_path):
    words = arguments(path, tmp_path)
    quick = ["--trainer.fast_dev_run=true", "--trainer.accelerator=cpu"]
    main(["fit", *words, *quick])  # validates too
    if path.stem.endswith("_rooms"):
        return  # another network on the data of the quick start
    for verb in ("validate", "test") if path == BASE else ("test",):
        main([verb, *words, *quick])
    if path.stem in WRITERS and path.stem != "multi_fashion":
        write_images(tmp_path / "photos")
        words.append(f"--data.predict={tmp_path / 'photos'}")
    main(["predict", *words, *quick])


@pytest.mark.parametrize("path", PARTS, ids=lambda p: p.stem)
def test_part_runs_on_top_of_the_quick_start(path, tmp_path):
    words = arguments(BASE, tmp_path)
    words[2:2] = ["-c", str(path)]
    main(["fit", *words, "--trainer.fast_dev_run=true", "--trainer.accelerator=cpu"])


def test_print_config_is_complete(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "-c", str(BASE), "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert list(printed["tasks"]) == ["semseg", "depth", "normals", "boundary"]
    assert printed["model"]["class_path"] == "mtl_core.modules.MultiTaskModule"


def test_quick_start_leaves_its_run_folder(tmp_path):
    words = arguments(BASE, tmp_path)
    limits = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--data.batch_size=4"]
    main(["fit", *words, *limits])
    folder = tmp_path / "runs" / "rooms_vit" / "version_0"
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {"config.yaml", "metrics.json", "metrics.csv", "curves.png"} <= found
    assert "sheets/last.png" in found
    torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def test_predictions_of_a_folder_have_the_images_size(tmp_path):
    """Pictures, arrays and one CSV; the network worked at another size."""
    path = CONFIGS / "vision" / "camvid.yaml"
    write_images(tmp_path / "photos" / "day", count=2)
    words = [*arguments(path, tmp_path), f"--data.predict={tmp_path / 'photos'}"]
    main(["predict", *words, "--trainer.logger=false", "--trainer.accelerator=cpu"])
    folder = tmp_path / "runs" / "predictions"
    rows = list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))
    assert [row["key"] for row in rows] == ["day/photo0.jpg", "day/photo1.jpg"]
    assert {"semseg", "presence/sky"} <= set(rows[0])
    with np.load(folder / "arrays" / "day" / "photo0.npz") as arrays:
        shapes = {name: arrays[name].shape for name in arrays}
    assert shapes == {"semseg": (11, 45, 60), "boundary": (45, 60), "presence": (11,)}
    with Image.open(folder / rows[0]["semseg/image"]) as picture:
        assert picture.size == (60, 45)
