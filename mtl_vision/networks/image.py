"""What networks on images share: one tensor in, dense predictions of its size out."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from mtl_core.errors import ArgumentError
from mtl_core.nn import MultiTaskNetwork
from mtl_core.tasks import Task
from mtl_core.types import Inputs, Predictions, TaskName
from mtl_vision.decoders.blocks import resize


class ImageNetwork(MultiTaskNetwork):
    """A network whose `forward` resamples dense predictions to the height and width of the images.

    `run` keeps the resolution of the decoders.

    Args:
        tasks: records by name.
    """

    def forward(
        self,
        inputs: Inputs,
        tasks: Sequence[TaskName] | None = None,
        tags: Mapping[str, Tensor] | None = None,
    ) -> Predictions:
        """Raw predictions by task name, dense ones resampled to the input's height and width."""
        predictions = super().forward(inputs, tasks, tags)
        images = image_tensor(inputs)
        size = (images.shape[-2], images.shape[-1])
        return {
            name: resize(prediction, size) if self.tasks[name].dense else prediction
            for name, prediction in predictions.items()
        }


def image_tensor(inputs: Inputs) -> Tensor:
    """The images (B, 3, H, W); `ArgumentError` where inputs come by name."""
    if not isinstance(inputs, Tensor):
        raise ArgumentError("inputs", "be one image tensor (B, 3, H, W)", sorted(inputs))
    return inputs


def check_dense(tasks: Mapping[TaskName, Task], network: str) -> None:
    """Refuse tasks that have no maps to predict."""
    for name, task in tasks.items():
        if not task.dense:
            raise ArgumentError(
                f"tasks of {network}",
                "all be dense, as their maps are exchanged",
                f"{name}: {type(task).__name__}",
            )
