"""Fixed weights by task."""

from collections.abc import Mapping

from torch import Tensor

from mtl_core.balancing.by_name import ByName
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step
from mtl_core.errors import ArgumentError


class Static(LossBalancer):
    r"""Minimises :math:`\sum_t c_t \ell_t` with weights that never change.

    Tuned fixed weights are the baseline that Xin et al. (NeurIPS 2022) and Kurin et al. (NeurIPS
    2022) found competitive with every specialised method. The weights of any other method's run
    can be fixed with it. In contrast to `Task.weight`, logged losses stay unweighted. TorchJD calls
    it Constant.

    Args:
        weights: factor by task or by ``task/group``, not negative and not all zero; names that the
            run does not have raise when it starts.
        default: weight of tasks that are not named.
        seed: unused; every balancer has one.

    Example:
        >>> import torch
        >>> balancer = Static(weights={"depth": 0.1})
        >>> balancer.start(("depth", "normals"))
        >>> balancer.weigh(torch.ones(2), balancer.step(balancer.entries)).tolist()
        [0.1, 1.0]
    """

    source = "baseline; Kurin et al., NeurIPS 2022"

    def __init__(
        self, *, weights: Mapping[str, float] | None = None, default: float = 1.0, seed: int = 0
    ) -> None:
        super().__init__(seed=seed)
        self.fixed = ByName("weights", weights, default)
        named = {f"weights[{name!r}]": value for name, value in self.fixed.given.items()}
        for argument, value in (named | {"default": default}).items():
            if not 0 <= value < float("inf"):
                raise ArgumentError(argument, "be finite and not negative", value)

    def reset(self, entries: int) -> None:
        """Check names against those of the run."""
        self.fixed.check(self.entries)
        if self.entries and not any(self.fixed.value(e) for e in self.entries):
            raise ArgumentError("weights", "leave at least one task above zero", self.fixed.given)

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """The fixed weights (T,)."""
        return self.fixed.tensor(step)
