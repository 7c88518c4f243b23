"""Networks whose samples see each other are found out by trying."""

import numpy as np
import pytest
from toy_exports import SIZE, image_source, table_network

from export.batching import BatchDependenceError, check_batching, near_ties, repeat
from export.graph import ExportNetwork
from export.samples import input_spec
from export.source import Source
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
