"""Multiple-gradient descent at the features."""

from mtl_core.balancing.mgda import MGDA
from mtl_core.balancing.stages import Stages


class MGDAUB(MGDA):
    r"""`MGDA` with the gradients of the features in place of those of the parameters.

    Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018, sec. 3.3:
    the norm of the combined feature gradient bounds the norm of the combined parameter gradient, so
    the trunk is walked once instead of T times. Gradients are compared over samples times features;
    LibMTL's ``rep_grad`` sums over samples first, which is another quantity and worse a surrogate.
    Exactly ``MGDA`` with ``Stages(gram="feature", weight_decoders=True)``.

    Needs a network whose decoders meet only in the features. Weights lie on the simplex (times T
    with ``scale: sum``) and reach the decoders, as published. Degree one.

    Args:
        stages: options common to all methods of this family; the default takes the Gramian at the
            features and weighs decoders.
        seed: unused; every balancer has one.
    """

    source = "Sener and Koltun, NeurIPS 2018"
    needs = "features"
    walks = "1"

    def __init__(self, *, stages: Stages | None = None, seed: int = 0) -> None:
        default = Stages(gram="feature", weight_decoders=True)
        super().__init__(stages=default if stages is None else stages, seed=seed)
