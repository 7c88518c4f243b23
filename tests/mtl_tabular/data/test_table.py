"""A table becomes features, tasks and batches; bad tables are refused by name."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from toy_tables import long_frame, long_tasks, wide_frame, wide_tasks, write_wide_csv
from toys import toy_trainer

from mtl_core.data.multi_source import MultiSource
from mtl_core.errors import (
    ArgumentError,
    EmptySplitError,
    LabelError,
    MissingTaskError,
    UnknownNameError,
)
from mtl_core.modules import MultiTaskModule
from mtl_core.tasks import Regression
from mtl_tabular.data import ColumnError, TableDataModule
from mtl_tabular.networks import SharedBottom
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, NumericTarget


def fitted(table, tasks=None, **options) -> TableDataModule:
    data = TableDataModule(wide_tasks() if tasks is None else tasks, table=table, **options)
    data.fit()
    return data


def ready(table, tasks=None, *, stage="fit", **options) -> TableDataModule:
    data = fitted(table, tasks, **options)
    data.setup(stage)
    return data


def joined(loader) -> dict[str, torch.Tensor]:
    """All batches of a loader whose rows are all labelled, one after the other."""
    batches = list(loader)
    parts = {"numeric": [b["inputs"]["numeric"] for b in batches]}
    for name in batches[0]["targets"]:
        parts[name] = [b["targets"][name] for b in batches]
    return {name: torch.cat(tensors) for name, tensors in parts.items()}


def test_columns_become_features_and_targets():
    frame = wide_frame()
    data = ready(frame, batch_size=32)
    assert data.schema.names == ("city", "member", "age", "income")
    assert data.tasks["kind"].classes == ("a", "b", "c")
    batch = next(iter(data.train_dataloader()))
    assert batch["inputs"]["numeric"].shape == (32, 2)
    assert batch["inputs"]["categorical"].dtype == torch.int64
    assert {n: t.dtype for n, t in batch["targets"].items()} == {
        "click": torch.float32,
        "kind": torch.int64,
        "price": torch.float32,
    }
    assert list(batch["targets"]) == list(data.tasks)
    assert "labelled" not in batch
    assert "keys" not in batch
    assert all(t.is_contiguous() for t in batch["targets"].values())


def test_splits_are_the_rows_of_the_table_each_once():
    frame = wide_frame()
    data = ready(frame, stage=None, batch_size=16)
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    sizes = [len(joined(loader)["price"]) for loader in loaders]
    assert sizes == [140, 30, 30]
    prices = torch.cat([joined(loader)["price"] for loader in loaders])
    torch.testing.assert_close(
        prices.sort().values, torch.tensor(np.sort(frame["price"]), dtype=torch.float32)
    )


def test_targets_stay_with_their_rows():
    frame = wide_frame().assign(row=range(200))
    data = ready(frame, batch_size=16)
    rows = joined(data.train_dataloader())
    names = [c.name for c in data.schema.numeric]
    column = data.schema.numeric[names.index("row")]
    numbers = rows["numeric"][:, names.index("row")] * column.std + column.mean
    found = frame.loc[numbers.round().long().tolist()]
    np.testing.assert_allclose(found["price"], rows["price"], rtol=1e-6)
    np.testing.assert_array_equal(found["click"], rows["click"])
    np.testing.assert_array_equal(found["kind"].map({"a": 0, "b": 1, "c": 2}), rows["kind"])


def test_missing_labels_have_a_mask_where_they_occur():
    data = ready(wide_frame(missing=True), batch_size=64)
    batch = next(iter(data.train_dataloader()))
    assert list(batch["labelled"]) == ["kind"]
    labelled = batch["labelled"]["kind"]
    assert labelled.dtype == torch.bool
    assert 0 < int(labelled.sum()) < 64
    assert bool(batch["inputs"]["numeric"].isnan().any())


def test_batch_without_a_label_of_a_task_lacks_its_target():
    frame = wide_frame().assign(kind=lambda f: f["kind"].where(f.index < 3))
    data = ready(frame, val=frame, test_fraction=0, batch_size=8)
    batches = list(data.val_dataloader())
    assert "kind" in batches[0]["targets"]
    assert "kind" not in batches[1]["targets"]
    assert "kind" not in batches[1].get("labelled", {})


def test_only_training_rows_are_learned_from():
    """Whatever validation and test rows hold."""
    frame = wide_frame()
    data = fitted(frame)
    held = data._assign(frame) != 0
    changed = frame.copy()
    changed.loc[held, ["age", "income", "price"]] = 1e6
    changed.loc[held, "city"] = "Mars"
    again = fitted(changed)
    assert again.schema == data.schema
    assert again.tasks == data.tasks


def test_split_is_stratified_by_classes():
    frame = wide_frame(400)
    data = ready(frame, batch_size=1000)
    for name in ("train", "val"):
        batch = next(iter(getattr(data, f"{name}_dataloader")()))
        share = float((batch["targets"]["kind"] == 1).float().mean())
        assert share == pytest.approx((frame["kind"] == "b").mean(), abs=0.02)


def test_groups_are_kept_together():
    frame = wide_frame().assign(user=np.arange(200) // 8)
    data = ready(frame, group="user")
    assert "user" not in data.schema.names
    parts = data._assign(frame)
    assert (
        pd.DataFrame({"user": frame["user"], "part": parts}).groupby("user").nunique().max()["part"]
        == 1
    )


def test_own_tables_of_splits_keep_the_whole_table_for_training():
    frame = wide_frame()
    data = ready(frame, val=wide_frame(50, seed=1), test=wide_frame(40, seed=2), stage=None)
    sizes = [len(data.prepared(split)) for split in ("train", "val", "test", "predict")]
    assert sizes == [200, 50, 40, 40]


def test_training_without_validation():
    data = ready(wide_frame(), val_fraction=0.0, test_fraction=0.0)
    assert len(data.prepared("train")) == 200
    assert data.val_dataloader() == []


def test_fit_without_validation_is_silent_and_leaves_the_trainer_as_it_was():
    """Warnings are errors here; the trainer then validates on other rows."""
    data = fitted(wide_frame(), val_fraction=0.0, test_fraction=0.0, batch_size=100)
    module = MultiTaskModule(data.tasks, partial(SharedBottom, schema=data.schema))
    trainer = toy_trainer(max_epochs=1)
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 2
    assert not [name for name in trainer.callback_metrics if name.startswith("val")]
    assert trainer.limit_val_batches == 1.0
    later = TableDataModule(data.tasks, val=wide_frame(50, seed=1), schema=data.schema)
    (scores,) = trainer.validate(module, datamodule=later, verbose=False)
    assert "val/price/rmse" in scores


def test_validation_is_left_on_where_there_are_rows():
    data = fitted(wide_frame(), batch_size=100)
    module = MultiTaskModule(data.tasks, partial(SharedBottom, schema=data.schema))
    trainer = toy_trainer(max_epochs=1)
    trainer.fit(module, datamodule=data)
    assert "val/price/rmse" in trainer.callback_metrics


def test_task_may_learn_from_a_column_of_any_name():
    frame = wide_frame().rename(columns={"price": "keys"})
    with pytest.raises(ArgumentError, match="column='keys'"):
        TableDataModule({"keys": NumericTarget()}, table=frame)
    data = fitted(frame, {"price": NumericTarget(column="keys")}, ignore=["click", "kind"])
    assert data.tasks["price"].mean == pytest.approx(frame["keys"].mean(), rel=0.1)


def test_fit_is_a_noop_where_all_is_known():
    data = fitted(wide_frame())
    other = TableDataModule(data.tasks, table=wide_frame(100, seed=9), schema=data.schema)
    other.fit()
    assert (other.schema, other.tasks) == (data.schema, data.tasks)


def test_known_schema_and_tasks_need_no_training_table():
    data = fitted(wide_frame())
    frame = wide_frame(30, seed=1)
    later = TableDataModule(data.tasks, test=frame, schema=data.schema, batch_size=16)
    later.fit()
    later.setup("test")
    assert len(joined(later.test_dataloader())["price"]) == 30
    with pytest.raises(ArgumentError, match="table must be a path or a frame"):
        later.setup("fit")


def test_setup_before_fit_is_refused():
    data = TableDataModule(wide_tasks(), table=wide_frame())
    with pytest.raises(ArgumentError, match=r"fit\(\)"):
        data.setup("fit")


def test_prediction_needs_no_targets_and_any_order_of_columns():
    data = fitted(wide_frame())
    frame = wide_frame(20, seed=1)
    features = frame[["member", "income", "city", "age"]].assign(extra="x")
    batches = {}
    for form, table in {"complete": frame, "features": features}.items():
        later = TableDataModule(data.tasks, predict=table, schema=data.schema, batch_size=8)
        later.setup("predict")
        batches[form] = list(later.predict_dataloader())
    assert [b["keys"] for b in batches["features"]][1] == [str(i) for i in range(8, 16)]
    for a, b in zip(*batches.values(), strict=True):
        assert a["targets"] == b["targets"] == {}
        assert torch.equal(a["inputs"]["numeric"], b["inputs"]["numeric"])
        assert torch.equal(a["inputs"]["categorical"], b["inputs"]["categorical"])


def test_keys_are_row_numbers_of_the_table(tmp_path):
    path = write_wide_csv(tmp_path / "a.csv")
    data = ready(path, stage="predict")
    keys = next(iter(data.predict_dataloader()))["keys"]
    assert keys == [str(i) for i in np.flatnonzero(data._assign(wide_frame()) == 2)]


def test_column_names_need_not_be_identifiers():
    frame = wide_frame().rename(columns={"price": "my col.1", "age": "my col"})
    data = ready(frame, {"price": NumericTarget(column="my col.1")}, ignore=["click", "kind"])
    assert "my col" in data.schema.names
    assert data.tasks["price"].column == "my col.1"


def test_long_table_has_a_task_a_level():
    frame = long_frame()
    data = ready(frame, long_tasks(), task_column="site", batch_size=64)
    assert list(data.tasks) == ["score_0", "score_1", "score_2", "score_3"]
    assert data.schema.names == ("x0", "x1")
    assert len({(t.mean, t.std) for t in data.tasks.values()}) == 1
    batch = next(iter(data.train_dataloader()))
    masks = torch.stack(list(batch["labelled"].values()))
    assert (masks.sum(0) == 1).all()
    values = torch.stack(list(batch["targets"].values()))
    assert (values[~masks] == 0).all()


def test_long_targets_stay_with_their_rows():
    frame = long_frame().assign(row=range(240))
    data = ready(frame, long_tasks(), task_column="site", batch_size=64)
    names = [c.name for c in data.schema.numeric]
    column = data.schema.numeric[names.index("row")]
    for batch in data.train_dataloader():
        numbers = batch["inputs"]["numeric"][:, names.index("row")] * column.std + column.mean
        found = frame.loc[numbers.round().long().tolist()]
        for name, mask in batch["labelled"].items():
            np.testing.assert_array_equal(mask, found["site"] == int(data.tasks[name].level))
            expected = torch.tensor(found["score"].to_numpy()).float()
            assert torch.equal(batch["targets"][name][mask], expected[mask])


def test_levels_come_in_the_order_of_numbers_and_are_named():
    frame = long_frame(sites=12)
    data = fitted(frame, long_tasks(), task_column="site")
    assert list(data.tasks)[:3] == ["score_0", "score_1", "score_2"]
    assert list(data.tasks)[-1] == "score_11"
    named = frame.assign(site=frame["site"].map(lambda s: f"plant {s}/b"))
    tasks = fitted(named, long_tasks(), task_column="site").tasks
    assert "score_plant_3_b" in tasks
    assert tasks["score_plant_3_b"].level == "plant 3/b"


def test_long_split_has_every_task_everywhere():
    data = ready(long_frame(), long_tasks(), task_column="site", stage=None)
    for split in ("train", "val", "test"):
        assert set(data.prepared(split).dataset.counts.values()) <= {42, 9}


def test_long_tasks_of_several_kinds_and_levels():
    """Declared levels next to a template, each encoded by its own record."""
    frame = long_frame()
    frame["answer"] = np.where(
        frame["site"] == 0, "yes", np.where(frame["site"] == 1, "2.5", frame["score"].astype(str))
    )
    frame.loc[(frame["site"] == 0) & (frame["x0"] > 0), "answer"] = "no"
    tasks = {
        "agreed": BinaryTarget(column="answer", level="0"),
        "amount": NumericTarget(column="answer"),
    }
    with pytest.warns(UserWarning, match="nothing to learn"):
        TableDataModule(tasks, table=frame[frame["site"] == 1], task_column="site")._fit_tasks(
            frame[frame["site"] <= 1].assign(site=lambda f: f["site"])
        )
    data = ready(frame, tasks, task_column="site", ignore=["score"], batch_size=64)
    assert list(data.tasks) == ["agreed", "amount_1", "amount_2", "amount_3"]
    assert data.tasks["agreed"].classes == ("no", "yes")
    batch = next(iter(data.train_dataloader()))
    assert set(batch["targets"]["agreed"].unique().tolist()) <= {0.0, 1.0}
    amounts = batch["targets"]["amount_1"][batch["labelled"]["amount_1"]]
    assert (amounts == 2.5).all()


def test_levels_that_training_lacks_are_named():
    data = fitted(long_frame(), long_tasks(), task_column="site")
    strange = long_frame(20, sites=5)
    later = TableDataModule(data.tasks, test=strange, schema=data.schema, task_column="site")
    with pytest.raises(ColumnError, match=r"'site'.*\(0, 1, 2, 3\), found 4 in rows"):
        later.setup("test")
    empty = long_frame().astype({"site": object})
    empty.loc[7, "site"] = None
    with pytest.raises(ColumnError, match=r"every row.*\[7\]"):
        fitted(empty, long_tasks(), task_column="site")


def test_long_data_of_another_source_predicts_without_the_task_column():
    data = fitted(long_frame(), long_tasks(), task_column="site")
    later = TableDataModule(
        data.tasks, predict=long_frame(9)[["x1", "x0"]], schema=data.schema, task_column="site"
    )
    later.setup("predict")
    assert len(next(iter(later.predict_dataloader()))["keys"]) == 9


def test_one_row_batches_and_one_row_tables():
    data = ready(wide_frame(), batch_size=139)
    sizes = [len(b["targets"]["price"]) for b in data.train_dataloader()]
    assert sizes == [139, 1]
    later = TableDataModule(data.tasks, test=wide_frame(1), schema=data.schema)
    later.setup("test")
    assert joined(later.test_dataloader())["click"].shape == (1,)
    with pytest.raises(EmptySplitError, match="val"):
        ready(wide_frame(1), {"price": NumericTarget(mean=1.0)}, ignore=["click", "kind"])


def test_unseen_classes():
    frame = wide_frame()
    data = fitted(frame)
    strange = wide_frame(20, seed=1)
    strange.loc[3, "kind"] = "z"
    options = {"test": strange, "schema": data.schema}
    with pytest.raises(LabelError, match=r"'kind'.*\(a, b, c\).*'z'.*rows 3"):
        TableDataModule(data.tasks, **options).setup("test")
    later = TableDataModule(data.tasks, **options, unseen_classes="unlabelled")
    with pytest.warns(UserWarning, match="1 rows of task 'kind' count as unlabelled.* z"):
        later.setup("test")
    batch = next(iter(later.test_dataloader()))
    assert (~batch["labelled"]["kind"]).nonzero().flatten().tolist() == [3]


def test_unseen_classes_of_given_ones_in_training():
    tasks = {"kind": MulticlassTarget(classes=("a", "b"))}
    options = {"ignore": ["click", "price"]}
    with pytest.raises(LabelError, match="'c'"):
        fitted(wide_frame(), tasks, **options)
    with pytest.warns(UserWarning, match="count as unlabelled"):
        data = fitted(wide_frame(), tasks, **options, unseen_classes="unlabelled")
    assert data.tasks["kind"].rows < 140


def test_task_without_labels():
    frame = wide_frame()
    data = fitted(frame)
    with pytest.raises(LabelError, match=r"'kind'.*at least one training row"):
        fitted(frame.assign(kind=None))
    options = {"schema": data.schema, "table": frame, "test_fraction": 0.0}
    later = TableDataModule(data.tasks, val=frame.assign(kind=None), **options)
    with pytest.warns(UserWarning, match=r"1 tasks have no label in split 'val'.*: kind\."):
        later.setup("fit")
    nothing = frame.assign(kind=None, click=None, price=None)
    later = TableDataModule(data.tasks, val=nothing, **options)
    with pytest.warns(UserWarning, match="3 tasks"), pytest.raises(MissingTaskError):
        later.setup("fit")
    later = TableDataModule(data.tasks, val=frame, **{**options, "table": frame.assign(kind=None)})
    with pytest.raises(MissingTaskError, match="'kind'"):
        later.setup("fit")


def test_constant_columns():
    frame = wide_frame().assign(price=3.0, age=5.0)
    with pytest.warns(UserWarning, match="'price' are all 3"):
        data = ready(frame)
    assert data.tasks["price"].std == 1.0
    rows = joined(data.train_dataloader())
    assert (rows["numeric"][:, 0] == 0).all()
    with pytest.raises(LabelError, match="two classes"):
        fitted(wide_frame().assign(click=1))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: f.assign(age=None), "'age' must hold at least one value"),
        (lambda f: f.assign(age=np.inf), r"'age'.*finite.*rows \["),
        (lambda f: f.assign(age=pd.Timestamp("2020-01-01")), "'age'.*dates"),
        (lambda f: f.assign(age=[[1]] * len(f)), r"'age'.*list \[1\]"),
        (lambda f: pd.concat([f, f[["age"]]], axis=1), "'age' more than once"),
        (lambda f: f.drop(columns="price"), "target column.*'price'"),
        (lambda f: f.rename(columns={"price": "pric"}), "Did you mean pric"),
        (lambda f: f[["click", "kind", "price"]], "at least one feature"),
    ],
)
def test_bad_training_tables_are_refused(change, match):
    with pytest.raises(ColumnError, match=match):
        fitted(change(wide_frame()))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda f: f.drop(columns="age"), ColumnError, "feature column.*'age'"),
        (lambda f: f.rename(columns={"income": "incomes"}), ColumnError, "Did you mean incomes"),
        (lambda f: f.assign(age="old"), ColumnError, r"'age'.*'old'.*rows \[0, 1"),
        (lambda f: f.assign(age=np.inf), ColumnError, "'age'.*finite"),
        (lambda f: f.assign(price="dear"), LabelError, r"'price'.*dear.*rows \[0, 1"),
        (lambda f: f.assign(price=-np.inf), LabelError, "'price'.*finite"),
        (lambda f: f.iloc[:0], EmptySplitError, "'test'"),
    ],
)
def test_bad_test_tables_are_refused(change, error, match):
    data = fitted(wide_frame())
    later = TableDataModule(data.tasks, test=change(wide_frame(9)), schema=data.schema)
    with pytest.raises(error, match=match):
        later.setup("test")


def test_empty_training_table():
    with pytest.raises(EmptySplitError, match="train"):
        fitted(wide_frame().iloc[:0])


def test_features_hold_no_target_and_only_columns():
    frame = wide_frame()
    assert fitted(frame, features=["income", "city"]).schema.names == ("city", "income")
    with pytest.raises(ArgumentError, match=r"no target.*'price'"):
        fitted(frame, features=["age", "price"])
    with pytest.raises(ColumnError, match="Did you mean income"):
        fitted(frame, features=["incom"])
    for argument in ("ignore", "categorical"):
        with pytest.raises(UnknownNameError, match=argument):
            fitted(frame, **{argument: ["citi"]})
    assert "age" in {c.name for c in fitted(frame, categorical=["age"]).schema.categorical}


def test_arguments_are_checked():
    frame = wide_frame()
    for options, match in (
        ({"storage": "tape"}, "storage"),
        ({"unseen_classes": "guess"}, "unseen_classes"),
        ({"on_error": "skip"}, "on_error"),
        ({"val_fraction": 0.6, "test_fraction": 0.4}, "fraction"),
        ({"group": "nobody"}, "group"),
        ({"task_column": "nobody"}, "task_column"),
        ({"shuffle_block": -1}, "shuffle_block"),
    ):
        with pytest.raises((ArgumentError, UnknownNameError, ColumnError), match=match):
            ready(frame, **options).train_dataloader()
    with pytest.raises(ArgumentError, match="TargetColumn"):
        TableDataModule({"price": Regression()}, table=frame)
    with pytest.raises(ArgumentError, match="without task_column"):
        TableDataModule({"price": NumericTarget(level="1")}, table=frame)
    with pytest.raises(ArgumentError, match="table must be a path or a frame"):
        TableDataModule(wide_tasks()).fit()


def test_a_table_can_be_one_source_of_several():
    frame = wide_frame()
    tasks = fitted(frame).tasks
    schema = fitted(frame).schema
    data = MultiSource(
        tasks,
        sources={
            "one": lambda t: TableDataModule(t, table=frame, schema=schema),
            "two": lambda t: TableDataModule(t, table=wide_frame(seed=1), schema=schema),
        },
        batch_size=16,
    )
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert set(batch["tags"]["source"].tolist()) == {0, 1}
    assert batch["inputs"]["numeric"].shape == (16, 2)
