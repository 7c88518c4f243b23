"""Multiple-gradient descent: the shortest convex combination."""

from torch import Tensor

from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.solvers import min_norm_point
from mtl_core.balancing.stages import Stages


class MGDA(GradientBalancer):
    r"""Shortest vector in the convex hull of the tasks' gradients.

    Désidéri, Comptes Rendus Mathematique 2012; Sener and Koltun, NeurIPS 2018, sec. 3.

    .. math:: w = \arg\min_{w \in \Delta} w^\top G w, \qquad d = J^\top w.

    It is zero exactly where no direction improves all tasks to first order (a Pareto stationary
    point); elsewhere :math:`g_t \cdot d \ge \lVert d \rVert^2` for every task. For two tasks
    :math:`w_1` is :math:`(G_{22} - G_{12}) / (G_{11} + G_{22} - 2 G_{12})`, limited to [0, 1]. The
    solver is exact; the iterations of LibMTL and TorchJD stop early on rows of very different
    length (TorchJD's default of 100 leaves a squared norm of up to twice the least at T = 40).

    Fragile: it favours tasks with short gradients, and a single task near its optimum stops all of
    them. The remedies of the paper's code are `Stages`: ``row_scale: l2``, ``loss`` or ``loss+``
    (LibMTL's ``mgda_gn``). As in LibMTL the update is then the combination of the scaled rows; the
    authors' own code applies the weights that it finds for them to the rows as they were.

    Degree one in the scale of the gradients. Weights lie on the simplex, sum T with ``scale: sum``.
    They reach the decoders, as published; LibMTL leaves decoders unweighted.

    Args:
        stages: options common to all methods of this family; the default weighs decoders.
        seed: unused; every balancer has one.

    Example:
        >>> import torch
        >>> MGDA(stages=Stages(scale="paper")).solve(torch.diag(torch.tensor([1.0, 3.0]))).tolist()
        [0.75, 0.25]
    """

    source = "Désidéri, CRAS 2012; Sener and Koltun, NeurIPS 2018"

    def __init__(self, *, stages: Stages | None = None, seed: int = 0) -> None:
        super().__init__(
            stages=Stages(weight_decoders=True) if stages is None else stages, seed=seed
        )

    def weigh(self, gramian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Weights of the shortest vector, on the simplex."""
        return min_norm_point(gramian)

    def gain(self, tasks: int) -> float:
        """The weights sum to one."""
        return 1.0
