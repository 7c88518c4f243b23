"""The long table of results: one row a measurement, as CSV or Parquet."""

import csv
import fcntl
import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from mtl_core.atomic import append_line_block, atomic_write
from mtl_core.errors import ArgumentError, UnknownNameError


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        method: what was measured; ``single`` is the network of one task.
        task: its name; ``all`` for what belongs to no single task.
        metric: its name.
        value: in the metric's unit; NaN where there is none.
        higher_is_better: direction of the metric.
        seed: of the training; None where the run had none.
        split: of the data, ``val`` or ``test``.
        example: test item, empty for the value over all of them.
        block: of the trial plan, or group of samples that the value is about; may be empty.
        plan_hash: of the plan under which it was measured; may be empty.
    """

    method: str
    task: str
    metric: str
    value: float
    higher_is_better: bool
    seed: int | None
    split: str
    example: str = ""
    block: str = ""
    plan_hash: str = ""


COLUMNS = tuple(field.name for field in fields(Row))
"""Header of the table."""

TRUTH = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class Table:
    """Rows of results, in the order in which they were measured.

    >>> rows = [Row("sum", "left", "accuracy", 0.9 + seed / 100, True, seed, "test")
    ...         for seed in (0, 1)]
    >>> Table(tuple(rows)).by_seed("sum", "left", "accuracy", "test")
    {0: 0.9, 1: 0.91}

    Raises:
        ArgumentError: rows of one task and metric differ in direction.
    """

    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        seen: dict[tuple[str, str], bool] = {}
        for row in self.rows:
            if seen.setdefault((row.task, row.metric), row.higher_is_better) != (
                row.higher_is_better
            ):
                rule = "be the same in all rows of a task's metric"
                raise ArgumentError("higher_is_better", rule, f"both for {row.task}/{row.metric}")

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read a file; its name says whether it is CSV or Parquet.

        Raises:
            ArgumentError: there is no such file, a column is missing or unknown, or a value is not
                what its column holds.
        """
        path = Path(path)
        if not path.is_file():
            raise ArgumentError("the table of results", "be a file", str(path))
        if _parquet(path):
            from pyarrow import parquet

            raw = parquet.read_table(path)
            names, records = tuple(raw.column_names), raw.to_pylist()
            _check_columns(names, path)
            return cls(tuple(_row(r, f"row {i} of {path}") for i, r in enumerate(records, 1)))
        with path.open(newline="") as file:
            reader = csv.reader(file)
            _check_columns(tuple(next(reader, ())), path)
            found = []
            for values in reader:
                where = f"line {reader.line_num} of {path}"
                if len(values) != len(COLUMNS):
                    raise ArgumentError(where, f"have {len(COLUMNS)} values", values)
                found.append(_row(dict(zip(COLUMNS, values, strict=True)), where))
        return cls(tuple(found))

    def write(self, path: Path | str) -> None:
        """Write a new file in the place of any old one, complete or not at all.

        Raises:
            CheckpointWriteError: the system refused; the old file is intact.
        """
        path = Path(path)
        if _parquet(path):
            import pyarrow as pa
            from pyarrow import parquet

            kinds = {"value": pa.float64(), "higher_is_better": pa.bool_(), "seed": pa.int64()}
            schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
            columns = {name: [getattr(row, name) for row in self.rows] for name in COLUMNS}
            with atomic_write(path) as file:
                parquet.write_table(pa.table(columns, schema=schema), file)
        else:
            lines = [",".join(COLUMNS), *_lines(self.rows)]
            with atomic_write(path) as file:
                file.write("".join(f"{line}\n" for line in lines).encode())

    def select(self, *, split: str | None = None, tasks: Iterable[str] | None = None) -> Self:
        """The rows of a split and of some tasks; None keeps all."""
        held = None if tasks is None else set(tasks)
        return type(self)(
            tuple(
                row
                for row in self.rows
                if (split is None or row.split == split) and (held is None or row.task in held)
            )
        )

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of methods, in order of appearance."""
        return tuple(dict.fromkeys(row.method for row in self.rows))

    def higher_is_better(self, task: str, metric: str) -> bool:
        """Direction of a task's metric.

        Raises:
            UnknownNameError: no row has it.
        """
        for row in self.rows:
            if (row.task, row.metric) == (task, metric):
                return row.higher_is_better
        known = sorted({f"{row.task}/{row.metric}" for row in self.rows})
        raise UnknownNameError("task/metric", f"{task}/{metric}", known)

    def by_seed(self, method: str, task: str, metric: str, split: str) -> dict[int | None, float]:
        """Finite values over all test items by seed, in order of measurement.

        Values of groups of samples (a block where the same measurement also has a value without
        one) are left out.

        Raises:
            ArgumentError: a seed was measured twice.
        """
        rows = self._of(method, task, metric, split, items=False)
        out: dict[int | None, float] = {}
        for row in rows:
            if row.seed in out:
                rule = f"hold {method}, {task}/{metric} ({split}) once a seed"
                raise ArgumentError("the table of results", rule, f"seed {row.seed} twice")
            out[row.seed] = row.value
        return {seed: value for seed, value in out.items() if math.isfinite(value)}

    def by_item(
        self, method: str, task: str, metric: str, split: str
    ) -> dict[int | None, dict[str, float]]:
        """Finite values by seed and test item; empty where none were kept.

        Raises:
            ArgumentError: an item of a seed was measured twice.
        """
        out: dict[int | None, dict[str, float]] = {}
        for row in self._of(method, task, metric, split, items=True):
            held = out.setdefault(row.seed, {})
            if row.example in held:
                rule = f"hold {method}, {task}/{metric} ({split}) once a seed and item"
                found = f"item {row.example} of seed {row.seed} twice"
                raise ArgumentError("the table of results", rule, found)
            held[row.example] = row.value
        return {
            seed: {item: value for item, value in held.items() if math.isfinite(value)}
            for seed, held in out.items()
        }

    def _of(self, method: str, task: str, metric: str, split: str, *, items: bool) -> list[Row]:
        key = (method, task, metric, split)
        rows = [
            row
            for row in self.rows
            if (row.method, row.task, row.metric, row.split) == key and bool(row.example) == items
        ]
        whole = {(row.seed, row.example) for row in rows if not row.block}
        return [row for row in rows if not row.block or (row.seed, row.example) not in whole]


def append_rows(path: Path | str, rows: Sequence[Row]) -> None:
    """Add rows to a table, all or none; the file is made where there is none.

    Several processes may append to one file. A line of CSV that a crash has cut short before is
    cut off first; Parquet is written anew and renamed.

    Raises:
        CheckpointWriteError: the system refused; the table is as it was.
        ArgumentError: the file is there and is no table of results.
    """
    path = Path(path)
    if not rows:
        return
    with _locked(path):
        if _parquet(path):
            held = Table.read(path).rows if path.is_file() else ()
            Table((*held, *rows)).write(path)
            return
        _mend(path)
        append_line_block(path, ",".join(COLUMNS), _lines(rows))


def _mend(path: Path) -> None:
    """End the last line of a CSV, or cut it off where it is incomplete."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        data = file.read()
        header, _, _ = data.partition(b"\n")
        _check_columns(tuple(header.decode().strip().split(",")), path)
        if data.endswith(b"\n"):
            return
        begin = data.rfind(b"\n") + 1
        values = next(csv.reader([data[begin:].decode(errors="replace")]))
        if len(values) == len(COLUMNS):  # an editor has left the line end out
            file.write(b"\n")
        else:
            file.truncate(begin)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock is the folder's, so that no file is left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _parquet(path: Path) -> bool:
    if path.suffix not in (".csv", ".parquet"):
        raise ArgumentError("the table of results", "end in .csv or .parquet", str(path))
    return path.suffix == ".parquet"


def _lines(rows: Iterable[Row]) -> list[str]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        values = {name: getattr(row, name) for name in COLUMNS}
        values["value"] = repr(float(row.value))
        writer.writerow("" if value is None else str(value) for value in values.values())
    return text.getvalue().splitlines()


def _check_columns(names: tuple[str, ...], path: Path) -> None:
    if names != COLUMNS:
        raise ArgumentError(f"the columns of {path}", f"be {', '.join(COLUMNS)}", list(names))


def _row(record: Mapping[str, Any], where: str) -> Row:
    held = {key: "" if value is None else value for key, value in record.items()}
    for name in ("method", "task", "metric", "split"):
        if not isinstance(held[name], str) or not held[name]:
            raise ArgumentError(f"{name} in {where}", "be a text", held[name])
    truth = TRUTH.get(str(held["higher_is_better"]).lower())
    if truth is None:
        found = held["higher_is_better"]
        raise ArgumentError(f"higher_is_better in {where}", "be True or False", found)
    try:
        value = float(held["value"]) if record["value"] is not None else math.nan
        seed = None if held["seed"] == "" else int(held["seed"])
    except ValueError as error:
        rule = "be a number, and its seed a whole one or empty"
        raise ArgumentError(f"value in {where}", rule, (held["value"], held["seed"])) from error
    texts = {name: str(held[name]) for name in ("method", "task", "metric", "split")}
    more = {name: str(held[name]) for name in ("example", "block", "plan_hash")}
    return Row(value=value, higher_is_better=truth, seed=seed, **texts, **more)
