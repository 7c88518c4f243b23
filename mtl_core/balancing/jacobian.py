"""Methods that need the rows themselves: element-wise rules, state of the parameters' size."""

from abc import abstractmethod

from torch import Tensor

from mtl_core.balancing.losses import Step
from mtl_core.balancing.rowwise import RowBalancer


class JacobianBalancer(RowBalancer):
    """Turns the T×n Jacobian into one direction of size n."""

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__(seed=seed)

    @abstractmethod
    def aggregate(self, jacobian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Direction (n,).

        Args:
            jacobian: (T, n) float32 on the parameters' device, finite, of unscaled gradients.
            losses: (T,) float64 on the CPU.
            step: the update.
        """

    def update(self, rows: Tensor, losses: Tensor, step: Step) -> tuple[Tensor, Tensor | None]:
        """The method's direction, with the loss scale taken off before and put back after."""
        scale = self.loss_scale()
        if scale == 1.0:
            return self.aggregate(rows, losses, step), None
        return self.aggregate(rows / scale, losses, step) * scale, None
