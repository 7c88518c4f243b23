"""A 1×1 convolution on the last map."""

from torch import Tensor, nn

from mtl_core.nn import FeatureInfo, Features
from mtl_core.tasks import Task
from mtl_vision.decoders.dense import DenseDecoder


class LinearMapDecoder(DenseDecoder):
    """Linear probe of dense features: one linear layer per position of the last map.

    Shapes: last map (B, D, h, w) → (B, C, h, w).

    Args:
        info: shapes of the features.
        task: a dense task.
        dropout: probability of dropping a channel, in [0, 1).
    """

    def __init__(self, info: FeatureInfo, task: Task, *, dropout: float = 0.0) -> None:
        super().__init__(info, task)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(info.channels[-1], task.out_channels, 1)

    def forward(self, features: Features) -> Tensor:
        """Raw prediction (B, C, h, w) at the last map's stride."""
        prediction: Tensor = self.classifier(self.dropout(features.maps[-1]))
        return prediction
