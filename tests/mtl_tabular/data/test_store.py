"""Tables on disk: the same batches as from memory, complete or not there at all."""

import os
import pickle
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_tables import (
    long_tasks,
    wide_frame,
    wide_tasks,
    write_long_csv,
    write_wide_csv,
    write_wide_parquet,
)

from mtl_core.errors import CheckpointWriteError
from mtl_tabular.data import TableDataModule, readers
from mtl_tabular.data.rows import TableRows
from mtl_tabular.data.store import KEPT_SECONDS, StoreError, open_store, store_folder, write_store


def ready(table, tmp_path, tasks=None, **options) -> TableDataModule:
    data = TableDataModule(
        wide_tasks() if tasks is None else tasks,
        table=table,
        cache_dir=str(tmp_path / "cache"),
        batch_size=32,
        **options,
    )
    data.fit()
    data.prepare_data()
    data.setup()
    return data


def batches(data) -> list:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(2)
    rest = (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader())
    return [*loader, *(batch for loader in rest for batch in loader)]


def assert_equal(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for name in expected:
            assert_equal(found[name], expected[name])
    elif isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        assert torch.equal(found.nan_to_num(-7.0), expected.nan_to_num(-7.0))
    elif isinstance(expected, list) and expected and isinstance(expected[0], dict):
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    else:
        assert found == expected


@pytest.mark.parametrize("form", ["csv", "parquet", "long"])
def test_disk_equals_memory_bit_for_bit(tmp_path, monkeypatch, form):
    monkeypatch.setattr(readers, "CHUNK_ROWS", 32)
    options = {}
    if form == "csv":
        path = write_wide_csv(tmp_path / "a.csv", missing=True)
    elif form == "parquet":
        path = write_wide_parquet(tmp_path / "a.parquet", missing=True)
    else:
        path = write_long_csv(tmp_path / "a.csv")
        options = {"tasks": long_tasks(), "task_column": "site"}
    memory = ready(path, tmp_path, **options)
    disk = ready(path, tmp_path, **options, storage="disk")
    assert isinstance(disk.prepared("train").dataset.arrays["numeric"], np.memmap)
    # Means are summed up in another order; what the networks get has to be equal given one schema.
    for a, b in zip(disk.schema.numeric, memory.schema.numeric, strict=True):
        assert (a.mean, a.std) == pytest.approx((b.mean, b.std), rel=1e-12)
    assert disk.schema.categorical == memory.schema.categorical
    tasks, schema = memory.tasks, memory.schema
    options |= {"tasks": tasks, "schema": schema}
    disk = ready(path, tmp_path, **options, storage="disk")
    assert_equal(batches(disk), batches(memory))


def test_store_is_reused_until_something_changes(tmp_path, monkeypatch):
    path = write_wide_parquet(tmp_path / "a.parquet")
    first = ready(path, tmp_path, storage="disk")
    known = {"tasks": first.tasks, "schema": first.schema, "storage": "disk"}
    folders = set((tmp_path / "cache").iterdir())
    assert len(folders) == 1

    def refuse(*args):
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr(TableDataModule, "_encode", refuse)
        again = ready(path, tmp_path, **known)
    assert_equal(batches(again), batches(first))

    changes = [
        {"split_seed": 1},
        {"val_fraction": 0.2},
        {"stratify": False},
        {"unseen_classes": "unlabelled"},
        {"tasks": {**first.tasks, "click": replace(first.tasks["click"], classes=("1", "0"))}},
    ]
    for count, change in enumerate(changes, start=2):
        ready(path, tmp_path, **{**known, **change})
        assert len(list((tmp_path / "cache").iterdir())) == count, change
    write_wide_parquet(path, seed=5)
    os.utime(path, (1, 1))
    later = ready(path, tmp_path, **known)
    assert len(list((tmp_path / "cache").iterdir())) == len(changes) + 2
    assert not torch.equal(
        batches(later)[0]["targets"]["price"], batches(first)[0]["targets"]["price"]
    )


def pieces(count=3, fail_at=None):
    for i in range(count):
        if i == fail_at:
            raise KeyboardInterrupt
        yield {"numeric": np.full((4, 2), i, dtype=np.float32), "part": np.zeros(4, dtype=np.uint8)}


def test_stopped_writing_leaves_nothing(tmp_path):
    folder = store_folder(tmp_path, "key")
    with pytest.raises(KeyboardInterrupt):
        write_store(folder, pieces(fail_at=2), 12)
    assert open_store(folder) is None
    assert list(tmp_path.iterdir()) == []
    # A process that was killed could not clean up; what it left is no store either.
    (tmp_path / f".{folder.name}.1.tmp").mkdir()
    assert open_store(folder) is None
    write_store(folder, pieces(), 12)
    arrays = open_store(folder)
    assert arrays["numeric"].shape == (12, 2)
    assert arrays["numeric"][:, 0].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert not arrays["numeric"].flags.writeable


def test_second_writer_leaves_the_first_store(tmp_path):
    folder = store_folder(tmp_path, "key")
    write_store(folder, pieces(), 12)
    before = (folder / "numeric.npy").stat().st_mtime_ns
    write_store(folder, pieces(), 12)
    assert (folder / "numeric.npy").stat().st_mtime_ns == before
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]


def test_tables_must_not_change_meanwhile(tmp_path):
    with pytest.raises(StoreError, match="12 rows, not 13"):
        write_store(store_folder(tmp_path, "key"), pieces(), 13)


def test_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointWriteError, match="file"):
        write_store(tmp_path / "file" / "store", pieces(), 12)


def test_mapped_rows_are_pickled_without_their_content(tmp_path):
    disk = ready(write_wide_parquet(tmp_path / "a.parquet", rows=5000), tmp_path, storage="disk")
    rows = disk.prepared("train").dataset
    # The chosen rows and the layout of targets travel, the blocks do not.
    packed = pickle.dumps(rows)
    assert len(packed) < rows.chosen.nbytes + 20_000
    again = pickle.loads(packed)
    assert isinstance(again, TableRows)
    chosen = np.array([3, 1])
    assert_equal(again.batch(chosen), rows.batch(chosen))


def test_frames_may_be_stored_too(tmp_path):
    frame = wide_frame()
    disk, memory = ready(frame, tmp_path, storage="disk"), ready(frame, tmp_path)
    assert disk.tasks == memory.tasks
    assert len(batches(disk)) == len(batches(memory))


def test_leftovers_of_killed_processes_are_removed_after_a_day(tmp_path):
    old, fresh, busy, other = (
        tmp_path / name
        for name in (f".{'a' * 24}.7.tmp", f".{'b' * 24}.8.tmp", f".{'c' * 24}.9.tmp", ".mine.tmp")
    )
    past = time.time() - KEPT_SECONDS - 60
    for folder in (old, fresh, busy, other):
        folder.mkdir()
        (folder / "numeric.npy").write_bytes(b"half")
        if folder != fresh:
            if folder != busy:
                os.utime(folder / "numeric.npy", (past, past))
            os.utime(folder, (past, past))
    folder = store_folder(tmp_path, "key")
    write_store(folder, pieces(), 12)
    assert set(tmp_path.iterdir()) == {fresh, busy, other, folder}


def test_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(CheckpointWriteError, match="cache_dir must be a folder"):
        ready(wide_frame(), tmp_path, storage="disk")
    (tmp_path / "cache").unlink()

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(CheckpointWriteError, match=r"Permission denied; cache_dir must be"):
        ready(wide_frame(), tmp_path, storage="disk")
