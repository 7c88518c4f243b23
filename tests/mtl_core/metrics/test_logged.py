import torch

from mtl_core.metrics.logged import logged_scores
from mtl_core.tasks import Classification, Regression

TASKS = {"kind": Classification(num_classes=2), "size": Regression(groups=("small",))}


def test_keys_are_sorted_by_task_and_other_stages_left_out():
    logged = {
        "val/size/small/mae": 1.0,
        "val/size/mae": torch.tensor(2.0),
        "val/kind/accuracy": 0.5,
        "train/kind/loss": 9.0,
        "val/loss": 3.0,
        "val/other/mae": 4.0,
    }
    found = logged_scores(logged, "val", TASKS)
    assert found == {"kind": {"accuracy": 0.5}, "size": {"small/mae": 1.0, "mae": 2.0}}
    assert list(found) == ["kind", "size"]
    assert logged_scores(logged, "test", TASKS) == {}
