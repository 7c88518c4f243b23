import io
import math

import lightning as L
import pytest
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from rich.console import Console
from toys import ToyNetwork, toy_loader, toy_tasks

from mtl_core.callbacks import TaskTable
from mtl_core.callbacks.task_table import number, task_table
from mtl_core.errors import ArgumentError, MissingTaskError
from mtl_core.modules import MultiTaskModule
from mtl_core.tasks import Classification, Regression

TASKS = {"kind": Classification(num_classes=3), "size": Regression()}
SCORES = {
    "kind": {"accuracy": 0.81254, "f1": 0.5, "loss": 1.25},
    "size": {"rmse": 12.3456, "mae": 9.0, "r2": -0.5, "loss": 0.5},
}


def text(table) -> str:
    stream = io.StringIO()
    Console(file=stream, width=120).print(table)
    return stream.getvalue()


def row(shown: str, task: str) -> str:
    return next(line for line in shown.splitlines() if line.strip().startswith(task))


def test_a_row_a_task_with_direction_and_every_metric():
    shown = text(task_table("Validation · epoch 3 · protocol atrc", TASKS, SCORES))
    assert "protocol atrc" in shown
    assert "accuracy ↑" in row(shown, "kind")
    assert "0.8125" in row(shown, "kind")
    assert "f1↑0.5000" in row(shown, "kind")
    assert "rmse ↓" in row(shown, "size")
    assert "12.35" in row(shown, "size")
    assert "mae↓9.000" in row(shown, "size")
    assert "best before" not in shown
    assert "vs single" not in shown


def test_star_marks_improvement_in_the_metrics_own_direction():
    best = {"kind": {"accuracy": 0.9}, "size": {"rmse": 20.0}}
    shown = text(task_table("t", TASKS, SCORES, best=best))
    assert "★" not in row(shown, "kind")
    assert "12.35 ★" in row(shown, "size")
    assert "0.9000" in row(shown, "kind")
    first = text(task_table("t", TASKS, SCORES, best={}))
    assert row(first, "kind").count("★") == row(first, "size").count("★") == 1


def test_gains_and_their_mean():
    shown = text(task_table("t", TASKS, SCORES, gains={"kind": 4.0, "size": -1.0}, notes="note"))
    assert "+4.00 %" in row(shown, "kind")
    assert "-1.00 %" in row(shown, "size")
    assert "Δm = +1.50 % over single-task runs" in shown
    assert "note" in shown


def test_a_task_without_labels_is_said():
    shown = text(task_table("t", TASKS, {"kind": SCORES["kind"]}, best={}))
    assert "no labels" in row(shown, "size")
    assert "★" not in row(shown, "size")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.41273, "0.4127"),
        (12.3456, "12.35"),
        (1234.56, "1235"),
        (0.0, "0.000"),
        (1.2e-5, "1.20e-05"),
        (123456.0, "1.23e+05"),
        (math.nan, "nan"),
        (-0.5, "-0.5000"),
    ],
)
def test_numbers_have_four_digits(value, shown):
    assert number(value) == shown


def trainer(folder, *callbacks, **arguments) -> L.Trainer:
    return L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **arguments,
    )


def module() -> MultiTaskModule:
    return MultiTaskModule(toy_tasks(), ToyNetwork)


@pytest.mark.parametrize("bar", [RichProgressBar, TQDMProgressBar, None])
def test_tables_appear_under_every_progress_bar(tmp_path, capsys, bar):
    table = TaskTable()
    bars = [bar()] if bar else []
    run = trainer(tmp_path, table, *bars, enable_progress_bar=bar is not None)
    run.fit(module(), toy_loader(), toy_loader(seed=1))
    shown = capsys.readouterr().out
    assert shown.count("Validation · epoch ") == 2
    assert "epoch 2" in shown
    assert shown.count("accuracy ↑") == 2
    assert set(table.state_dict()["best"]) == {"size", "kind", "marks"}


def test_silent_fits_still_show_tests(tmp_path, capsys):
    run = trainer(tmp_path, TaskTable(every_n_epochs=0), enable_progress_bar=False)
    model = module()
    run.fit(model, toy_loader(), toy_loader(seed=1))
    assert "Validation" not in capsys.readouterr().out
    run.test(model, toy_loader(seed=2), verbose=False)
    assert "Test" in capsys.readouterr().out


def test_best_values_are_state():
    table = TaskTable()
    table.load_state_dict({"best": {"size": {"rmse": 1.0}}})
    assert table.state_dict() == {"best": {"size": {"rmse": 1.0}}}


def test_references_of_other_tasks_are_refused_before_training(tmp_path):
    path = tmp_path / "paper.yaml"
    path.write_text("tasks: {size: {rmse: 1.0}}\n")
    run = trainer(tmp_path, TaskTable(str(path)), enable_progress_bar=False)
    with pytest.raises(MissingTaskError, match="'kind' has none"):
        run.fit(module(), toy_loader(), toy_loader(seed=1))
    with pytest.raises(ArgumentError, match="every_n_epochs must not be negative"):
        TaskTable(every_n_epochs=-1)
