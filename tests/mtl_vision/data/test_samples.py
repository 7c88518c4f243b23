"""Samples are read once if kept, and folders list what is there."""

import numpy as np
import pytest
from PIL import Image

from mtl_core.errors import ArgumentError, EmptySplitError
from mtl_vision.data.samples import FileSamples, ImageFolder, list_files, read_names


class Counting(FileSamples):
    reads = 0

    def read(self, key):
        self.reads += 1
        return {"inputs": np.zeros((2, 2, 3), np.uint8), "targets": {"a": len(key)}}


def test_kept_samples_are_read_once_and_not_shared():
    plain, kept = Counting(["x", "yy"], ("a",)), Counting(["x", "yy"], ("a",), cache=True)
    for samples in (plain, kept):
        first = samples[1]
        assert first["key"] == "yy"
        first["targets"]["a"] = 99
        assert samples[1]["targets"] == {"a": 2}
    assert (plain.reads, kept.reads) == (2, 1)
    assert len(kept) == 2


def test_images_below_a_folder(tmp_path):
    (tmp_path / "sub" / ".hidden").mkdir(parents=True)
    image = Image.new("RGB", (4, 3), (1, 2, 3))
    for name in ("b.png", "sub/a.JPG", "sub/.hidden/c.png", ".d.png"):
        image.save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    folder = ImageFolder(tmp_path)
    assert folder.keys == ["b.png", "sub/a.JPG"]
    sample = folder[0]
    assert sample["targets"] == {}
    assert sample["inputs"].shape == (3, 4, 3)


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(ArgumentError, match="predict must name an existing folder"):
        ImageFolder(tmp_path / "none")
    with pytest.raises(EmptySplitError, match="'predict' is empty"):
        ImageFolder(tmp_path)
    with pytest.raises(ArgumentError, match="images must name"):
        list_files(tmp_path / "none", (".png",), argument="images")


def test_split_files(tmp_path):
    path = tmp_path / "train.txt"
    with pytest.raises(ArgumentError, match=r"root must hold train\.txt"):
        read_names(path)
    path.write_text("b\na \n\n")
    assert read_names(path) == ["b", "a"]
    path.write_text("b\na\nb\n")
    with pytest.raises(ArgumentError, match=r"once, found \['b'\]"):
        read_names(path)
