"""Plans and tables of results for the tests of reports."""

from typing import Any

import numpy as np

from mtl_core.stats.plan import Plan
from mtl_core.stats.table import Row, Table


def make_plan(methods=("sum", "famo", "pcgrad"), **more: Any) -> Plan:
    """Two tasks, left accuracy (higher is better) and right error (lower)."""
    content = {
        "name": "toy",
        "methods": list(methods),
        "baseline": methods[0],
        "tasks": {"left": "accuracy", "right": "error"},
        "margins": {"accuracy": 0.005, "error": 0.05},
        "seeds": 5,
        "test": "paired t",
        **more,
    }
    return Plan.parse({key: value for key, value in content.items() if value is not None})


def score_rows(
    effects: dict[str, float], seeds=range(5), *, noise=0.01, digest="", draw=0, blocks=True
) -> list[Row]:
    """Rows of both tasks; an effect is added to the accuracy, and ten times taken off the error."""
    rng = np.random.default_rng(draw)
    rows = []
    for block, seed in enumerate(seeds, 1):
        shared = rng.normal(0, noise)
        for method, effect in effects.items():
            left = 0.7 + shared + effect + rng.normal(0, noise)
            right = 5 - 10 * (shared + effect + rng.normal(0, noise))
            number = str(block) if blocks else ""
            same = {"seed": seed, "split": "test", "block": number, "plan_hash": digest}
            rows.append(Row(method, "left", "accuracy", float(left), higher_is_better=True, **same))
            rows.append(Row(method, "right", "error", float(right), higher_is_better=False, **same))
    return rows


def item_rows(chances: dict[str, float], items=200, seeds=(0,), *, draw=0) -> list[Row]:
    """0/1 rows of test items on the task left."""
    rng = np.random.default_rng(draw)
    return [
        Row(
            method,
            "left",
            "accuracy",
            float(rng.random() < chance),
            higher_is_better=True,
            seed=seed,
            split="test",
            example=f"item{i}",
        )
        for method, chance in chances.items()
        for seed in seeds
        for i in range(items)
    ]


def table_of(rows: list[Row]) -> Table:
    return Table(tuple(rows))
