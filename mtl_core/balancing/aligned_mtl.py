"""Alignment of the principal components of the gradients."""

from collections.abc import Mapping
from typing import Literal, get_args

from torch import Tensor

from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.preference import Preference
from mtl_core.balancing.spectrum import kept_spectrum
from mtl_core.balancing.stages import Stages
from mtl_core.errors import UnknownNameError

Reference = Literal["min", "median", "rmse"]


def aligned_weights(gramian: Tensor, preference: Tensor, reference: Reference) -> Tensor:
    r"""Weights of Aligned-MTL.

    With :math:`G = V \Lambda V^\top` the rows of :math:`B J`, :math:`B = \sqrt{\lambda}\, V
    \Lambda^{-1/2} V^\top`, are orthogonal and of the same length :math:`\sqrt\lambda` (on the kept
    subspace: :math:`B G B^\top = \lambda V V^\top`); the weights are :math:`B^\top` times the
    preference (Senushkin et al., CVPR 2023, eq. 9 and algorithm 1).

    Args:
        gramian: (T, T) float64, of a positive diagonal.
        preference: (T,) of mean one.
        reference: :math:`\lambda` is the least, the (lower) median or the mean kept eigenvalue.

    Returns:
        (T,) weights, independent of the Gramian's scale; their consensus gain is T.
    """
    values, vectors = kept_spectrum(gramian / gramian.diagonal().mean())
    match reference:
        case "min":
            level = values[0]
        case "median":
            level = values.median()
        case "rmse":
            level = values.mean()
    return (vectors * (level / values).sqrt()) @ (vectors.t() @ preference)


class AlignedMTL(GradientBalancer):
    r"""Rotates and stretches the gradients until they are orthogonal and equally long, and adds up.

    Senushkin, Patakin, Kuznetsov and Konushin, "Independent Component Alignment for Multi-Task
    Learning", CVPR 2023: weights :math:`w = \sqrt{\lambda}\, V \Lambda^{-1/2} V^\top \mathbf 1`
    for :math:`G = V \Lambda V^\top`, which brings the condition number of the system of gradients
    to one. No task gets worse to first order for two tasks; for more, that is not guaranteed.

    Fragile where rows become dependent: with ``min`` the least eigenvalue sets the length of the
    step, which falls to zero until the eigenvalue counts as rounding and is left out
    (`kept_spectrum`); opposite rows cancel to a zero update. ``rmse`` keeps the step's size.

    Degree one in the scale of the gradients, any scale. Decoders are not weighted, as in the
    authors' default. LibMTL's version calls a function that torch has removed and raises; TorchJD
    averages the aligned rows where the authors add them up, ``scale: sum`` here.

    Args:
        reference: eigenvalue that gives all directions their length: ``min``, ``median`` or
            ``rmse`` (the mean).
        preference: weight of a task's aligned row by name, relative to the others; one where not
            named.
        stages: options common to all methods of this family.
        seed: unused; every balancer has one.
    """

    source = "Senushkin et al., CVPR 2023"

    def __init__(
        self,
        *,
        reference: Reference = "min",
        preference: Mapping[str, float] | None = None,
        stages: Stages | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(stages=Stages() if stages is None else stages, seed=seed)
        if reference not in get_args(Reference):
            raise UnknownNameError("reference", reference, get_args(Reference))
        self.reference: Reference = reference
        self.preference = Preference(preference)

    def reset(self, entries: int) -> None:
        """Check that the preferences name entries of this run."""
        self.preference.check(self.entries)

    def weigh(self, gramian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Weights of the aligned rows' sum."""
        return aligned_weights(gramian, self.preference.of(step), self.reference)
