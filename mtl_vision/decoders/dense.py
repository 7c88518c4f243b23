"""What all dense decoders share."""

from mtl_core.errors import ArgumentError
from mtl_core.nn import Decoder, FeatureInfo
from mtl_core.tasks import Task


class DenseDecoder(Decoder):
    """A decoder that gives maps (B, C, h, w), at a resolution of its own.

    Predictions are raw and low-resolution; `Task.match` resamples them to the label's size.

    Args:
        info: shapes of the features.
        task: a dense task.

    Raises:
        ArgumentError: the task has no maps to predict.
    """

    def __init__(self, info: FeatureInfo, task: Task) -> None:
        if not task.dense:
            raise ArgumentError(
                f"the task of a {type(self).__name__}",
                "be dense; classification and regression of whole images take LinearDecoder",
                type(task).__name__,
            )
        super().__init__(info, task)
