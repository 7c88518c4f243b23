"""Weights from the neural tangent kernel of every task."""

from torch import Tensor

from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.losses import Step


def ntk_weights(largest: Tensor) -> Tensor:
    r"""Weights :math:`\sqrt{\bar\lambda / \lambda_t}` that give all kernels one convergence speed.

    Args:
        largest: (T,) positive: the largest eigenvalue of every task's kernel.

    Returns:
        (T,) weights, one each where all agree.
    """
    return (largest.mean() / largest).sqrt()


class NTKMTL(GradientBalancer):
    r"""Scales every task so that the largest eigenvalue of its tangent kernel is the same.

    Qin, Wang, Liao and Yan, "NTKMTL: Mitigating Task Imbalance in Multi-Task Learning from Neural
    Tangent Kernel Perspective", NeurIPS 2025, with one mini-batch (n = 1, all that the authors'
    experiments use): the kernel of a task is then its squared gradient norm, and :math:`w_t =
    \sqrt{\tfrac1T \sum_s \|g_s\|^2 / \|g_t\|^2}`. All rows get one length, so the direction does
    not depend on the scale of any loss; it is that of `DBMTL` without its average and logarithm.

    Two tasks never get worse to first order, more may. Fragile: a task whose gradient is nearly
    zero gets an unbounded weight (``stages.clamp`` bounds it). Degree one in the scale of the
    gradients. Decoders are not weighted, as in the authors' code. That code has weights larger by
    :math:`\sqrt T`, multiplies by T and limits the update's length to one (``stages: {scale:
    paper, norm: max}`` limits likewise). More mini-batches (n > 1: the largest eigenvalue of the
    n × n products of the gradients of parts of the batch) would need the rows of every part, a
    further walk of the trunk per part and task, and are not offered here; `NTKMTLSR` takes
    parts at the features, where they are free.

    Args:
        stages: options common to all methods of this family.
        seed: unused; every balancer has one.
    """

    source = "Qin et al., NeurIPS 2025"
    needs = "norms"

    def weigh(self, gramian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Inverse lengths of the rows, times their root mean square."""
        return ntk_weights(gramian.diagonal())
