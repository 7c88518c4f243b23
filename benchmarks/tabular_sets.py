"""The tables of `tabular_quality.py`: five random divisions of each, real ones and MultiTab-Bench.

Real tables are read from a folder of their own, see `--data`; none of them belongs to the project.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.model_selection import train_test_split

from mtl_tabular.data.synthetic import SyntheticTable
from mtl_tabular.data.synthetic_spec import SyntheticSpec
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, NumericTarget


@dataclass(frozen=True, kw_only=True)
class Example:
    """A divided table and how long networks learn from it.

    Args:
        train: rows to learn from.
        val: rows for early stopping.
        test: rows to score.
        tasks: records by name.
        task_column: of a long table.
        batch_size: rows a step.
        epochs: at most; early stopping may end before.
    """

    train: pd.DataFrame
    val: pd.DataFrame
    test: pd.DataFrame
    tasks: dict
    task_column: str = ""
    batch_size: int = 128
    epochs: int = 30


def divide(frame, seed, strata=None):
    """60, 15 and 25 % of the rows."""
    rest, test = train_test_split(frame, test_size=0.25, random_state=seed, stratify=strata)
    strata = None if strata is None else strata.loc[rest.index]
    train, val = train_test_split(rest, test_size=0.2, random_state=seed, stratify=strata)
    return {"train": train, "val": val, "test": test}


def wine(folder, seed):
    """178 wines: cultivar (3 classes), alcohol and proline from the other measurements."""
    frame = load_wine(as_frame=True).frame
    tasks = {
        "cultivar": MulticlassTarget(column="target"),
        "alcohol": NumericTarget(),
        "proline": NumericTarget(),
    }
    return Example(**divide(frame, seed, frame["target"]), tasks=tasks, batch_size=32, epochs=40)


def cancer(folder, seed):
    """569 tumours: malignancy, mean radius and mean concavity from texture and error columns."""
    frame = load_breast_cancer(as_frame=True).frame
    correlated = ("mean perimeter", "mean area", "worst radius", "worst perimeter", "worst area")
    frame = frame.drop(columns=[*correlated, "worst concavity", "mean concave points"])
    tasks = {
        "malignant": BinaryTarget(column="target"),
        "radius": NumericTarget(column="mean radius"),
        "concavity": NumericTarget(column="mean concavity"),
    }
    return Example(**divide(frame, seed, frame["target"]), tasks=tasks, batch_size=64, epochs=40)


def adult(folder, seed):
    """13,000 people of the census of 1994: income (binary) and marital status (7 classes).

    Relationship is left out: it all but names the marital status.
    """
    names = ["age", "workclass", "weight", "education", "years", "marital", "occupation"]
    names += ["relationship", "race", "sex", "gain", "loss", "hours", "country", "income"]
    path = folder / "adult_raw_train.data.gz"
    frame = pd.read_csv(path, names=names, skipinitialspace=True, na_values="?")
    frame = frame.drop(columns=["relationship", "weight"]).sample(13_000, random_state=0)
    tasks = {"income": BinaryTarget(), "marital": MulticlassTarget()}
    return Example(**divide(frame, seed, frame["income"]), tasks=tasks, batch_size=256, epochs=8)


def sarcos(folder, seed):
    """4,449 states of a robot arm: seven torques from 21 positions, speeds and accelerations."""
    frame = pd.read_csv(folder / "sarcos_test_wide.csv.gz")
    tasks = {f"torque{i + 1}": NumericTarget(column=f"y{i}") for i in range(7)}
    return Example(**divide(frame, seed), tasks=tasks, batch_size=128, epochs=25)


def school(folder, seed):
    """15,362 pupils of 139 schools, a task each: exam score. A long table."""
    frame = pd.read_csv(folder / "school_data.csv.gz")
    frame["score"] = pd.read_csv(folder / "school_target.csv.gz").iloc[:, 0].to_numpy()
    return Example(
        **divide(frame, seed, frame["task"]),
        tasks={"school": NumericTarget(column="score")},
        task_column="task",
        batch_size=512,
        epochs=5,
    )


def landmine(folder, seed):
    """14,820 radar objects on 29 fields, a task each: mine or clutter. A long table."""
    frame = pd.read_csv(folder / "landmine_data.csv.gz")
    frame["mine"] = pd.read_csv(folder / "landmine_target.csv.gz").iloc[:, 0].to_numpy()
    strata = frame["task"].astype(str) + frame["mine"].astype(str)
    return Example(
        **divide(frame, seed, strata),
        tasks={"field": BinaryTarget(column="mine")},
        task_column="task",
        batch_size=512,
        epochs=8,
    )


def multitab_bench(folder, seed):
    """MultiTab-Bench as the reference configures it: 7 tasks of degrees 1 to 4, correlation 0.4."""
    rows = SyntheticTable(SyntheticSpec(), seed=seed)
    parts = {"train": 4096, "val": 1024, "test": 4096}
    frames = {part: rows.draw(size, part).frame() for part, size in parts.items()}
    tasks = {name: NumericTarget() for name in rows.spec.task_names}
    return Example(**frames, tasks=tasks, batch_size=256, epochs=12)


SETS = {
    "MultiTab-Bench": multitab_bench,
    "sarcos": sarcos,
    "adult": adult,
    "wine": wine,
    "cancer": cancer,
    "school": school,
    "landmine": landmine,
}
DATA = Path("../shared/data/rmtgb")
