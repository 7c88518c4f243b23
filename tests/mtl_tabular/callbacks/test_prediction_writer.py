from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from mtl_core.errors import UnknownNameError
from mtl_tabular.callbacks import TablePredictionWriter
from mtl_tabular.callbacks.prediction_writer import prediction_frame
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, NumericTarget

TASKS = {
    "sold": BinaryTarget(classes=("no", "yes"), rows=9),
    "kind": MulticlassTarget(classes=("a", "b", "c"), rows=9),
    "price": NumericTarget(mean=100.0, std=10.0, rows=9),
}
BATCHES = [
    {
        "keys": keys,
        "predictions": {
            "sold": torch.rand(len(keys), 1),
            "kind": torch.rand(len(keys), 3).softmax(1),
            "price": torch.randn(len(keys), 1),
        },
    }
    for keys in (["5", "3"], ["8"])
]


def write(writer, folder, *, fail: bool = False):
    trainer = SimpleNamespace(
        log_dir=str(folder), default_root_dir=str(folder), world_size=1, global_rank=0
    )
    module = SimpleNamespace(tasks=TASKS)
    writer.on_predict_start(trainer, module)
    for i, batch in enumerate(BATCHES):
        writer.write_on_batch_end(trainer, module, batch, None, {}, i, 0)
        if fail:
            writer.on_exception(trainer, module, KeyboardInterrupt())
            return
    writer.on_predict_end(trainer, module)


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_all_rows_with_classes_numbers_and_probabilities(tmp_path, format):
    write(TablePredictionWriter(format=format), tmp_path)
    path = tmp_path / f"predictions.{format}"
    frame = pd.read_csv(path, dtype={"key": str}) if format == "csv" else pd.read_parquet(path)
    assert frame["key"].tolist() == ["5", "3", "8"]
    columns = ["key", "sold", "sold/no", "sold/yes", "kind", "kind/a", "kind/b", "kind/c", "price"]
    assert frame.columns.tolist() == columns
    np.testing.assert_allclose(frame["sold/no"] + frame["sold/yes"], 1, atol=1e-5)
    expected = torch.cat([b["predictions"]["sold"] for b in BATCHES]).reshape(-1)
    assert frame["sold"].tolist() == ["yes" if p > 0.5 else "no" for p in expected]
    best = torch.cat([b["predictions"]["kind"] for b in BATCHES]).argmax(1)
    assert frame["kind"].tolist() == ["abc"[k] for k in best]
    numbers = torch.cat([b["predictions"]["price"] for b in BATCHES]).reshape(-1)
    np.testing.assert_allclose(frame["price"], numbers, rtol=1e-5)


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_an_interrupted_run_keeps_the_earlier_file_whole(tmp_path, format):
    path = tmp_path / f"predictions.{format}"
    path.write_text("earlier")
    write(TablePredictionWriter(format=format), tmp_path, fail=True)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "earlier"


def test_rows_without_keys_are_numbered():
    frame = prediction_frame(["0"], {"price": torch.tensor([[2.5]])}, {"price": TASKS["price"]})
    assert frame.to_dict("records") == [{"key": "0", "price": 2.5}]


def test_unknown_format_is_refused():
    with pytest.raises(UnknownNameError, match="parquet"):
        TablePredictionWriter(format="parket")
