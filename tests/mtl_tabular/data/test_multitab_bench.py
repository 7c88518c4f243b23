import numpy as np
import pytest
import torch
from toys import toy_trainer

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.modules import MultiTaskModule
from mtl_tabular.data import MultiTabBench
from mtl_tabular.data.synthetic import SyntheticTable
from mtl_tabular.networks import SharedBottom
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, NumericTarget

SMALL = {"train_size": 300, "val_size": 100, "test_size": 50, "batch_size": 50}


def numeric(*numbers):
    return {f"task{i}": NumericTarget() for i in numbers}


def rows(data, split):
    """Every batch of a split in order, joined."""
    data.setup()
    loader = getattr(data, f"{split}_dataloader")()
    batches = list(loader)
    inputs = torch.cat([b["inputs"]["numeric"] for b in batches])
    targets = {n: torch.cat([b["targets"][n] for b in batches]) for n in batches[0]["targets"]}
    return inputs, targets


def fitted(tasks, **given):
    data = MultiTabBench(tasks, **{**SMALL, **given})
    data.fit()
    return data


def test_rows_are_those_of_the_generator():
    data = fitted(numeric(*range(1, 8)), data_seed=4)
    table = SyntheticTable(data.spec, seed=4)
    for split, size in (("val", 100), ("test", 50)):
        inputs, targets = rows(data, split)
        drawn = table.draw(size, split)
        scale = np.array([c.std for c in data.schema.numeric], dtype=np.float32)
        shift = np.array([c.mean for c in data.schema.numeric], dtype=np.float32)
        np.testing.assert_allclose(inputs.numpy() * scale + shift, drawn.numeric, atol=1e-5)
        for i in range(7):
            np.testing.assert_array_equal(targets[f"task{i + 1}"], drawn.labels[:, i])


def test_one_task_alone_sees_identical_data():
    """What makes single-task references comparable."""
    whole, single = fitted(numeric(*range(1, 8))), fitted(numeric(3))
    assert whole.schema == single.schema
    assert single.tasks["task3"] == whole.tasks["task3"]
    for split in ("train", "val", "test"):
        (x, y), (x_one, y_one) = rows(whole, split), rows(single, split)
        assert torch.equal(x, x_one)
        assert torch.equal(y["task3"], y_one["task3"])
        assert list(y_one) == ["task3"]


def test_columns_are_learned_from_training_rows_only():
    assert fitted(numeric(1), test_size=10).schema == fitted(numeric(1), val_size=7).schema
    assert fitted(numeric(1)).schema != fitted(numeric(1), train_size=299).schema


def test_mixed_kinds_with_categories_and_gaps_train():
    kinds = ["numeric", "binary", "multiclass"]
    tasks = {"task1": NumericTarget(), "task2": BinaryTarget(), "task3": MulticlassTarget()}
    data = fitted(
        tasks,
        num_tasks=3,
        degrees=[1, 2, 3],
        kinds=kinds,
        classes=5,
        num_features=8,
        num_categorical=3,
        levels=4,
        missing_labels=0.3,
        missing_values=0.1,
    )
    assert [c.cardinality for c in data.schema.categorical] == [6, 6, 6]
    assert data.tasks["task3"].classes == ("0", "1", "2", "3", "4")
    module = MultiTaskModule(data.tasks, lambda t: SharedBottom(t, schema=data.schema))
    trainer = toy_trainer(max_epochs=1)
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    assert {"test/task1/rmse", "test/task2/auroc"} <= trainer.callback_metrics.keys()


def test_long_rows_are_labelled_for_one_task():
    data = fitted(numeric(*range(1, 8)), layout="long")
    data.setup("fit")
    for batch in data.train_dataloader():
        masks = torch.stack([batch["labelled"][n] for n in batch["targets"]])
        assert torch.all(masks.sum(0) == 1)


def test_a_known_schema_is_not_learned_again():
    first = fitted(numeric(1))
    again = MultiTabBench(first.tasks, **SMALL, schema=first.schema)
    assert again.fitted
    assert torch.equal(rows(again, "val")[0], rows(first, "val")[0])


def test_without_validation():
    data = fitted(numeric(1), val_size=0)
    data.setup("fit")
    assert data.val_dataloader() == []


def test_refusals():
    with pytest.raises(UnknownNameError, match="Did you mean task7"):
        MultiTabBench(numeric(77), **SMALL)
    with pytest.raises(ArgumentError, match="be a BinaryTarget"):
        MultiTabBench(numeric(1), **SMALL, kinds="binary")
    with pytest.raises(ArgumentError, match="train_size"):
        MultiTabBench(numeric(1), train_size=0)
    with pytest.raises(ArgumentError, match="smallest eigenvalue"):
        MultiTabBench(numeric(1), correlation=-0.5)
