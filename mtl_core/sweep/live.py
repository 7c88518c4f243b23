"""The table that a sweep shows while it runs."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mtl_core.callbacks.task_table import number
from mtl_core.sweep.plan import Plan
from mtl_core.sweep.progress import read_progress
from mtl_core.sweep.runs import run_folder
from mtl_core.sweep.study import Sweep
from mtl_core.sweep.worker import Active, Worker

ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
ROWS = 8
"""How many of the trials that ended last are shown."""


def shown(value: object) -> str:
    """A parameter's value in few characters.

    >>> shown(0.00123456), shown("PCGrad"), shown(True)
    ('0.001235', 'PCGrad', 'True')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def described(trial: FrozenTrial, plan: Plan) -> str:
    """The parameters of a trial in one line, in the order of the space."""
    short = plan.space.short_names
    held = trial.params
    return ", ".join(f"{short[n]}={shown(held[n])}" for n in plan.space.names if n in held)


def status_of(trial: FrozenTrial) -> Text:
    """How a trial ended, with the reason where it did not end well."""
    told = trial.user_attrs.get("outcome", {})
    status = str(told.get("status", trial.state.name.lower()))
    colours = {TrialState.COMPLETE: "green", TrialState.PRUNED: "yellow", TrialState.FAIL: "red"}
    reason = "" if trial.state is TrialState.COMPLETE else str(told.get("reason", ""))
    text = f"{status}: {reason}" if reason and not reason.startswith(status) else reason or status
    return Text(text[:300], style=colours.get(trial.state, ""))


def best_of(trials: Sequence[FrozenTrial], plan: Plan) -> FrozenTrial | None:
    """The best complete trial by the first objective."""
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    higher = next(iter(plan.objectives.values())).higher_is_better
    if not complete:
        return None
    return (max if higher else min)(complete, key=lambda trial: trial.values[0])


def summary(trials: Sequence[FrozenTrial], total: int) -> str:
    """Counts in one line."""
    counts = {state: sum(t.state is state for t in trials) for state in TrialState}
    parts = [
        f"{sum(counts[state] for state in ENDED)} of {total} trials ended",
        f"{counts[TrialState.COMPLETE]} complete",
    ]
    for state, word in ((TrialState.PRUNED, "pruned"), (TrialState.FAIL, "failed")):
        if counts[state]:
            parts.append(f"{counts[state]} {word}")
    return ", ".join(parts)


def live_table(
    sweep: Sweep, total: int, active: Sequence[Active] = (), *, rows: int | None = ROWS
) -> Table:
    """Build the table.

    Args:
        sweep: what runs.
        total: how many trials it shall have.
        active: trials that run here.
        rows: how many of the trials that ended last to show; None is all.
    """
    plan, trials = sweep.plan, sweep.trials()[:total]
    best = best_of(trials, plan)
    table = Table(
        title=f"{sweep.study.study_name}: {summary(trials, total)}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("trial", justify="right", no_wrap=True)
    for name, objective in plan.objectives.items():
        arrow = "↑" if objective.higher_is_better else "↓"
        table.add_column(f"{name} {arrow}", justify="right", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("parameters", overflow="fold")
    table.add_column("status", overflow="fold")
    ended = [trial for trial in trials if trial.state in ENDED]
    listed = ended if rows is None else ended[-rows:]
    if best is not None and best not in listed:
        listed = [best, *listed]
    for trial in listed:
        mark = "★ " if trial is best and len(plan.objectives) == 1 else ""
        values = trial.values or [None] * len(plan.objectives)
        cells = ["" if v is None else number(v) for v in values]
        cells[0] = mark + cells[0]
        seconds = trial.user_attrs.get("outcome", {}).get("seconds")
        table.add_row(
            str(trial.number),
            *cells,
            "" if seconds is None else f"{seconds:.0f}",
            described(trial, plan),
            status_of(trial),
        )
    for run in sorted(active, key=lambda run: run.trial.number):
        _add_running(table, run, trials, plan)
    return table


def _add_running(table: Table, run: Active, trials: Sequence[FrozenTrial], plan: Plan) -> None:
    lines = [
        line
        for line in read_progress(run_folder(run.folder, plan.seeds[0]))
        if "validation" in line
    ]
    last = lines[-1] if lines else {}
    values = [objective.at(last) for objective in plan.objectives.values()]
    at = f"running, epoch {last['epoch']}" if lines else "running"
    trial = trials[run.trial.number] if run.trial.number < len(trials) else None
    table.add_row(
        str(run.trial.number),
        *("" if value is None else number(value) for value in values),
        f"{time.monotonic() - run.started:.0f}",
        "" if trial is None else described(trial, plan),
        at,
        style="dim",
    )


def follow(worker: Worker, threads: Sequence[threading.Thread], console: Console) -> None:
    """Show what a worker does until its threads end; an interrupt stops it in good order.

    On a terminal the table is drawn anew twice a second; elsewhere every trial is a line.

    Raises:
        KeyboardInterrupt: when there was one, once the trials have been handed back.
    """
    try:
        if console.is_terminal:
            with Live(console=console, auto_refresh=False) as live:
                alive = True
                while alive:  # once more when all have ended
                    alive = any(thread.is_alive() for thread in threads)
                    table = live_table(worker.sweep, worker.total, list(worker.active.values()))
                    live.update(table, refresh=True)
                    if alive:
                        time.sleep(0.5)
        else:
            _lines(worker, threads, console)
    except KeyboardInterrupt:
        worker.stopping.set()
        for thread in threads:
            with suppress(KeyboardInterrupt):  # the second one is as impatient as the first
                thread.join()
        raise


def _lines(worker: Worker, threads: Sequence[threading.Thread], console: Console) -> None:
    plan = worker.sweep.plan
    told = {t.number for t in worker.sweep.trials() if t.state in ENDED}
    alive = True
    while alive:
        alive = any(thread.is_alive() for thread in threads)
        for trial in worker.sweep.trials()[: worker.total]:
            if trial.state in ENDED and trial.number not in told:
                told.add(trial.number)
                values = zip(plan.objectives, trial.values or (), strict=False)
                reached = ", ".join(f"{name} {number(value)}" for name, value in values)
                parts = (str(status_of(trial)), reached, described(trial, plan))
                text = f"trial {trial.number}: {'; '.join(part for part in parts if part)}"
                console.print(text, soft_wrap=True, markup=False, highlight=False)
        if alive:
            time.sleep(0.5)
