import pytest
import torch

from mtl_tabular.boosting.scores import labelled_scores, summary
from mtl_tabular.tasks import BinaryTarget, NumericTarget

TASKS = {
    "a": NumericTarget(column="y", level="a", mean=10.0, std=2.0, rows=4),
    "b": NumericTarget(column="y", level="b", mean=-5.0, std=3.0, rows=4),
}
LABELLED = {
    "a": (torch.tensor([[0.0], [1.0], [-1.0]]), torch.tensor([10.0, 13.0, 8.0])),
    "b": (torch.tensor([[0.0], [2.0]]), torch.tensor([-5.0, -2.0])),
}


def test_scores_are_in_the_targets_unit():
    scores = labelled_scores(TASKS, LABELLED)
    assert scores["a"]["mae"] == pytest.approx(1 / 3)
    assert scores["b"]["mae"] == pytest.approx(3 / 2)


def test_overall_weighs_rows_and_mean_weighs_tasks():
    found = summary(TASKS, LABELLED, labelled_scores(TASKS, LABELLED))
    assert found.overall["mae"] == pytest.approx(4 / 5)
    assert found.mean["mae"] == pytest.approx((1 / 3 + 3 / 2) / 2)
    assert found.worst["mae"] == pytest.approx(3 / 2)
    assert found.worst_task in TASKS


def test_tasks_of_several_kinds_have_nothing_in_common():
    tasks = {"a": TASKS["a"], "sold": BinaryTarget(classes=("0", "1"), rows=4)}
    labelled = {"a": LABELLED["a"], "sold": (torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0]))}
    found = summary(tasks, labelled, labelled_scores(tasks, labelled))
    assert found.overall == found.mean == found.worst == {}
