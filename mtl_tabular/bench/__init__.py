"""``python -m mtl_tabular bench``: when does training tasks together pay? Sweeps with Δm curves."""

from mtl_tabular.bench.command import main
from mtl_tabular.bench.draw import Point, draw, markdown, points
from mtl_tabular.bench.plan import Contender, Plan, Run, Setting
from mtl_tabular.bench.run import sweep
from mtl_tabular.bench.table import Outcome

__all__ = [
    "Contender",
    "Outcome",
    "Plan",
    "Point",
    "Run",
    "Setting",
    "draw",
    "main",
    "markdown",
    "points",
    "sweep",
]
