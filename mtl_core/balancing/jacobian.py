"""Methods that need the rows themselves: element-wise rules, state of the parameters' size."""

from abc import abstractmethod

from torch import Tensor

from mtl_core.balancing.losses import Step
from mtl_core.balancing.rowwise import RowBalancer, Update


class JacobianBalancer(RowBalancer):
    """Turns the T×n Jacobian into one direction of size n."""

    needs = "rows"

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

    def decoder_factors(self, losses: Tensor, step: Step) -> Tensor | None:
        """Factors (T,) of the decoders' gradients; None leaves them as they are. Default: None.

        Asked after `aggregate`.
        """
        return None

    def update(self, rows: Tensor, losses: Tensor, step: Step) -> Update:
        """The method's direction, with the loss scale taken off before and put back after."""
        scale = self.loss_scale()
        direction = self.aggregate(rows if scale == 1.0 else rows / scale, losses, step)
        decoders = self.decoder_factors(losses, step)
        return Update(direction if scale == 1.0 else direction * scale, None, decoders)
