"""Impartial multi-task learning in full: learned loss scales and equal projections."""

from typing import Literal

from mtl_core.balancing.imtlg import IMTLG
from mtl_core.balancing.stages import Stages


class IMTL(IMTLG):
    r"""`IMTLG` on losses that learn their own scale (IMTL-L): the paper's hybrid.

    Liu et al., ICLR 2021, algorithm 1: the losses are :math:`e^{s_t} \ell_t - s_t` with learned
    :math:`s_t`, and their gradients are combined by IMTL-G. Exactly ``IMTLG`` with
    ``Stages(transform="exp_scale")``. IMTL-G's direction in the trunk does not depend on the
    scales, which change its length and reach the decoders.

    Args:
        sign: as in `IMTLG`.
        clamp_negative: as in `IMTLG`.
        stages: options common to all methods of this family; the default learns the scales.
        seed: unused; every balancer has one.
    """

    def __init__(
        self,
        *,
        sign: Literal["descend", "paper"] = "descend",
        clamp_negative: bool = False,
        stages: Stages | None = None,
        seed: int = 0,
    ) -> None:
        default = Stages(transform="exp_scale")
        super().__init__(
            sign=sign,
            clamp_negative=clamp_negative,
            stages=default if stages is None else stages,
            seed=seed,
        )
