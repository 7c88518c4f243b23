from result_tables import make_plan, score_rows, table_of

from mtl_core.stats.costs import costs
from mtl_core.stats.table import Row


def cost_rows(method: str, task: str, key: str, values: list[float]) -> list[Row]:
    return [
        Row(method, task, f"cost/{key}", v, False, seed, "test", "", str(seed))
        for seed, v in enumerate(values)
    ]


def test_none_were_recorded():
    assert costs(table_of(score_rows({"sum": 0.0})), make_plan()) == []


def test_means_with_intervals_and_columns_that_anyone_has():
    rows = cost_rows("sum", "all", "cpu_seconds", [10, 12, 11])
    rows += [Row("famo", "all", "cost/macs", 1.5e6, False, None, "test")]
    found = {
        c.method: {k.title: k.text for k in c.columns} for c in costs(table_of(rows), make_plan())
    }
    assert found == {
        "sum": {"CPU seconds a run": "11 ± 2", "MACs a sample": "–"},
        "famo": {"CPU seconds a run": "–", "MACs a sample": "1.50 M"},
    }


def test_single_networks_add_up_and_share_no_memory():
    rows = cost_rows("single", "left", "cpu_seconds", [10, 10])
    rows += cost_rows("single", "right", "cpu_seconds", [5, 5, 5])
    rows += cost_rows("single", "left", "peak_mib", [100.0])
    rows += cost_rows("single", "right", "peak_mib", [300.0])
    (single,) = costs(table_of(rows), make_plan(single=True))
    assert [c.text for c in single.columns] == ["15 ± 0", "≈ 3e+02"]
