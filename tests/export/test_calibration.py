"""Calibration samples come from every source of data, and from training."""

import numpy as np
import pytest
from toy_exports import table_source

from export.calibration import _apportioned, draw_calibration
from mtl_core.errors import ArgumentError


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return table_source(tmp_path_factory.mktemp("run"))


def test_samples_are_of_training_and_repeat_themselves(source):
    first, again = (draw_calibration(source, 20) for _ in range(2))
    other = draw_calibration(source, 20, seed=1)
    assert first.note == again.note
    assert first.note["sha256"] != other.note["sha256"]
    assert first.note["samples"] == 20
    assert sum(len(b["numeric"]) for b in first.batches) == 20
    for a, b in zip(first.batches, again.batches, strict=True):
        np.testing.assert_array_equal(a["numeric"], b["numeric"])


def test_there_is_no_more_than_there_is(source):
    count = len(source.data.prepared("train"))
    assert draw_calibration(source, 10**6).note["samples"] == count


def test_each_source_gives_its_share():
    rng = np.random.default_rng(0)
    found = np.array(_apportioned((100, 2, 10), 30, rng))
    assert len(set(found.tolist())) == 30
    counts = np.histogram(found, [0, 100, 102, 112])[0].tolist()
    assert counts == [18, 2, 10]


def test_every_task_needs_samples(source, monkeypatch):
    train = source.data.prepared("train")
    monkeypatch.setattr(type(train), "_declared", lambda self, entries: {})
    with pytest.raises(ArgumentError, match="hold samples of every task: none of 4"):
        draw_calibration(source, 4)


def test_data_is_needed(source):
    held, source.data = source.data, None
    with pytest.raises(ArgumentError, match="data module to be calibrated"):
        draw_calibration(source, 4)
    source.data = held
