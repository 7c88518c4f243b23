"""Alignment of the principal components of the features' gradients."""

from collections.abc import Mapping

from mtl_core.balancing.aligned_mtl import AlignedMTL, Reference
from mtl_core.balancing.stages import Stages


class AlignedMTLUB(AlignedMTL):
    """Aligned-MTL on the Gramian of the features' gradients: one walk of the trunk.

    Senushkin et al., CVPR 2023, section 4.3 (the upper bound): `AlignedMTL` with ``gram:
    feature``. Products are taken over samples times features; LibMTL's ``rep_grad`` sums over
    samples first, which is another quantity. What is fragile in `AlignedMTL` is so here.

    Args:
        reference: eigenvalue that gives all directions their length: ``min``, ``median`` or
            ``rmse`` (the mean).
        preference: weight of a task's aligned row by name, relative to the others; one where not
            named.
        stages: options common to all methods of this family.
        seed: unused; every balancer has one.
    """

    needs = "features"
    walks = "1"

    def __init__(
        self,
        *,
        reference: Reference = "min",
        preference: Mapping[str, float] | None = None,
        stages: Stages | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            reference=reference,
            preference=preference,
            stages=Stages(gram="feature") if stages is None else stages,
            seed=seed,
        )
