"""Inputs of graphs: shapes, statistics, samples, and what cannot be written down."""

import dataclasses

import numpy as np
import pytest
import torch
from toy_exports import SIZE, image_source, table_source
from toys import ToyNetwork, toy_samples, toy_tasks

from export.samples import IMAGENET_MEAN, draw, input_spec
from export.source import Source, SourceError
from mtl_core.data import MultiTaskDataModule
from mtl_core.errors import ArgumentError
from mtl_core.tasks import Classification
from mtl_vision.data import MultiDigits
from mtl_vision.networks import HardSharing


@pytest.fixture(scope="module")
def digits():
    tasks = {name: Classification(num_classes=10) for name in ("left", "right")}
    network = HardSharing(tasks, encoder="test_resnet").eval()
    return Source(network, {}, MultiDigits(tasks, val_size=5), "HardSharing")


def test_images_of_a_data_module_lose_their_normalisation(digits):
    spec = input_spec(digits)
    assert spec.entries[0]["shape"] == ["batch", 3, 24, 24]
    assert spec.names == ("image",)
    assert spec.mean == pytest.approx(IMAGENET_MEAN)
    assert spec.preprocess["kind"] == "image"
    arrays, origin = draw(digits, spec, 7)
    assert origin == "validation"
    assert arrays["image"].shape == (5, 3, 24, 24), "the split has no more"
    assert arrays["image"].dtype == np.float32
    assert 0 <= arrays["image"].min() <= arrays["image"].max() <= 1
    grey_levels = arrays["image"] * 255
    assert np.abs(grey_levels - grey_levels.round()).max() < 1e-3, "pictures have 8 bits"
    sample = digits.data.prepared("val").sample(2)["inputs"]
    assert torch.allclose(spec.tensors(arrays)[2], sample, atol=1e-5)


def test_images_without_data_need_a_size_unless_the_encoder_fixes_it(digits):
    free = dataclasses.replace(digits, data=None)
    with pytest.raises(SourceError, match=r"--config .*--size H W"):
        input_spec(free)
    assert input_spec(free, (16, 24)).entries[0]["shape"] == ["batch", 3, 16, 24]
    source = image_source()
    spec = input_spec(source)
    assert spec.entries[0]["shape"] == ["batch", 3, *SIZE]
    arrays, origin = draw(source, spec, 4)
    assert origin == "random"
    assert np.array_equal(arrays["image"], draw(source, spec, 4)[0]["image"]), "seeded"
    assert [step["op"] for step in spec.preprocess["operations"]] == [
        "decode", "resize", "scale", "layout",
    ]  # fmt: skip


def test_another_size_than_that_of_the_data_is_refused(digits):
    with pytest.raises(ArgumentError, match=r"size must be that .*\(24, 24\)"):
        input_spec(digits, (32, 32))


def test_columns(tmp_path):
    source = table_source(tmp_path)
    spec = input_spec(source)
    assert [(e["name"], e["dtype"], e["shape"][1]) for e in spec.entries] == [
        ("numeric", "float32", 2),
        ("categorical", "int64", 2),
    ]
    assert spec.entries[0]["columns"] == ["age", "income"]
    assert {column["name"] for column in spec.preprocess["categorical"]} == {"city", "member"}
    arrays, origin = draw(source, spec, 8)
    assert origin == "validation"
    assert arrays["categorical"].dtype == np.int64
    assert np.isnan(arrays["numeric"]).any(), "missing numbers reach the graph as NaN"
    random = dataclasses.replace(spec).random(50)
    assert np.isnan(random["numeric"]).any()
    assert (random["categorical"].max(0) < spec.cardinalities).all()
    assert all(
        torch.equal(spec.tensors(arrays)[n], torch.from_numpy(arrays[n]))
        for n in arrays
        if n == "categorical"
    )


class Vectors(MultiTaskDataModule):
    """Samples that are neither images nor columns."""

    def dataset(self, split):
        return toy_samples()

    def transform(self, split):
        return None if split != "predict" else Written()


class Written:
    def operations(self):
        return {"kind": "image"}


def test_inputs_that_are_neither_images_nor_columns_are_refused():
    network = ToyNetwork(toy_tasks()).eval()
    source = Source(network, {}, Vectors(toy_tasks()), "ToyNetwork")
    with pytest.raises(SourceError, match=r"must take images .*found \(6,\) from Vectors"):
        input_spec(source)


def test_a_transform_that_says_nothing_is_named(digits):
    class Silent(MultiDigits):
        def transform(self, split):
            return lambda sample, rng: sample

    source = dataclasses.replace(digits, data=Silent(digits.tasks))
    with pytest.raises(SourceError, match=r"the transform of Silent .*no method operations"):
        input_spec(source)
