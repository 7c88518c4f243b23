from functools import partial

import pytest

from mtl_core.errors import UnknownNameError
from mtl_core.nn import FeatureInfo, LinearDecoder
from mtl_core.tasks import Classification
from mtl_vision.decoders import FPNDecoder, LinearMapDecoder, build_decoders
from mtl_vision.tasks import DepthEstimation, SemanticSegmentation

INFO = FeatureInfo((8, 8), (4, 8))
TASKS = {
    "depth": DepthEstimation(),
    "scene": Classification(num_classes=2),
    "semseg": SemanticSegmentation(num_classes=3),
}


def test_default_exceptions_and_tasks_of_whole_images():
    default = partial(FPNDecoder, width=8)
    decoders = build_decoders(INFO, TASKS, default, {"depth": LinearMapDecoder})
    assert {name: type(decoder) for name, decoder in decoders.items()} == {
        "depth": LinearMapDecoder,
        "scene": LinearDecoder,
        "semseg": FPNDecoder,
    }
    assert decoders["semseg"].task is TASKS["semseg"]


def test_exceptions_have_to_name_tasks():
    with pytest.raises(
        UnknownNameError, match=r"decoders must be a known name, found 'dept'.*depth"
    ):
        build_decoders(INFO, TASKS, FPNDecoder, {"dept": LinearMapDecoder})
