"""Networks whose samples see each other are found out by trying."""

import numpy as np
import pytest
import torch
from torch import nn
from toy_exports import SIZE, image_source, table_network

from export.batching import (
    BatchDependenceError,
    check_batching,
    near_ties,
    place_margins,
    repeat,
)
from export.graph import ExportNetwork
from export.moe_forms import CapacityMoE, GraphRouter
from export.samples import input_spec
from export.source import Source
from mtl_core.moe import ExpertBank
from mtl_tabular.networks import MultiTabNet


def checked(source, size=None):
    spec = input_spec(source, size)
    module = ExportNetwork(
        source.network, tuple(source.tasks), inputs=spec.names, mean=spec.mean, std=spec.std
    )
    check_batching(module, spec, spec.random(3))


def test_networks_that_keep_samples_apart_pass():
    checked(image_source(), SIZE)
    checked(Source(table_network(MultiTabNet, inter_sample="rowwise"), None, None, "x"))


def test_attention_between_rows_is_refused_with_what_would_help():
    source = Source(table_network(MultiTabNet, inter_sample="full"), None, None, "x")
    with pytest.raises(BatchDependenceError, match=r"inter_sample: memory or rowwise") as error:
        checked(source)
    assert max(error.value.found.values()) > 1e-3


def test_samples_are_repeated_in_order():
    held = {"x": np.arange(6).reshape(2, 3), "y": np.arange(2)}
    found = repeat(held, 5)
    assert found["y"].tolist() == [0, 1, 0, 1, 0]
    assert np.array_equal(found["x"], held["x"][[0, 1, 0, 1, 0]])
    assert repeat(held, 1)["x"].tolist() == [[0, 1, 2]]


def test_without_routers_nothing_hangs_on_rounding():
    source = image_source()
    spec = input_spec(source, SIZE)
    assert not near_ties(source.network, spec, ["depth"], 1.0, spec.random(2)).any()


def test_margins_of_the_last_place():
    """Three tokens of gates 0.9, 0.6 and 0.5 choose one expert that takes two of them."""
    bank = ExpertBank(2, dim=2, hidden=4)
    layer = CapacityMoE(
        GraphRouter(torch.zeros(2, 2), None, kept=2, top_k=1, renormalise=False),
        [bank.expert(e) for e in range(2)],
        capacity=2,
    )
    logits = torch.tensor([[[0.9, 0.1], [0.5, 0.5 - 1e-3], [0.6, 0.4]]]).log()
    layer.router.forward = lambda x: found(logits[:, : x.shape[1]])

    def found(logits):
        from mtl_core.moe import choose

        return choose(logits, 1, "none")

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x, tasks):
            self.layer(x)

    margins = place_margins(Net(), torch.rand(1, 3, 2), ["t"])
    assert margins.item() == pytest.approx(0.6 - 0.5005, abs=1e-3)
    assert place_margins(Net(), torch.rand(1, 2, 2), ["t"]).isinf().all(), "a place for each"
    assert not layer._forward_hooks
