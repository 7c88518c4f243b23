import lightning as L
import numpy as np
import pytest
from PIL import Image
from toys import ToyNetwork, toy_loader, toy_tasks

from mtl_core.callbacks import Curves
from mtl_core.callbacks.curves import draw_curves
from mtl_core.errors import ArgumentError
from mtl_core.modules import MultiTaskModule
from mtl_core.tasks import Regression

HISTORY = {
    "train/size/loss": [(1.0, 3.0), (2.0, 2.0)],
    "val/size/loss": [(1.0, 3.5), (2.0, 3.0)],
    "val/size/rmse": [(1.0, 0.5), (2.0, 0.7)],
}


def test_a_row_a_task_with_loss_and_primary_metric():
    figure = draw_curves(HISTORY, {"size": Regression(), "other": Regression()})
    loss, metric, *_ = figure.axes
    assert len(figure.axes) == 4
    assert [line.get_ydata().tolist() for line in loss.lines] == [[3.0, 2.0], [3.5, 3.0]]
    curve, best = metric.lines
    assert curve.get_ydata().tolist() == [0.5, 0.7]
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (1.0, 0.5), "lower is better"


def test_reference_is_a_line():
    metric = draw_curves(HISTORY, {"size": Regression()}, {"size": 0.6}).axes[1]
    assert 0.6 in [float(line.get_ydata()[0]) for line in metric.lines]


def test_history_of_a_fit_is_drawn_and_kept(tmp_path):
    curves = Curves()
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        default_root_dir=tmp_path,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        val_check_interval=0.5,
        callbacks=[curves],
    )
    trainer.fit(MultiTaskModule(toy_tasks(), ToyNetwork), toy_loader(), toy_loader(seed=1))
    history = curves.state_dict()["history"]
    assert [at for at, _ in history["train/size/loss"]] == [1, 2, 3]
    assert [at for at, _ in history["val/kind/accuracy"]] == [0.5, 1, 1.5, 2, 2.5, 3]
    picture = np.asarray(Image.open(tmp_path / "curves.png").convert("L"))
    assert picture.min() < 100 < 200 < picture.max(), "something is drawn"
    resumed = Curves()
    resumed.load_state_dict({"history": history})
    assert resumed.state_dict()["history"] == history


def test_interval_is_no_negative_number():
    with pytest.raises(ArgumentError, match="every_n_seconds must not be negative"):
        Curves(every_n_seconds=-1)
