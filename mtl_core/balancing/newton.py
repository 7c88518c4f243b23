"""Newton's method for weights that are a power of the gain they buy: Nash-MTL and its kin."""

import numpy as np

from mtl_core.balancing.solvers import Floats


def power_equilibrium(
    gramian: Floats,
    *,
    exponent: float = 1.0,
    coefficients: Floats | None = None,
    start: Floats | None = None,
    ridge: float = 1e-8,
) -> tuple[Floats, Floats]:
    r"""Solve :math:`(Gw)_t = c_t w_t^{-p}` for :math:`w > 0`.

    The solution is the only minimiser of :math:`\tfrac12 w^\top G w - \sum_t c_t \varphi(w_t)` with
    :math:`\varphi' (w) = w^{-p}`, which is strictly convex. With :math:`w_t = k_t x_t` and
    :math:`k_t = (c_t / G_{tt})^{1/(1+p)}`, the answer for orthogonal rows, it becomes :math:`(Mx)_t
    = M_{tt} x_t^{-p}` with :math:`M = KGK`: no scale of the rows is left in it for :math:`p = 1`.
    Damped Newton with the step in units of :math:`x`, at most 95 % of the way to zero, and
    a line search that goes beyond the full step where that pays, as near a stationary point.

    Args:
        gramian: (T, T) with a positive diagonal.
        exponent: :math:`p > 0`.
        coefficients: :math:`c`, (T,) positive; None for ones.
        start: (T,) guess for :math:`x`; None for ones. The answer does not depend on it.
        ridge: share of the diagonal that is added to it. It keeps the weights finite where the rows
            cancel, at about its inverse to the power :math:`1 / (1 + p)`.

    Returns:
        :math:`w` and :math:`x`, both (T,).
    """
    size = len(gramian)
    diagonal = gramian.diagonal() * (1 + ridge)
    units = ((1.0 if coefficients is None else coefficients) / diagonal) ** (1 / (1 + exponent))
    goal = diagonal * units * units
    goal, matrix = goal / goal.max(), gramian * (units * units[:, None]) / goal.max()
    matrix.flat[:: size + 1] = goal
    point = np.ones(size) if start is None else start
    former = np.inf
    for _ in range(200):
        # Gains and pulls in units of x, where the Newton step is a relative change.
        inner = matrix * (point * point[:, None])
        gains, pulls = inner.sum(1), goal * point ** (1 - exponent)
        gradient = gains - pulls
        hessian = inner.copy()
        hessian.flat[:: size + 1] += exponent * pulls
        change = np.linalg.solve(hessian, -gradient)
        largest = max(float(change.max()), -float(change.min()))
        if largest * (1 + exponent) <= 0.2:
            point = point * (1 + change)
            # The next change would be of the order of the square, or rounding is reached.
            if largest <= 1e-8 or largest > 0.5 * former:
                break
            former = largest
            continue
        point = point * (1 + _share(change, gradient, gains, inner, pulls, exponent) * change)
    return units * point, point


def _share(
    change: Floats, gradient: Floats, gains: Floats, inner: Floats, pulls: Floats, exponent: float
) -> float:
    """How much of a Newton step to take, possibly more than all of it."""
    decrement = -float(gradient @ change)
    linear, half = float(gains @ change), 0.5 * float(change @ inner @ change)

    def value(share: float) -> float:
        grown = float(pulls @ _primitive(share * change, exponent))
        return share * linear + share * share * half - grown

    most = 0.95 / max(-float(change.min()), 1e-9)
    share = min(1.0, most)
    reached = value(share)
    while reached > -0.1 * share * decrement and share > 1e-12:
        share *= 0.5
        reached = value(share)
    while 1 <= share < most:  # a full step from weights that are far too small only doubles them
        further = min(4 * share, most)
        if value(further) >= reached:
            break
        share, reached = further, value(further)
    return share


def _primitive(change: Floats, exponent: float) -> Floats:
    r"""Growth of :math:`\varphi` from 1 to 1 + `change`."""
    logarithm = np.log1p(change)
    if exponent == 1:
        return logarithm
    return np.expm1((1 - exponent) * logarithm) / (1 - exponent)
