"""Selection of the gradients that lie closest to the others."""

import torch
from torch import Tensor

from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.stages import Stages
from mtl_core.errors import ArgumentError


def krum_weights(gramian: Tensor, *, closest: int, selected: int, squared: bool = True) -> Tensor:
    """Equal weights on the rows of the smallest summed distance to their closest others.

    Args:
        gramian: (T, T).
        closest: how many other rows a row is compared with, at most T - 1.
        selected: how many rows are kept, at most T. Of equal rows, the first.
        squared: whether squared distances are summed, as published.

    Returns:
        (T,) weights of sum one, in the Gramian's type.
    """
    squares = gramian.diagonal()
    distances = (squares[:, None] + squares - 2 * gramian).clamp_min(0)
    distances.fill_diagonal_(0)
    if not squared:
        distances = distances.sqrt()
    scores = distances.sort(1).values[:, 1 : closest + 1].sum(1)
    weights = torch.zeros_like(scores)
    weights[scores.argsort(stable=True)[:selected]] = 1 / selected
    return weights


class Krum(GradientBalancer):
    """Follows the tasks whose gradients lie closest to the others, and ignores the rest.

    Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent",
    NeurIPS 2017: the score of a row is the sum of its T - f - 2 smallest squared distances to other
    rows, where f rows may be adversarial; the row of the smallest score is the update (several:
    their mean). Made for equal workers, of which some lie, not for tasks: a task that differs is
    left out for ever. Offered for studies of robustness.

    At least one distance counts and at most all tasks are selected, whatever number of tasks a
    batch has; the published guarantee needs T > 2f + 2. One task gives the identity; of two tasks
    the first is followed, as their scores agree. Degree one in the scale of the gradients; the
    choice itself is free of it. Decoders are not weighted.

    TorchJD sums distances, not their squares (``squared: false`` agrees with it) and refuses T < f
    + 3. LibMTL has no such method.

    Args:
        byzantine: f, not negative.
        selected: number of rows that are averaged, at least 1.
        squared: sum squared distances, as published.
        stages: options common to all methods of this family.
        seed: unused; every balancer has one.
    """

    source = "Blanchard et al., NeurIPS 2017"

    def __init__(
        self,
        *,
        byzantine: int = 0,
        selected: int = 1,
        squared: bool = True,
        stages: Stages | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(stages=stages, seed=seed)
        if byzantine < 0:
            raise ArgumentError("byzantine", "not be negative", byzantine)
        if selected < 1:
            raise ArgumentError("selected", "be at least 1", selected)
        self.byzantine = byzantine
        self.selected = selected
        self.squared = squared

    def weigh(self, gramian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Equal weights on the selected rows."""
        tasks = len(gramian)
        return krum_weights(
            gramian,
            closest=max(tasks - self.byzantine - 2, 1),
            selected=min(self.selected, tasks),
            squared=self.squared,
        )

    def gain(self, tasks: int) -> float:
        """The weights sum to one."""
        return 1.0
