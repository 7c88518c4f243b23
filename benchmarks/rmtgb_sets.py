"""The long tables of `rmtgb_quality.py`, divided: random Fourier tasks and real tables.

Real tables are read from a folder of their own, see `--data`; none of them belongs to the project.
A division is 80 % to learn from and 20 % to score, unless the set says otherwise; a quarter of the
first part is held out for choosing settings, drawn in the same manner as the test rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from mtl_tabular.data.fourier_tasks import FourierTasks

DATA = Path(__file__).parents[1] / "../shared/data/rmtgb"
SPLITS_BY_TIME = 5


@dataclass(frozen=True)
class Rows:
    """Some rows of a long table.

    Args:
        x: (n, F) float32.
        y: (n,) float numbers or integer classes 0..K-1.
        task: (n,) integers.
    """

    x: np.ndarray
    y: np.ndarray
    task: np.ndarray

    def __len__(self):
        """Number of rows."""
        return len(self.y)

    def at(self, rows):
        """Chosen rows.

        Args:
            rows: positions.
        """
        return Rows(self.x[rows], self.y[rows], self.task[rows])


@dataclass(frozen=True, kw_only=True)
class Example:
    """A divided table.

    Args:
        fit: positions in `train` that candidates learn from.
        held: positions in `train` that choose among them.
        train: both together.
        test: rows to score.
        kind: ``regression``, ``binary`` or ``multiclass``.
        outliers: tasks that stand apart, where that is known.
    """

    train: Rows
    test: Rows
    fit: np.ndarray
    held: np.ndarray
    kind: str
    outliers: tuple = ()

    @property
    def classes(self):
        """K, 0 of regression."""
        return 0 if self.kind == "regression" else int(self.train.y.max()) + 1


def at_random(rows, part, seed):
    """Positions of two parts, tasks in proportion where they have enough rows."""
    counts = np.bincount(rows.task)
    strata = np.where(counts[rows.task] >= 10, rows.task, -1)
    if (strata == -1).sum() < 10:  # too few to be a stratum
        strata = np.where(strata == -1, counts.argmax(), strata)
    found = train_test_split(
        np.arange(len(rows)), test_size=part, random_state=seed, stratify=strata
    )
    return tuple(np.sort(part) for part in found)


def by_group(groups, part, seed):
    """Positions of two parts that share no group."""
    split = GroupShuffleSplit(n_splits=1, test_size=part, random_state=seed)
    return next(split.split(groups, groups=groups))


def example(rows, kind, seed, groups=None, outliers=()):
    """Divide a table, by rows or by groups of them."""
    if groups is None:
        train, test = at_random(rows, 0.2, seed)
        fit, held = held_out(rows.at(train), seed)
    else:
        train, test = by_group(groups, 0.2, seed)
        fit, held = by_group(groups[train], 0.25, seed)
    parts = {"train": rows.at(train), "test": rows.at(test), "fit": fit, "held": held}
    return Example(**parts, kind=kind, outliers=outliers)


def held_out(rows, seed):
    """Positions to learn from and to choose by; the latter only of tasks that the former have."""
    fit, held = at_random(rows, 0.25, seed)
    strange = ~np.isin(rows.task[held], rows.task[fit])
    return np.sort(np.concatenate([fit, held[strange]])), held[~strange]


def read(folder, name, classes=False):
    """Rows of a pair of files: features with the task in the last column, and a target."""
    frame = pd.read_csv(folder / f"{name}_data.csv.gz")
    y = pd.read_csv(folder / f"{name}_target.csv.gz").iloc[:, 0].to_numpy()
    x = frame.iloc[:, :-1].to_numpy(dtype=np.float32)
    task = np.unique(frame.iloc[:, -1], return_inverse=True)[1]
    return Rows(x, y.astype(np.int64 if classes else np.float64), task)


def plain(name, kind, folder, seed):
    """A table that is divided at random."""
    rows = read(folder, name, kind != "regression")
    outliers = tuple(range(15, 29)) if name == "landmine" else ()  # the second terrain
    return example(rows, kind, seed, outliers=outliers)


def parkinson_by_time(folder, seed):
    """Every patient's first rows to learn from, the next 18 % to score, from five origins."""
    if seed >= SPLITS_BY_TIME:
        raise ValueError(f"There are {SPLITS_BY_TIME} splits by time, not {seed + 1}")
    rows = read(folder, "parkinson")
    time = rows.x[:, 2]
    order = np.lexsort((time, rows.task))
    counts = np.bincount(rows.task)
    place = np.empty(len(rows))
    place[order] = np.concatenate([np.arange(n) / n for n in counts])
    end = 0.5 + 0.08 * seed
    train, test = np.flatnonzero(place < end), np.flatnonzero((place >= end) & (place < end + 0.18))
    early = place[train] < 0.75 * end
    return Example(
        train=rows.at(train),
        test=rows.at(test),
        fit=np.flatnonzero(early),
        held=np.flatnonzero(~early),
        kind="regression",
    )


def parkinson_by_patient(folder, seed):
    """Patients that training has not seen; settings are chosen by other rows of known patients."""
    rows = read(folder, "parkinson")
    train, test = by_group(rows.task, 0.2, seed)
    fit, held = held_out(rows.at(train), seed)
    parts = {"train": rows.at(train), "test": rows.at(test), "fit": fit, "held": held}
    return Example(**parts, kind="regression")


def adult(by, folder, seed):
    """48,842 people of the census of 1994: income above 50,000; categories as alphabetic codes."""
    names = ["age", "workclass", "weight", "education", "years", "marital", "occupation"]
    names += ["relationship", "race", "sex", "gain", "loss", "hours", "country", "income"]
    options = {"names": names, "skipinitialspace": True}
    frame = pd.concat(
        [
            pd.read_csv(folder / "adult_raw_train.data.gz", **options),
            pd.read_csv(folder / "adult_raw_test.data.gz", skiprows=1, **options),
        ]
    )
    y = frame["income"].str.startswith(">50K").to_numpy().astype(np.int64)
    task = frame[by].astype("category").cat.codes.to_numpy().astype(np.int64)
    frame = frame.drop(columns=["income", "sex", "race", "weight", "education"])
    coded = [
        column if pd.api.types.is_numeric_dtype(column) else column.astype("category").cat.codes
        for _, column in frame.items()
    ]
    x = np.stack(coded, 1).astype(np.float32)
    return example(Rows(x, y, task), "binary", seed)


def sarcos(folder, seed):
    """4,449 states of a robot arm, seven joints a task each: torque. States stay together."""
    frame = pd.read_csv(folder / "sarcos_test_wide.csv.gz").to_numpy()
    states = np.arange(len(frame))
    x = np.repeat(frame[:, :21].astype(np.float32), 7, axis=0)
    rows = Rows(x, frame[:, 21:].ravel(), np.tile(np.arange(7), len(frame)))
    return example(rows, "regression", seed, groups=np.repeat(states, 7))


def fourier(scenario, kind, folder, seed):
    """10 tasks of 300 rows and 1,000 test rows; a split is a draw of functions and rows."""
    binary = kind == "binary"
    source = FourierTasks(scenario, kind="binary" if binary else "numeric", seed=seed)

    def rows(count, part):
        frame = source.draw(count, part)
        y = frame["y"].to_numpy().astype(np.int64 if binary else np.float64)
        return Rows(frame.iloc[:, :-2].to_numpy(), y, frame["task"].to_numpy().astype(np.int64))

    train = rows(300, "train")
    fit, held = held_out(train, seed)
    parts = {"train": train, "test": rows(1000, "test"), "fit": fit, "held": held}
    return Example(**parts, kind=kind, outliers=source.outliers)


SETS: dict[str, Callable] = {
    **{f"scenario {k}": partial(fourier, k, "regression") for k in (1, 2, 3, 4)},
    **{f"scenario {k}, classes": partial(fourier, k, "binary") for k in (2, 4)},
    "school": partial(plain, "school", "regression"),
    "computer": partial(plain, "computer", "regression"),
    "abalone": partial(plain, "abalone", "regression"),
    "parkinson": partial(plain, "parkinson", "regression"),
    "parkinson, by time": parkinson_by_time,
    "parkinson, new patients": parkinson_by_patient,
    "sarcos": sarcos,
    "landmine": partial(plain, "landmine", "binary"),
    "diabetes": partial(plain, "diabetes", "binary"),
    "bank": partial(plain, "bank", "binary"),
    "adult by sex": partial(adult, "sex"),
    "adult by race": partial(adult, "race"),
    "avila": partial(plain, "avila", "multiclass"),
}
