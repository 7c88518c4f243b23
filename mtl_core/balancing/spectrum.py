"""Eigenvalues of Gramians, without those that are rounding of the rows."""

import torch
from torch import Tensor

_ROUNDING = torch.finfo(torch.float32).eps ** 2


def kept_spectrum(gramian: Tensor) -> tuple[Tensor, Tensor]:
    r"""Eigenpairs that stand for directions in the rows rather than for their rounding.

    Kept are :math:`\lambda_i > \lambda_{\max} \, T \, \varepsilon^2` with :math:`\varepsilon`
    the resolution of float32, the type of the rows: dependent rows leave eigenvalues of that
    size, far above the resolution of the float64 matrix itself.

    Args:
        gramian: (T, T) float64 symmetric positive semi-definite, not all zero.

    Returns:
        (R,) ascending positive eigenvalues and (T, R) their vectors, R at least one.
    """
    values, vectors = torch.linalg.eigh(gramian)
    kept = values > values[-1] * (len(gramian) * _ROUNDING)
    return values[kept], vectors[:, kept]
