"""What every kind of target column keeps."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mtl_core.errors import ArgumentError, LabelError
from mtl_core.rebuild import describe_tasks
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, NumericTarget

COLUMNS = {
    "binary": (BinaryTarget(), pd.Series(["no", "yes", None, "no"])),
    "multiclass": (MulticlassTarget(), pd.Series([3.0, 10.0, np.nan, 3.0])),
    "numeric": (NumericTarget(), pd.Series([1.0, 5.0, np.nan, 3.0])),
}
EVERY = pytest.mark.parametrize(("task", "values"), COLUMNS.values(), ids=COLUMNS)


@EVERY
def test_fit_counts_labelled_rows_and_keeps_what_was_given(task, values):
    given = replace(task, weight=2.0, column="c d.1", level="x")
    fitted = given.fit("t", values)
    assert (fitted.fitted, given.fitted) == (True, False)
    assert fitted.rows == 3
    assert (fitted.weight, fitted.column, fitted.level) == (2.0, "c d.1", "x")
    assert fitted.fit("t", values) == fitted
    assert hash(fitted) == hash(given.fit("t", values))


@EVERY
def test_encoded_targets_pass_the_task_and_missing_ones_are_zero(task, values):
    fitted = task.fit("t", values)
    targets, labelled = fitted.encode("t", values)
    assert labelled.tolist() == [True, True, False, True]
    assert targets[2] == 0
    fitted.check(torch.from_numpy(targets))
    empty = fitted.encode("t", values[:0])
    assert (len(empty[0]), empty[0].dtype) == (0, targets.dtype)


@EVERY
def test_loss_is_per_row_with_finite_gradient(task, values):
    fitted = task.fit("t", values)
    target = torch.from_numpy(fitted.encode("t", values)[0])
    prediction = (100 * torch.randn(4, fitted.out_channels)).requires_grad_()

    def loss_of(rows):
        valid = fitted.valid(target[:rows])
        return fitted.element_loss(prediction[:rows], target[:rows], valid).flatten()

    assert loss_of(4).shape == (4,)
    torch.testing.assert_close(loss_of(1), loss_of(4)[:1])
    loss_of(4).sum().backward()
    assert prediction.grad.isfinite().all()


@EVERY
def test_primary_metric_is_one_of_the_metrics(task, values):
    fitted = task.fit("t", values)
    assert fitted.primary in fitted.metrics()
    assert fitted.higher_is_better()[fitted.primary]


@EVERY
def test_unlabelled_columns_are_refused(task, values):
    with pytest.raises(LabelError, match=r"'t'.*at least one training row"):
        task.fit("t", pd.Series([None, None], dtype=object))


@EVERY
def test_fitted_records_are_plain_data(task, values):
    fitted = task.fit("t", values)
    plain = describe_tasks({"t": fitted})["t"]
    arguments = plain["init_args"]
    again = type(fitted)(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    )
    assert again == fitted


def test_rows_are_checked():
    with pytest.raises(ArgumentError, match="rows"):
        NumericTarget(rows=-1)


@pytest.mark.parametrize(
    "task",
    [BinaryTarget(classes=("n", "y")), MulticlassTarget(classes=("a", "b")), NumericTarget()],
    ids=lambda task: type(task).__name__,
)
def test_readouts_name_column_and_level_where_the_record_does(task):
    assert "column" not in task.readout()
    found = replace(task, column="How much?", level="Oslo").readout()
    assert (found["column"], found["level"]) == ("How much?", "Oslo")
