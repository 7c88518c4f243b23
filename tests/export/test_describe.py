"""What a manifest says of tasks, and that no file holds a path of the machine."""

from pathlib import Path

import pytest
from toy_exports import image_source

from export.describe import model_entry, producer, refuse_leaks, task_entries, today
from export.manifest import FolderError


def test_tasks_keep_their_place_in_the_network():
    source = image_source()
    found = task_entries(source.network, {"scene": ["batch", 2], "depth": ["batch", 4, 4]})
    assert [(entry["name"], entry["index"]) for entry in found] == [("depth", 1), ("scene", 2)]
    depth = found[0]
    assert (depth["kind"], depth["dense"], depth["primary"]) == ("depth", True, "rmse")
    assert depth["higher_is_better"] is False
    assert depth["outputs"] == [
        {"name": "depth", "shape": ["batch", 4, 4], "activation": "clamp", "unit": "m"}
    ]


def test_versions_and_sizes():
    assert producer(opset=20, ir=10)["opset"] == 20
    assert model_entry(image_source())["parameters"] > 1000
    assert len(today()) == 10


@pytest.mark.parametrize("text", ["{cwd}/x.py", "{home}/code", 'File "model.py"', "/build/here/m"])
def test_paths_are_found_in_any_file(tmp_path, text):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.onnx").write_bytes(b"\0\1fine")
    refuse_leaks(tmp_path, ["/build/here"])
    held = text.format(cwd=Path.cwd(), home=Path.home())
    (tmp_path / "sub" / "a.onnx").write_bytes(b"\0" + held.encode() + b"\1")
    with pytest.raises(FolderError, match=r"sub/a\.onnx holds"):
        refuse_leaks(tmp_path, ["/build/here"])
