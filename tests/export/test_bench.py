"""The protocol of `bench`: every case in turns, enough runs, and a folder that stays whole."""

import json

import pytest
from toy_folder import image_folder, table_folder

from export import bench as bench_file
from export.__main__ import main
from export.bench import BenchError, Case, bench, fresh_process, machine, measure
from export.footprint import ALL, memory, samples
from export.manifest import FolderError, read_manifest, verify
from mtl_core.errors import ArgumentError, UnknownNameError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("images") / "model")


def test_cases_take_turns_until_each_has_enough():
    order = []
    cases = [Case("v", name, 1, lambda name=name: order.append(name)) for name in "ab"]
    measure(cases, 0.0)
    assert order == ["a"] * 3 + ["b"] * 3 + ["a", "b"] * 20
    row = cases[0].row()
    assert row["runs"] == 20
    assert 0 <= row["cpu_ms_min"] <= row["cpu_ms_p50"]
    measure(cases, 0.01, threads=2)
    assert all(case.seconds >= 0.01 for case in cases)


def test_every_variant_task_and_batch_has_a_row(folder):
    found = bench(folder, batches=[1, 5], min_time=0, memory=False)
    keys = {(row["variant"], row["task"], row["batch"]) for row in found["rows"]}
    tasks = ("semseg", "depth", "normals", "scene", ALL)
    assert keys == {(v, t, b) for v in ("fp32", "int8-dynamic") for t in tasks for b in (1, 5)}
    assert found["protocol"]["order"].startswith("round robin")
    chosen = bench(folder, variants=["fp32"], tasks=["depth"], min_time=0, memory=False)
    assert len(chosen["rows"]) == 1


def test_the_folder_stays_whole_and_carries_the_table(tmp_path, capsys):
    folder = table_folder(tmp_path / "model")
    words = ["bench", str(folder), "--min-time", "0", "--task", "sale"]
    assert main(words) == 0
    assert "cpu_ms_min" in capsys.readouterr().out
    verify(folder)
    (row,) = read_manifest(folder)["latency"]
    assert row["task"] == "sale"
    assert row["threads"] == 1
    assert 20 < row["resident_mb"] < 500
    assert row["start_cpu_s"] > 0
    report = json.loads((folder / "report/latency.json").read_text())
    assert report["rows"][0]["runs"] >= 20
    assert main([*words, "--no-memory", "--batches", "1,2"]) == 0, "a second time"
    verify(folder)
    before = (folder / "manifest.json").read_bytes()
    assert main([*words, "--no-memory", "--no-save"]) == 0
    assert (folder / "manifest.json").read_bytes() == before


def test_a_damaged_folder_is_not_sealed_anew(tmp_path):
    folder = table_folder(tmp_path / "model")
    (folder / "README.md").write_text("changed")
    with pytest.raises(FolderError, match=r"README.md"):
        bench_file.save(folder, {"machine": {}, "protocol": {}, "rows": []})


def test_mistakes_are_named(folder, capsys):
    with pytest.raises(UnknownNameError, match="variant must be a known name"):
        bench(folder, variants=["fp16"], min_time=0)
    with pytest.raises(UnknownNameError, match=r"Did you mean depth\?"):
        bench(folder, tasks=["dept"], min_time=0)
    with pytest.raises(ArgumentError, match="batches and min_time must be positive"):
        bench(folder, batches=[0])
    with pytest.raises(BenchError, match="a process with fp32 and dept failed"):
        fresh_process(folder, "fp32", "dept")
    assert main(["bench", str(folder), "--batches", "one"]) == 2
    assert "whole numbers such as 1,8" in capsys.readouterr().err


def test_samples_memory_and_machine(folder):
    manifest = read_manifest(folder)
    assert samples(folder, manifest, 7)["image"].shape[0] == 7
    assert memory()["peak_mb"] >= memory()["resident_mb"] * 0.5
    about = machine()
    assert about["cores"] >= 1
    assert "node" not in about
