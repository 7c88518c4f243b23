"""Tiny tables: a wide one with three kinds of tasks, a long one with a task a site."""

from pathlib import Path

import numpy as np
import pandas as pd

from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, NumericTarget, TargetColumn


def wide_frame(rows: int = 200, *, missing: bool = False, seed: int = 0) -> pd.DataFrame:
    """Features ``age``, ``income``, ``city``, ``member``; targets ``click``, ``kind``, ``price``.

    Where `missing`, every seventh row lacks ``kind``, every fifth ``age`` and every ninth ``city``.
    """
    rng = np.random.default_rng(seed)
    age, income = rng.normal(40, 12, rows), rng.lognormal(10, 0.5, rows)
    city = rng.choice(["Oslo", "Rome", "Lima"], rows)
    frame = pd.DataFrame(
        {
            "age": age.round(2),
            "income": income.round(2),
            "city": city,
            "member": rng.random(rows) < 0.5,
            "click": (age + rng.normal(0, 15, rows) > 40).astype("int64"),
            "kind": np.where(city == "Rome", "b", np.where(age > 45, "c", "a")),
            "price": (income / 1000 + (city == "Oslo") * 5).round(3),
        }
    )
    if missing:
        frame.loc[::7, "kind"] = None
        frame.loc[::5, "age"] = None
        frame.loc[::9, "city"] = None
    return frame


def wide_tasks() -> dict[str, TargetColumn]:
    """One task of every kind, for `wide_frame`."""
    return {"click": BinaryTarget(), "kind": MulticlassTarget(), "price": NumericTarget()}


def long_frame(rows: int = 240, *, sites: int = 4, seed: int = 0) -> pd.DataFrame:
    """Features ``x0``, ``x1``; task column ``site`` (numbers); target ``score``."""
    rng = np.random.default_rng(seed)
    site = rng.permutation(np.arange(rows) % sites)
    x = rng.normal(size=(rows, 2)).round(4)
    score = (x[:, 0] * (site + 1) + x[:, 1] + site).round(4)
    return pd.DataFrame({"x0": x[:, 0], "x1": x[:, 1], "site": site, "score": score})


def long_tasks() -> dict[str, TargetColumn]:
    """The template of `long_frame`."""
    return {"score": NumericTarget()}


def write_wide_csv(path: Path, **options) -> Path:
    """`wide_frame` as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wide_frame(**options).to_csv(path, index=False)
    return path


def write_long_csv(path: Path, **options) -> Path:
    """`long_frame` as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    long_frame(**options).to_csv(path, index=False)
    return path


def write_wide_parquet(path: Path, *, row_group: int = 64, **options) -> Path:
    """`wide_frame` as a file with several row groups."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wide_frame(**options).to_parquet(path, index=False, row_group_size=row_group)
    return path
