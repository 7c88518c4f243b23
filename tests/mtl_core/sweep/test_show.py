"""The winner, the front, importance, tables and pictures.

`mtl_core.sweep.show`, `mtl_core.sweep.figures` and `mtl_core.sweep.live`.
"""

import io

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from mtl_core.errors import ArgumentError
from mtl_core.sweep import Plan
from mtl_core.sweep.figures import draw_importance, draw_pareto
from mtl_core.sweep.live import live_table, status_of, summary
from mtl_core.sweep.show import importances, pareto_front, show, winner
from mtl_core.sweep.study import Definition, Sweep

SPACE = {
    "model.lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "trainer.callbacks": {
        "choices": {
            "none": [],
            "UW": {"class_path": "UW", "init_args": {"lr": {"low": 0.0, "high": 1.0}}},
        }
    },
    "width": [None, 4],
}
ONE = {"score": {"value": "val/a/score", "direction": "maximize"}}
TWO = {**ONE, "macs": {"direction": "minimize"}}


def sweep_of(folder, objectives=ONE, space=SPACE) -> Sweep:
    plan = Plan.parse({"space": space, "objectives": objectives, "sampler": "random"})
    return Sweep.start(Definition.of("sweep_program", (), plan), folder)


def fill(sweep, count, score) -> None:
    for i in range(count):
        trial = sweep.claim(count)
        if i % 7 == 6:
            trial.set_user_attr("outcome", {"status": "failed", "reason": "ValueError: x"})
            sweep.study.tell(trial, state=TrialState.FAIL)
        else:
            trial.set_user_attr("outcome", {"status": "finished", "seconds": 2.0})
            sweep.study.tell(trial, score(trial.params))
    sweep.close()


def by_lr(params):
    return 1 - (np.log10(params["model.lr"]) + 2) ** 2


def text_of(thing, width=160) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(thing)
    return out.getvalue()


def frozen(*values):
    return optuna.trial.create_trial(values=list(values))


PAIR = Plan.parse({"space": {"x": [1]}, "objectives": TWO}).objectives


def test_front_is_what_nothing_beats():
    trials = [frozen(0.9, 10), frozen(0.5, 1), frozen(0.6, 9), frozen(0.4, 2), frozen(0.9, 10)]
    front = pareto_front(trials, PAIR)
    assert [t.values for t in front] == [[0.9, 10], [0.5, 1], [0.6, 9], [0.9, 10]]


def test_front_agrees_with_brute_force_on_random_points():
    points = np.random.default_rng(0).integers(0, 6, size=(60, 2)).astype(float)
    trials = [frozen(*p) for p in points]
    front = {tuple(t.values) for t in pareto_front(trials, PAIR)}
    for a, b in points:
        beaten = any(c >= a and d <= b and (c > a or d < b) for c, d in points)
        assert beaten == ((a, b) not in front)


def test_winner_of_one_objective_is_the_best_and_of_two_the_compromise():
    one = Plan.parse({"space": {"x": [1]}, "objectives": ONE}).objectives
    trials = [frozen(0.1), frozen(0.7), frozen(0.3)]
    assert winner(trials, one) is trials[1]
    trials = [frozen(1.0, 100), frozen(0.0, 0), frozen(0.9, 10)]
    assert winner(trials, PAIR) is trials[2]
    with pytest.raises(ArgumentError, match="complete trial"):
        winner([], one)


def test_what_matters_is_found_in_both_directions(tmp_path):
    up = sweep_of(tmp_path / "up")
    fill(up, 60, by_lr)
    down = sweep_of(tmp_path / "down", {"s": {"value": "val/a/s", "direction": "minimize"}})
    fill(down, 60, lambda params: -by_lr(params))
    for sweep, name in ((up, "score"), (down, "s")):
        (shares,) = importances(sweep).values()
        assert max(shares, key=shares.get) == "model.lr"
        assert sum(shares.values()) == pytest.approx(1)
        assert name in importances(sweep)
    assert importances(up)["score"] == pytest.approx(importances(down)["s"])


def test_too_few_trials_say_nothing_about_importance(tmp_path):
    sweep = sweep_of(tmp_path / "s")
    fill(sweep, 5, by_lr)
    assert importances(sweep) == {}


@pytest.mark.parametrize("objectives", [ONE, TWO], ids=["one", "two"])
def test_tables_and_figures(tmp_path, objectives):
    sweep = sweep_of(tmp_path / "s", objectives)
    fill(sweep, 24, lambda p: [by_lr(p), p["model.lr"] * 1e6][: len(objectives)])
    out = io.StringIO()
    paths = show(sweep, Console(file=out, width=160))
    names = {"history", "importance", "parallel"} | ({"pareto"} if len(objectives) > 1 else set())
    assert {path.stem for path in paths} == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    shown = out.getvalue()
    assert "24 of 24 trials ended, 21 complete, 3 failed" in shown
    assert "Importance" in shown
    assert "ValueError: x" in shown
    assert ("Pareto front" in shown) == (len(objectives) > 1)
    if len(objectives) == 1:
        best = winner(sweep.trials(), sweep.plan.objectives)
        (line,) = [line for line in shown.splitlines() if "★" in line]
        assert line.split()[0] == str(best.number)


def test_nothing_to_draw_yet(tmp_path):
    sweep = sweep_of(tmp_path / "s")
    assert show(sweep, Console(file=io.StringIO())) == []


def test_live_table_keeps_the_best_in_sight(tmp_path):
    sweep = sweep_of(tmp_path / "s")
    fill(sweep, 30, by_lr)
    best = winner(sweep.trials(), sweep.plan.objectives)
    text = text_of(live_table(sweep, 40, rows=2))
    rows = [line.split()[0] for line in text.splitlines() if line.strip()[:1].isdigit()]
    assert rows == [str(n) for n in dict.fromkeys([best.number, 28, 29])]
    assert summary(sweep.trials(), 40).startswith("30 of 40 trials ended")
    assert "UW.lr=" in text_of(live_table(sweep, 40, rows=None))


def test_failures_show_their_reason():
    trial = optuna.trial.create_trial(
        state=TrialState.FAIL,
        user_attrs={"outcome": {"status": "out of memory", "reason": "MemoryError"}},
    )
    assert str(status_of(trial)) == "out of memory: MemoryError"


def test_front_of_three_objectives_is_drawn_in_pairs():
    three = Plan.parse(
        {"space": {"x": [1]}, "objectives": {**TWO, "seconds": {"direction": "minimize"}}}
    ).objectives
    trials = [frozen(0.9, 10, 1), frozen(0.5, 1, 2), frozen(0.4, 20, 3)]
    figure = draw_pareto(trials, pareto_front(trials, three), three)
    labels = [(ax.get_xlabel(), ax.get_ylabel()) for ax in figure.axes]
    assert len(labels) == 3
    assert labels[0] == ("score (→ better)", "macs (← better)")


def test_bars_have_the_length_of_the_share():
    figure = draw_importance({"a": {"x": 0.75, "y": 0.25}})
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == [0.25, 0.75]
