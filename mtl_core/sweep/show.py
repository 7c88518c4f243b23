"""What a sweep has found: the winner, the front, which parameters mattered."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial
from rich import box
from rich.console import Console
from rich.table import Table

from mtl_core.atomic import atomic_write
from mtl_core.callbacks.task_table import number
from mtl_core.errors import ArgumentError
from mtl_core.sweep.figures import (
    complete,
    draw_history,
    draw_importance,
    draw_parallel,
    draw_pareto,
)
from mtl_core.sweep.live import described, live_table
from mtl_core.sweep.plan import Objective, Plan
from mtl_core.sweep.study import Sweep

LEAST = 10
"""Complete trials that it takes to say which parameters matter: the best tenth is one of them."""


def pareto_front(
    trials: Sequence[FrozenTrial], objectives: Mapping[str, Objective]
) -> list[FrozenTrial]:
    """The complete trials that no other one beats: as good in all objectives, better in one."""
    signs = [1 if o.higher_is_better else -1 for o in objectives.values()]
    done = [
        (trial, [s * v for s, v in zip(signs, trial.values, strict=True)])
        for trial in complete(trials)
    ]

    def beaten(one: list[float]) -> bool:
        return any(
            all(a >= b for a, b in zip(other, one, strict=True)) and other != one
            for _, other in done
        )

    return [trial for trial, values in done if not beaten(values)]


def winner(trials: Sequence[FrozenTrial], objectives: Mapping[str, Objective]) -> FrozenTrial:
    """The best trial; of several objectives the one of the front nearest to the best of each.

    Distances are Euclidean, each objective scaled to [0, 1] over the front.

    Raises:
        ArgumentError: no trial is complete.
    """
    front = pareto_front(trials, objectives)
    if not front:
        raise ArgumentError("the sweep", "have a complete trial", len(trials))
    spans = []
    for i, objective in enumerate(objectives.values()):
        values = [trial.values[i] for trial in front]
        best = max(values) if objective.higher_is_better else min(values)
        spans.append((best, max(values) - min(values) or 1.0))

    def distance(trial: FrozenTrial) -> float:
        pairs = zip(trial.values, spans, strict=True)
        return math.hypot(*((value - best) / span for value, (best, span) in pairs))

    return min(front, key=distance)


@dataclass(frozen=True)
class _Cost:
    """An objective with its sign such that less is better."""

    index: int
    sign: float

    def __call__(self, trial: FrozenTrial) -> float:
        return self.sign * float(trial.values[self.index])


def importances(sweep: Sweep) -> dict[str, dict[str, float]]:
    """How much each parameter explains of which trials are among the best, by objective.

    PED-ANOVA (Watanabe et al., IJCAI 2023); shares add up to one. Before its release 5, Optuna
    leaves out parameters that some trials do not have.

    Returns:
        Share by objective and parameter; empty where fewer than `LEAST` trials are complete or no
        parameter varies.
    """
    trials = complete(sweep.trials())
    varied = [
        name
        for name in sweep.plan.space.names
        if len({trial.params[name] for trial in trials if name in trial.params}) > 1
    ]
    if len(trials) < LEAST or not varied:
        return {}
    found: dict[str, dict[str, float]] = {}
    for i, (name, objective) in enumerate(sweep.plan.objectives.items()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental in some releases
            held = optuna.importance.get_param_importances(
                sweep.study,
                evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
                target=_Cost(i, -1.0 if objective.higher_is_better else 1.0),
            )
        found[name] = {key: float(value) for key, value in held.items()}
    return found


def importance_table(shares: Mapping[str, Mapping[str, float]]) -> Table:
    """A row a parameter, a column an objective."""
    table = Table(title="Importance", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("parameter", style="cyan")
    for objective in shares:
        table.add_column(objective, justify="right")
    names = {name for held in shares.values() for name in held}
    for name in sorted(names, key=lambda n: (-max(h.get(n, 0.0) for h in shares.values()), n)):
        cells = [f"{held[name]:.2f}" if name in held else "" for held in shares.values()]
        table.add_row(name, *cells)
    return table


def front_table(front: Sequence[FrozenTrial], plan: Plan) -> Table:
    """A row an unbeaten trial, ordered by the first objective."""
    table = Table(title="Pareto front", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("trial", justify="right")
    for name, objective in plan.objectives.items():
        table.add_column(f"{name} {'↑' if objective.higher_is_better else '↓'}", justify="right")
    table.add_column("parameters", overflow="fold")
    for trial in sorted(front, key=lambda trial: trial.values[0]):
        table.add_row(str(trial.number), *map(number, trial.values), described(trial, plan))
    return table


def show(sweep: Sweep, console: Console) -> list[Path]:
    """Print the tables of a sweep and write its figures.

    Returns:
        The figures, in ``figures`` of the sweep's folder; none while no trial is complete.
    """
    trials, plan = sweep.trials(), sweep.plan
    console.print(live_table(sweep, len(trials), rows=None))
    if not complete(trials):
        return []
    figures = {
        "history": draw_history(trials, plan.objectives),
        "parallel": draw_parallel(trials, plan.space, plan.objectives),
    }
    if len(plan.objectives) > 1:
        front = pareto_front(trials, plan.objectives)
        console.print(front_table(front, plan))
        figures["pareto"] = draw_pareto(trials, front, plan.objectives)
    shares = importances(sweep)
    if shares:
        console.print(importance_table(shares))
        figures["importance"] = draw_importance(shares)
    paths = []
    for name, figure in figures.items():
        path = sweep.folder / "figures" / f"{name}.png"
        with atomic_write(path) as file:
            figure.savefig(file, format="png")
        paths.append(path)
    return paths
