import csv
import json

import pytest
from fpga_toys import images, random_vit

from export.fpga.design import Widths
from export.fpga.devices import device
from export.fpga.estimate import Engine
from export.fpga.generate import generate

ENGINE = Engine(macs=32)
FILES = {
    "README.md",
    "estimate.json",
    "estimate.md",
    "formats.json",
    "hls",
    "layers.csv",
    "schedule.json",
    "weights",
}


def make(out, **changes):
    settings = {"device": device("zcu104"), "engine": ENGINE, "widths": Widths(18, 12)}
    return generate(random_vit(), ("left", "right"), images(3), out, **{**settings, **changes})


def test_the_folder_is_complete_and_agrees_with_itself(tmp_path):
    report = make(tmp_path / "a")
    assert {path.name for path in (tmp_path / "a").iterdir()} == FILES
    rows = list(csv.DictReader((tmp_path / "a/layers.csv").read_text().splitlines()))
    assert sum(int(row["macs"]) for row in rows) == report.estimate["macs"]
    formats = json.loads((tmp_path / "a/formats.json").read_text())
    assert formats["blocks.1.hidden"]["W"] == 18
    assert formats["blocks.0.first.weight"]["W"] == 12
    schedule = json.loads((tmp_path / "a/schedule.json").read_text())
    for task in ("left", "right"):
        turns = schedule["layers"]["blocks.1"][task]
        assert sorted(turn["expert"] for turn in turns) == [0, 1, 2, 3]
        assert sum(turn["expected_queue"] for turn in turns) == pytest.approx(7 * 2)
    places = json.loads((tmp_path / "a/weights/map.json").read_text())["tensors"]
    start = {e["name"]: e["offset"] for e in places}
    for turn in turns:
        name = f"blocks.1.experts.{turn['expert']}.first.weight"
        assert turn["weight_offset"] == start[name]
    assert set(report.estimate["milliseconds_by_task"]) == {"left", "right"}
    assert report.simulation is None


def test_two_builds_are_the_same_and_name_no_machine(tmp_path):
    for name in ("a", "b"):
        make(tmp_path / name)
    for path in sorted((tmp_path / "a").rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            assert content == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
            assert str(tmp_path).encode() not in content
            assert b"latency on" not in content.lower()
