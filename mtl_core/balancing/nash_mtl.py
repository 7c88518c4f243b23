"""Multi-task learning as a bargaining game."""

from typing import Any

import torch
from torch import Tensor

from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.newton import power_equilibrium
from mtl_core.balancing.solvers import is_stationary, to_numpy
from mtl_core.balancing.stages import Stages


class NashMTL(GradientBalancer):
    r"""The update that all tasks would agree on in Nash's bargaining game.

    Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022: the direction of the
    greatest :math:`\sum_t \log (g_t \cdot d)` in a ball is :math:`J^\top \alpha` with

    .. math:: G \alpha = 1 / \alpha, \qquad \alpha > 0

    (claim 3.1), the only minimiser of :math:`\tfrac12 \alpha^\top G \alpha - \sum_t \log \alpha_t`,
    which Newton's method finds (`power_equilibrium`), from the former step's answer on. For two
    tasks :math:`\alpha_t = 1 / (\lVert g_t \rVert \sqrt{1 + \cos})`. No task gets worse to first
    order, and no scale of a loss changes the update.

    Degree zero: :math:`\lVert J^\top \alpha \rVert = \sqrt T` whatever the gradients' length, also
    for one task. The published code clips the update to length one, so that its length is almost
    always just that; so does the default here (``Stages(norm="max")``). ``Stages(norm="sum")``, an
    update as long as the plain sum's, is the better choice where learning rates were tuned for a
    sum. ``scale`` has no effect. Decoders are weighted, as published, by :math:`\alpha` before the
    clip: an inverse of gradient lengths.

    Near a Pareto stationary point the weights grow; 1e-8 of the diagonal is added to the Gramian,
    which bounds :math:`\alpha_t \lVert g_t \rVert` by 1e4 times :math:`\sqrt T` and lets the update
    fade to zero. The report says ``stationary`` where :math:`\lVert d \rVert^2` is below 1e-6 of
    :math:`\sum_t \alpha_t^2 G_{tt}`; the update is not rescaled there.

    LibMTL, TorchJD and the authors' code solve a normalised Gramian with CVXPY and do not undo the
    factor, which the clip hides; their loop stops early, and without the ECOS solver LibMTL's
    silently keeps equal weights. ``update_weights_every`` of theirs is ``Stages(refresh=...)``.

    Args:
        stages: options common to all methods of this family; the default clips to length one and
            weighs decoders.
        seed: unused; every balancer has one.
    """

    source = "Navon et al., ICML 2022"

    def __init__(self, *, stages: Stages | None = None, seed: int = 0) -> None:
        default = Stages(norm="max", max_norm=1.0, weight_decoders=True)
        super().__init__(stages=default if stages is None else stages, seed=seed)
        self.former = torch.zeros(0, dtype=torch.float64)

    def reset(self, entries: int) -> None:
        """Start Newton's method at the answer for orthogonal rows."""
        self.former = torch.ones(entries, dtype=torch.float64)

    def weigh(self, gramian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """The bargaining solution."""
        inner = to_numpy(gramian)
        alpha, found = power_equilibrium(inner, start=to_numpy(self.former[step.present]))
        self.former[step.present] = torch.from_numpy(found)
        self.report["stationary"] = float(is_stationary(inner, alpha, tolerance=1e-6))
        return torch.from_numpy(alpha)

    def gain(self, tasks: int) -> None:
        """It depends on the length of the rows."""

    def method_state(self) -> dict[str, Any]:
        """The former answer in units of the inverse lengths of the rows."""
        return {"former": self.former}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.former = state["former"].clone()
