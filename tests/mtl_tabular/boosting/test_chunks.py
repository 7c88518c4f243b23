"""Chunks of tasks: which rows they have, and that those on the disk grow the same trees."""

import numpy as np
import pytest

from mtl_tabular.boosting import chunks
from mtl_tabular.boosting.chunks import HeldChunk, StoredChunk, task_chunks
from mtl_tabular.boosting.grown import Rounded, TreeRules

SIZES = np.array([30, 3, 70, 0, 45])


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 80)


def rows():
    values = np.random.default_rng(0).normal(size=(SIZES.sum(), 3)).astype(np.float32)
    values[::9, 1] = np.nan
    return values, np.repeat(np.arange(len(SIZES)), SIZES)


def test_every_task_with_enough_rows_is_in_one_chunk():
    values, tasks = rows()
    found = task_chunks(values, tasks, len(SIZES), max_bin=256, depth=3, least=10)
    assert sorted(np.concatenate([chunk.tasks for chunk in found])) == [0, 2, 4]
    for chunk in found:
        np.testing.assert_array_equal(tasks[chunk.rows], np.repeat(chunk.tasks, SIZES[chunk.tasks]))
        assert isinstance(chunk, HeldChunk)


def test_stored_chunks_grow_the_same_trees(tmp_path):
    values, tasks = rows()
    file = np.memmap(tmp_path / "values", np.float32, "w+", shape=values.shape)
    file[:] = values
    gradient = np.random.default_rng(1).normal(size=len(tasks))
    rules = TreeRules(max_depth=3)
    both = [
        task_chunks(array, tasks, len(SIZES), max_bin=256, depth=3, least=10)
        for array in (values, file)
    ]
    assert all(isinstance(chunk, StoredChunk) for chunk in both[1])
    for held, stored in zip(*both, strict=True):
        sizes = held.layout.sizes
        derivatives = Rounded.of(gradient[held.rows], np.ones(len(held.rows)), sizes)
        rates = np.full(len(sizes), 0.1)
        (tree, leaf), (again, place) = (
            chunk.layout.grow(derivatives, rules, rates) for chunk in (held, stored)
        )
        np.testing.assert_array_equal(tree.value[leaf], again.value[place])
        assert len(np.unique(leaf)) > len(sizes)
