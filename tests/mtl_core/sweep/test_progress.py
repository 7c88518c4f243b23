"""What a run tells the sweep, and that telling changes nothing."""

import json

import pytest
import torch
import toy_cli  # its classes are named by the config

import mtl_core.modules
import mtl_core.nn
import mtl_core.tasks  # noqa: F401
from mtl_core.single_task import main
from mtl_core.sweep.progress import read_progress


def fit(folder, *words: str):
    """Train the toy in a folder of its own and give what it left."""
    config = toy_cli.write_config(folder)
    own = ["--trainer.logger=false", f"--trainer.default_root_dir={folder}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["toy"])
        main(args=["fit", "-c", str(config), *own, *words])
    (checkpoint,) = folder.rglob("*.ckpt")
    held = torch.load(checkpoint, weights_only=True)["state_dict"]
    return folder, json.loads((folder / "metrics.json").read_text()), held


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    progress = {"class_path": "mtl_core.sweep.progress.Progress", "init_args": {"macs": True}}
    word = f"--trainer.callbacks+={json.dumps(progress)}"
    return fit(tmp_path_factory.mktemp("told"), word)


def test_every_validation_is_told_and_the_cost_at_the_end(told):
    folder, metrics, _ = told
    *validations, cost = read_progress(folder)
    assert [line["validation"] for line in validations] == [1, 2]
    assert [line["epoch"] for line in validations] == [1, 2]
    for task, scores in metrics["val"]["tasks"].items():
        for metric, value in scores.items():
            assert validations[-1][f"val/{task}/{metric}"] == pytest.approx(value)
    assert "val/loss" in validations[0]
    # A trunk 3 → 4 and heads 4 → 3 and 4 → 1, with biases.
    assert cost == {"parameters": 16 + 15 + 5, "macs": 3 * 4 + 4 * 3 + 4 * 1}


def test_nothing_of_the_run_changes(told, tmp_path):
    _, metrics, weights = told
    _, plain, same = fit(tmp_path)
    assert plain["val"] == metrics["val"]
    assert all(torch.equal(weights[key], same[key]) for key in weights)


def test_line_in_the_making_is_left_for_later(tmp_path):
    assert read_progress(tmp_path) == []
    (tmp_path / "progress.jsonl").write_text('{"validation": 1}\n{"valid')
    assert read_progress(tmp_path) == [{"validation": 1}]
