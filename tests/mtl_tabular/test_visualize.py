import numpy as np
import pandas as pd
import pytest
import torch

from mtl_core.errors import ArgumentError
from mtl_tabular.data.schema import NumericColumn, TableSchema
from mtl_tabular.networks import MultiTabNet
from mtl_tabular.tasks import BinaryTarget, NumericTarget
from mtl_tabular.visualize import draw_attention, draw_importance

IMPORTANCE = pd.DataFrame(
    {
        "task": ["sale", "sale", "amount", "amount"],
        "feature": ["age", "city", "city", "age"],
        "metric": ["auroc", "auroc", "explained_variance", "explained_variance"],
        "importance": [0.3, 0.1, 0.5, 0.0],
        "low": [0.2, 0.0, 0.4, -0.1],
        "high": [0.4, 0.2, 0.6, 0.1],
    }
)


def test_a_panel_a_task_with_the_most_important_on_top(tmp_path):
    figure = draw_importance(IMPORTANCE, file=tmp_path / "importance.png")
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["sale", "amount"]
    labels = [t.get_text() for t in figure.axes[1].get_yticklabels()]
    heights = [bar.get_y() for bar in figure.axes[1].patches]
    assert labels[int(np.argmax(heights))] == "city"
    assert (tmp_path / "importance.png").stat().st_size > 0


def test_only_the_top_is_drawn():
    assert len(draw_importance(IMPORTANCE, top=1).axes[0].patches) == 1
    with pytest.raises(ArgumentError, match="top"):
        draw_importance(IMPORTANCE, top=0)
    with pytest.raises(ArgumentError, match="columns"):
        draw_importance(IMPORTANCE.drop(columns="low"))


def test_attention_of_a_network_is_labelled():
    schema = TableSchema(numeric=tuple(NumericColumn(name=n) for n in ("age", "pay", "rank")))
    tasks = {"sale": BinaryTarget(), "amount": NumericTarget()}
    network = MultiTabNet(tasks, schema=schema, depth=2)
    weights = network.attention({"numeric": torch.randn(7, 3)}).detach()
    figure = draw_attention(weights, list(tasks), schema.names)
    panels = [panel for panel in figure.axes if panel.images and panel.get_xlabel() == ""][:2]
    assert len(panels) == 2
    np.testing.assert_allclose(panels[1].images[0].get_array(), weights[1].numpy(), rtol=1e-6)
    assert [t.get_text() for t in panels[0].get_yticklabels()] == ["sale", "amount"]
    assert [t.get_text() for t in panels[1].get_xticklabels()] == ["age", "pay", "rank"]


def test_names_and_weights_must_match():
    with pytest.raises(ArgumentError, match=r"\(depth, 1, 2\)"):
        draw_attention(np.ones((3, 2)), ["a"], ["x", "y"])
