import numpy as np
import pandas as pd
import pytest

from mtl_core.errors import ArgumentError, LabelError
from mtl_tabular.data.columns import ColumnError
from mtl_tabular.data.long import fit_long, level_texts
from mtl_tabular.tasks import BinaryTarget, NumericTarget

ROWS = pd.DataFrame(
    {
        "shop": ["b 1", "a", "a", "b 1", "10", "2"],
        "sales": [1.0, 3.0, 5.0, 7.0, None, 11.0],
        "open": [0, 1, 1, 0, 1, 0],
    }
)


def test_templates_become_a_task_a_level_in_the_order_of_levels():
    """Numbers by value, then text; names are identifiers."""
    fitted = fit_long({"open": BinaryTarget()}, ROWS, "shop")
    assert list(fitted) == ["open_2", "open_10", "open_a", "open_b_1"]
    assert [task.level for task in fitted.values()] == ["2", "10", "a", "b 1"]
    assert all(task.column == "open" and task.classes == ("0", "1") for task in fitted.values())
    assert [task.rows for task in fitted.values()] == [1, 1, 2, 2]


def test_levels_of_a_template_share_mean_and_spread():
    rows = ROWS[ROWS["shop"] != "10"]
    fitted = fit_long({"sales": NumericTarget()}, rows, "shop")
    ((mean, std),) = {(task.mean, task.std) for task in fitted.values()}
    values = rows["sales"].to_numpy()
    assert (mean, std) == (pytest.approx(values.mean()), pytest.approx(values.std()))


def test_a_record_with_a_level_learns_from_its_rows_and_leaves_the_template():
    tasks = {"sales": NumericTarget(), "main": NumericTarget(column="sales", level="a")}
    fitted = fit_long(tasks, ROWS[ROWS["shop"] != "10"], "shop")
    assert list(fitted) == ["sales_2", "sales_b_1", "main"]
    assert (fitted["main"].mean, fitted["main"].rows) == (4.0, 2)


def test_whole_numbers_are_the_same_level_in_any_type():
    texts = [level_texts(pd.Series(v)).tolist() for v in ([1, 2], [1.0, 2.0], ["1", "2"])]
    assert texts == [["1", "2"]] * 3


def test_mistakes_are_named():
    with pytest.raises(LabelError, match="sales_10"):
        fit_long({"sales": NumericTarget()}, ROWS, "shop")
    with pytest.raises(ColumnError, match="rows \\[1\\]"):
        level_texts(pd.Series(["a", None], name="shop"))
    twins = pd.DataFrame({"shop": ["a b", "a_b"], "sales": np.arange(2.0)})
    with pytest.raises(ArgumentError, match="a name of its own"):
        fit_long({"sales": NumericTarget()}, twins, "shop")
