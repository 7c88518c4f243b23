import math
import multiprocessing
from dataclasses import replace

import pytest
from result_tables import item_rows, score_rows, table_of

from mtl_core.callbacks import results
from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.stats.table import COLUMNS, Row, Table, append_rows

ROWS = score_rows({"sum": 0.0, 'odd, "name"': 0.1}, seeds=[3, None])


def test_columns_are_those_that_the_callback_writes():
    assert COLUMNS == results.COLUMNS


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_is_written_is_read(tmp_path, suffix):
    table = table_of([*ROWS, replace(ROWS[0], value=math.inf, seed=8)])
    table.write(tmp_path / f"results.{suffix}")
    assert Table.read(tmp_path / f"results.{suffix}") == table


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_appending_in_parts_is_writing_at_once(tmp_path, suffix):
    path = tmp_path / f"results.{suffix}"
    append_rows(path, ROWS[:3])
    append_rows(path, [])
    append_rows(path, ROWS[3:])
    assert Table.read(path).rows == tuple(ROWS)


def test_rows_of_the_callback_are_read(tmp_path):
    """Also NaN, and the value of one group of samples, which has the group as its block."""
    from mtl_core.tasks import Classification

    tasks = {"left": Classification(num_classes=3)}
    scores = {"left": {"accuracy": 0.5, "night/accuracy": 0.25, "f1": math.nan}}
    lines = results.csv_lines(
        results.result_rows(scores, tasks, method="UW", split="val", seed=1, plan_hash="ab")
    )
    path = tmp_path / "results.csv"
    path.write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")
    table = Table.read(path)
    assert table.rows[0] == Row("UW", "left", "accuracy", 0.5, True, 1, "val", "", "", "ab")
    assert table.by_seed("UW", "left", "accuracy", "val") == {1: 0.5}
    assert table.by_seed("UW", "left", "f1", "val") == {}


def _append(path, number):
    rows = [replace(row, seed=number) for row in ROWS[:2]]
    for _ in range(20):
        append_rows(path, rows)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_processes_append_at_once(tmp_path, suffix):
    path = tmp_path / f"results.{suffix}"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append, args=(path, i)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    rows = Table.read(path).rows
    assert len(rows) == 3 * 20 * 2
    # No block of rows is torn apart.
    assert all(rows[i].seed == rows[i + 1].seed for i in range(0, len(rows), 2))


def test_a_line_cut_short_is_cut_off_by_the_next_append(tmp_path):
    path = tmp_path / "results.csv"
    append_rows(path, ROWS[:2])
    with path.open("a") as file:
        file.write("sum,left,accu")
    with pytest.raises(ArgumentError, match="line 4"):
        Table.read(path)
    append_rows(path, ROWS[2:])
    assert Table.read(path).rows == tuple(ROWS)


def test_a_last_line_without_its_end_stays(tmp_path):
    path = tmp_path / "results.csv"
    append_rows(path, ROWS[:2])
    path.write_text(path.read_text().rstrip("\n"))
    append_rows(path, ROWS[2:])
    assert Table.read(path).rows == tuple(ROWS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("method,task", "method,job", "columns"),
        (",True,", ",perhaps,", "higher_is_better in line 2"),
        (",3,test", ",three,test", "value in line 2"),
        ("sum,left", ",left", "method in line 2"),
        ("sum,left,accuracy", "sum,left", "have 10 values"),
    ],
)
def test_other_files_are_refused(tmp_path, old, new, message):
    path = tmp_path / "results.csv"
    append_rows(path, ROWS[:1])
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ArgumentError, match=message):
        Table.read(path)


def test_absent_and_unknown_files(tmp_path):
    with pytest.raises(ArgumentError, match="be a file"):
        Table.read(tmp_path / "none.csv")
    with pytest.raises(ArgumentError, match="end in"):
        append_rows(tmp_path / "results.txt", ROWS)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ArgumentError, match="columns"):
        append_rows(tmp_path / "other.csv", ROWS)
    assert (tmp_path / "other.csv").read_text() == "a,b\n1,2\n"


def test_directions_must_agree():
    with pytest.raises(ArgumentError, match="higher_is_better"):
        table_of([ROWS[0], replace(ROWS[0], seed=9, higher_is_better=False)])


def test_by_seed_and_item():
    table = table_of([*ROWS, *item_rows({"sum": 0.5}, items=4)])
    assert set(table.by_seed("sum", "left", "accuracy", "test")) == {3, None}
    assert set(table.by_item("sum", "left", "accuracy", "test")[0]) == {
        f"item{i}" for i in range(4)
    }
    assert table.by_seed("sum", "left", "accuracy", "val") == {}
    assert table.methods == ("sum", 'odd, "name"')
    assert not table.higher_is_better("right", "error")
    with pytest.raises(UnknownNameError, match="right/error"):
        table.higher_is_better("right", "eror")


def test_a_measurement_that_occurs_twice_is_refused():
    twice = table_of([*ROWS, ROWS[0]])
    with pytest.raises(ArgumentError, match="seed 3 twice"):
        twice.by_seed("sum", "left", "accuracy", "test")
    items = item_rows({"sum": 0.5}, items=2)
    with pytest.raises(ArgumentError, match="item0 of seed 0 twice"):
        table_of([*items, items[0]]).by_item("sum", "left", "accuracy", "test")


def test_select():
    table = table_of([*ROWS, replace(ROWS[0], split="val", seed=7)])
    assert [row.seed for row in table.select(split="val").rows] == [7]
    assert {row.task for row in table.select(tasks=["right"]).rows} == {"right"}
