"""Garments from IDX files, plain or gzipped, in both layouts."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from toy_files import idx, write_fashion

from mtl_core.errors import ArgumentError, MissingTaskError, UnreadableFileError
from mtl_core.tasks.classification import Classification
from mtl_vision.data.multi_fashion import DEBIAN_FOLDER, MultiFashion, garments, read_idx

TASKS = {name: Classification(num_classes=10) for name in ("left", "right")}


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("below", ["", "FashionMNIST/raw"])
def test_both_layouts(tmp_path, compress, below):
    write_fashion(tmp_path / "data" / below if below else tmp_path / "data", compress=compress)
    sizes = {"train_size": 12, "val_size": 6, "test_size": 6}
    data = MultiFashion(TASKS, root=tmp_path / "data", batch_size=4, **sizes)
    batch = next(iter(data.train_dataloader()))
    assert batch["inputs"].shape == (4, 3, 36, 36)
    assert data.transform("predict").operations()["operations"][1]["size"] == [36, 36]
    assert set(batch["targets"]) == {"left", "right"}
    assert [len(data.dataset(s).sources.labels) for s in ("train", "val", "test")] == [50, 10, 20]
    train, val = (data.dataset(split).sources for split in ("train", "val"))
    assert not {i.tobytes() for i in train.images} & {i.tobytes() for i in val.images}


def test_damaged_files_are_named(tmp_path):
    write_fashion(tmp_path / "data", compress=True)
    path = tmp_path / "data" / "train-labels-idx1-ubyte.gz"
    good = path.read_bytes()
    path.write_bytes(good[:-12])
    with pytest.raises(UnreadableFileError, match="train-labels"):
        garments(tmp_path / "data", "train")
    path.write_bytes(gzip.compress(idx(np.zeros(59, np.uint8))))
    with pytest.raises(UnreadableFileError, match="a label per image"):
        garments(tmp_path / "data", "train")
    plain = tmp_path / "x"
    plain.write_bytes(idx(np.zeros((2, 3), np.uint8))[:-1])
    with pytest.raises(UnreadableFileError, match=r"do not hold shape \(2, 3\)"):
        read_idx(plain)
    plain.write_bytes(b"PK\3\4")
    with pytest.raises(UnreadableFileError, match="no IDX file"):
        read_idx(plain)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ArgumentError, match=r"root must hold train-images-idx3-ubyte or .*\.gz"):
        MultiFashion(TASKS, root=tmp_path).dataset("train")
    with pytest.raises(MissingTaskError, match="'top'"):
        MultiFashion({"top": TASKS["left"]}, root=tmp_path)


@pytest.mark.skipif(
    not Path(DEBIAN_FOLDER).is_dir(), reason="dataset-fashion-mnist is not installed"
)
def test_debians_package():
    data = MultiFashion(TASKS)
    train = data.dataset("train").sources
    assert train.images.shape == (50000, 28, 28)
    assert data.dataset("val").sources.images.shape == (10000, 28, 28)
    assert set(train.labels.tolist()) == set(range(10))
