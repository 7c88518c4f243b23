"""Sum of the logarithms of the losses."""

from collections.abc import Mapping

from torch import Tensor

from mtl_core.balancing.by_name import ByName
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.stages import require_positive
from mtl_core.errors import ArgumentError


class SI(LossBalancer):
    r"""Scale-invariant sum: minimises :math:`\sum_t \log(\ell_t + \varepsilon)`.

    The weight of a task is :math:`1 / (\ell_t + \varepsilon)`, so that factors on the losses do not
    matter. It is the ``SI`` baseline of the multi-task literature (Navon et al., "Multi-Task
    Learning as a Bargaining Game", ICML 2022) and the ``log`` transform of the Gramian methods.

    Fragile where losses are not positive (cosine losses, ELBOs), which raises; `shift` helps. The
    weights have degree -1 in the losses and no consensus gain, so the step grows as losses fall.
    LibMTL and TorchJD do not have it.

    Args:
        shift: added to the loss of the named tasks before the logarithm.
        eps: added to all losses, not negative; bounds the weights by its inverse.
        seed: unused; every balancer has one.
    """

    source = "Navon et al., ICML 2022"

    def __init__(
        self, *, shift: Mapping[str, float] | None = None, eps: float = 1e-8, seed: int = 0
    ) -> None:
        super().__init__(seed=seed)
        self.shift = ByName("shift", shift, 0.0)
        for name, value in self.shift.given.items():
            if not abs(value) < float("inf"):
                raise ArgumentError(f"shift[{name!r}]", "be finite", value)
        if not 0 <= eps < float("inf"):
            raise ArgumentError("eps", "be finite and not negative", eps)
        self.eps = eps

    def reset(self, entries: int) -> None:
        """Check names against those of the run."""
        self.shift.check(self.entries)

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Inverses (T,) of the shifted losses.

        Raises:
            BalancerError: a shifted loss is not positive.
        """
        shifted = losses + self.shift.tensor(step)
        require_positive(shifted, step, "logarithms of losses (after shift)")
        return 1 / (shifted + self.eps)
