"""Metrics of activated predictions are those that training would have logged."""

import numpy as np
import pytest
import torch
from torchmetrics import MetricCollection
from toy_exports import table_source

from export.evaluate import evaluate, spread
from export.graph import ExportNetwork
from mtl_core.errors import ArgumentError
from mtl_core.modules.scores import Scores
from mtl_core.tasks import Classification, MultiLabel, Regression
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, NumericTarget
from mtl_vision.tasks import (
    BoundaryDetection,
    DepthEstimation,
    SaliencyDetection,
    SemanticSegmentation,
    SurfaceNormals,
)

MAP = (2, 4, 5)
NUMBER = NumericTarget(mean=100.0, std=3.0)


@pytest.mark.parametrize(
    ("task", "prediction", "target"),
    [
        (Classification(num_classes=3), (4, 3), torch.tensor([0, 2, 1, 1])),
        (MultiLabel(num_labels=2), (2, 2), torch.tensor([[0, 1], [1, -1]])),
        (Regression(mean=5.0, std=2.0), (3, 1), torch.tensor([[4.0], [6.0], [9.0]])),
        (BinaryTarget(classes=("no", "yes")), (3, 1), torch.tensor([0.0, 1.0, 1.0])),
        (MulticlassTarget(classes=("a", "b", "c")), (4, 3), torch.tensor([0, 2, 1, 1])),
        (NUMBER, (3, 1), torch.tensor([[97.0], [101.0], [103.0]])),
        (SemanticSegmentation(num_classes=3), (2, 3, 4, 5), torch.ones(MAP, dtype=torch.long)),
        (DepthEstimation(), (2, 1, 4, 5), torch.rand(MAP) + 1),
        (SurfaceNormals(), (2, 3, 4, 5), torch.nn.functional.normalize(torch.rand(2, 3, 4, 5))),
        (BoundaryDetection(), (2, 1, 4, 5), torch.ones(MAP)),
        (SaliencyDetection(), (2, 2, 4, 5), torch.ones(MAP)),
    ],
    ids=lambda v: type(v).__name__ if hasattr(v, "element_loss") else "",
)
def test_activated_predictions_score_as_raw_ones(task, prediction, target):
    raw = torch.randn(prediction, generator=torch.Generator().manual_seed(0))
    valid = task.valid(target)
    first, second = (MetricCollection(dict(task.metrics())) for _ in range(2))
    task.update(first, raw, target, valid)
    task.score(second, task.activate(raw.float()), target, valid)
    wanted, found = first.compute(), second.compute()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, equal_nan=True, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return table_source(tmp_path_factory.mktemp("run"))


def predictor(source):
    module = ExportNetwork(source.network, list(source.tasks), inputs=("numeric", "categorical"))

    def predict(arrays):
        found = module.outputs({k: torch.from_numpy(v) for k, v in arrays.items()})
        return {name: value.numpy() for name, value in found.items()}

    return predict


def test_scores_are_those_of_validation(source):
    found = evaluate(predictor(source), source, batch=3)
    scores = Scores(source.tasks, ())
    for batch in source.data.val_dataloader():
        with torch.no_grad():
            scores.add_predictions(source.network(batch["inputs"]), batch)
    wanted = scores.compute()
    flat = {
        f"{task}/{key}": value for task, values in found.items() for key, value in values.items()
    }
    assert flat == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_a_part_of_the_split_and_of_the_tasks(source):
    name = next(iter(source.tasks))
    seen = []

    def only(arrays):
        seen.append(len(next(iter(arrays.values()))))
        return {name: predictor(source)(arrays)[name]}

    found = evaluate(only, source, limit=5, batch=2)
    assert list(found) == [name]
    assert sum(seen) == 5
    assert max(seen) == 2


def test_what_cannot_be_scored(source):
    with pytest.raises(ArgumentError, match="limit must be at least 1"):
        evaluate(predictor(source), source, limit=0)
    held, source.data = source.data, None
    with pytest.raises(ArgumentError, match="data module"):
        evaluate(predictor(source), source)
    source.data = held


def test_indices_are_spread():
    assert spread(3, None) == spread(3, 9) == [0, 1, 2]
    assert len(set(spread(1000, 7))) == 7
    assert np.ptp(np.diff(spread(1000, 7))) <= 1
