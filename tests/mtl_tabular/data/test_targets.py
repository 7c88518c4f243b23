import numpy as np
import pandas as pd
import pytest
from toy_tables import long_frame, long_tasks, wide_frame, wide_tasks

from mtl_core.errors import LabelError
from mtl_tabular.data.long import fit_long
from mtl_tabular.data.targets import TargetLayout, known_classes

WIDE = wide_frame(40, missing=True)
TASKS = {name: task.fit(name, WIDE[name]) for name, task in wide_tasks().items()}


def test_what_is_encoded_comes_back_by_task():
    layout = TargetLayout(TASKS, "", "raise")
    targets, masks = layout.batch(layout.encode(WIDE))
    assert list(targets) == list(TASKS)
    assert list(masks) == ["kind"]
    assert targets["click"].tolist() == WIDE["click"].tolist()
    np.testing.assert_allclose(targets["price"], WIDE["price"], rtol=1e-6)
    classes = np.array(TASKS["kind"].classes)[targets["kind"]]
    known = masks["kind"].numpy()
    assert classes[known].tolist() == WIDE["kind"][known].tolist()
    assert (known == WIDE["kind"].notna()).all()


def test_tasks_of_a_long_table_share_one_stored_column():
    frame = long_frame(60, sites=5)
    layout = TargetLayout(fit_long(long_tasks(), frame, "site"), "site", "raise")
    arrays = layout.encode(frame)
    assert arrays["numbers"].shape == (60, 1)
    targets, masks = layout.batch(arrays)
    for site in range(5):
        rows = masks[f"score_{site}"].numpy()
        assert (rows == (frame["site"] == site)).all()
        expected = frame["score"].to_numpy()[rows]
        np.testing.assert_allclose(targets[f"score_{site}"][rows], expected, rtol=1e-6)


def test_a_batch_without_rows_of_a_task_lacks_it():
    frame = long_frame(60, sites=5)
    layout = TargetLayout(fit_long(long_tasks(), frame, "site"), "site", "raise")
    targets, _ = layout.batch(layout.encode(frame[frame["site"].isin([1, 3])]))
    assert list(targets) == ["score_1", "score_3"]


@pytest.mark.parametrize("long", [False, True])
def test_counts_are_those_of_the_labels(long):
    frame = long_frame(60, sites=5) if long else WIDE
    tasks = fit_long(long_tasks(), frame, "site") if long else TASKS
    layout = TargetLayout(tasks, "site" if long else "", "raise")
    expected = {name: task.rows for name, task in tasks.items()}
    assert layout.counts(layout.encode(frame)) == expected


def test_classes_of_no_training_row_are_named_or_left_out():
    odd = WIDE.assign(kind=["z", *WIDE["kind"][1:]])
    with pytest.raises(LabelError, match="'z'"):
        TargetLayout(TASKS, "", "raise").encode(odd)
    with pytest.warns(UserWarning, match="1 rows of task 'kind' count as unlabelled"):
        arrays = TargetLayout(TASKS, "", "unlabelled").encode(odd)
    plain = TargetLayout(TASKS, "", "raise").encode(WIDE.assign(kind=[None, *WIDE["kind"][1:]]))
    for name, array in plain.items():
        assert np.array_equal(arrays[name], array)


def test_known_classes_leave_a_clean_column_alone():
    values = pd.Series(["a", None, "b"])
    assert known_classes("kind", TASKS["kind"], values) is values
