"""A first-order multi-gradient method for bi-level problems."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from mtl_core.balancing.base import Balanceable
from mtl_core.balancing.bilevel import BilevelBalancer, softmax_gradient
from mtl_core.balancing.feature import require_shared
from mtl_core.balancing.lookahead import LookAhead
from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.moml import products
from mtl_core.balancing.moved_weights import MovedWeights
from mtl_core.balancing.ranks import mean_gradients
from mtl_core.balancing.rows import accumulate
from mtl_core.balancing.solvers import minimise_nonnegative, to_numpy
from mtl_core.errors import ArgumentError


def forum_weights(gramian: Tensor, pulls: Tensor, square: float, phi: float) -> Tensor:
    r"""Weights of outer gradients beside a penalty.

    With unit outer gradients :math:`F_t`, the penalty's gradient :math:`q` and :math:`\pi_t =
    \phi - F_t \cdot q / \lVert q \rVert^2`,

    .. math:: \min_{\lambda \in \Delta,\ \nu \ge \max(0, \pi \cdot \lambda)}
        \Bigl\lVert \sum_t \lambda_t F_t + \nu q \Bigr\rVert^2 - \nu \phi \lVert q \rVert^2 .

    :math:`q` is brought to unit length first (:math:`\nu` and :math:`\phi` are then lengths along
    it), and equality constraints are met by an augmented Lagrangian around an exact solver for
    variables that are not negative.

    Args:
        gramian: :math:`F_s \cdot F_t`, (T, T) float64 of unit diagonal.
        pulls: :math:`F_t \cdot q`, (T,).
        square: :math:`\lVert q \rVert^2`; zero where there is no penalty.
        phi: positive.

    Returns:
        (T,) :math:`\lambda` on the simplex.
    """
    size = len(pulls)
    if not square > 0:
        height, along = 0.0, torch.zeros_like(pulls)
    else:
        height, along = phi * square**0.5, pulls / square**0.5
    # Variables: weights, nu, and by how much nu exceeds its bound.
    bound = height - along
    matrix = torch.zeros(size + 2, size + 2, dtype=torch.float64)
    matrix[:size, :size] = 2 * gramian
    matrix[:size, size] = matrix[size, :size] = 2 * along
    matrix[size, size] = 2.0
    linear = torch.zeros(size + 2, dtype=torch.float64)
    linear[size] = height
    rules = torch.zeros(2, size + 2, dtype=torch.float64)
    rules[0, :size] = 1
    rules[1, :size], rules[1, size], rules[1, size + 1] = -bound, 1, -1
    rules[1] /= max(1.0, float(bound.abs().max()))
    wanted = torch.tensor([1.0, 0.0], dtype=torch.float64)
    multipliers, found = torch.zeros(2, dtype=torch.float64), linear
    strength = 100.0 * (1 + height)
    for _ in range(20):
        ridged = matrix + strength * rules.t() @ rules
        pull = linear + rules.t() @ (strength * wanted + multipliers)
        found = torch.from_numpy(minimise_nonnegative(to_numpy(ridged), to_numpy(pull)))
        miss = wanted - rules @ found
        multipliers = multipliers + strength * miss
        if float(miss.abs().max()) < 1e-10:
            break
    weights = found[:size].clamp_min(0)
    total = float(weights.sum())
    return weights / total if total > 0 else torch.full_like(weights, 1 / size)


class FORUM(BilevelBalancer):
    r"""All outer losses at once, with the inner problem as a penalty; first derivatives only.

    Ye et al., "A First-Order Multi-Gradient Algorithm for Multi-Objective Bi-Level Optimization",
    ECAI 2024, as in LibMTL's ``trainer.py``: :math:`q` is the gradient by logits :math:`\alpha` and
    weights :math:`\theta` of :math:`f(\alpha, \theta) - f(\alpha, \theta^K)`, the excess of the
    inner half's weighted loss over what K virtual steps reach (:math:`\theta^K` taken as fixed).
    With outer gradients :math:`F_t` of unit length, `forum_weights` gives :math:`\lambda`, averaged
    over updates at the rate :math:`(epoch + 1)^{-3/4}`, and

    .. math:: d = \sum_t \lambda_t F_t + \nu q, \qquad
        \nu = \max\bigl(0, \phi - \sum_t \lambda_t F_t \cdot q / \lVert q \rVert^2\bigr).

    The model's optimiser takes d's part by :math:`\theta`, decoders included; Adam takes the part
    by :math:`\alpha`. An absolute 1e-8 beside :math:`\lVert q \rVert^2` is left out. The losses of
    the whole batch are only logged; an auxiliary loss is added as it is.

    The outer part has unit-length rows, the penalty the losses' units: the length of d does not
    follow that of the gradients (degree 0 in the outer losses), so the learning rate has to be
    found anew. Fragile: with a large `inner_lr` the virtual steps diverge, which raises. A (T+1, n)
    buffer of all parameters. ``weights`` in the log are :math:`\lambda`.

    Args:
        phi: strength of the penalty, positive; LibMTL's 0.1.
        steps: K, at least 1; LibMTL's 5.
        lr: learning rate of the logits.
        inner_lr: see `BilevelBalancer`; LibMTL's 0.1.
        scale: of the softmax in the inner loss.
        seed: unused; every balancer has one.
    """

    source = "Ye et al., ECAI 2024"
    walks = "T + K + 1 halves"
    by_hand: ClassVar[bool] = True

    def __init__(
        self,
        *,
        phi: float = 0.1,
        steps: int = 5,
        lr: float = 1e-4,
        inner_lr: float | None = 0.1,
        scale: Literal["sum", "paper"] = "paper",
        seed: int = 0,
    ) -> None:
        if not phi > 0:
            raise ArgumentError("phi", "be positive", phi)
        if steps < 1:
            raise ArgumentError("steps", "be at least 1", steps)
        self.phi = phi
        self.steps = steps
        super().__init__(lr=lr, inner_lr=inner_lr, scale=scale, seed=seed)

    def reset(self, entries: int) -> None:
        """Equal weights, nothing averaged."""
        super().reset(entries)
        self._average = torch.zeros(entries, dtype=torch.float64)
        self._rows: Tensor | None = None
        self._seen: dict[str, int] = {}
        self._penalties = 0

    def look(self, ahead: LookAhead) -> tuple[list[str], Tensor] | None:
        """Add outer gradients and the penalty's to the window's rows."""
        assert self._rows is not None
        with MovedWeights(ahead.parameters):
            half = ahead.evaluate(0)
            inner = list(half.means)
            weights = self.weights_of(inner)
            before = torch.tensor(list(half.means.values()), dtype=torch.float64)
            penalty = ahead.gradient(half, weights)
            direction = penalty
            for i in range(self.steps if inner else 0):
                ahead.move(direction, -self.step_length())
                half = ahead.evaluate(0)
                if i < self.steps - 1:
                    direction = ahead.gradient(half, weights)
            after = torch.tensor(list(half.means.values()), dtype=torch.float64)
        outer = ahead.evaluate(1)
        for entry, row in zip(outer.means, ahead.rows(outer), strict=True):
            self._rows[self.entries.index(entry)] += row
            self._seen[entry] = self._seen.get(entry, 0) + 1
        self._rows[-1] += penalty
        self._penalties += 1
        if not inner:
            return None
        factor = len(inner) if self.scale == "sum" else 1
        by_weight = (before - after) * factor
        return inner, softmax_gradient(self.logits_of(inner), by_weight)

    def collect(
        self,
        module: Balanceable,
        step: TaskLosses,
        scaled: Tensor,
        means: dict[str, float],
        shares: dict[str, float],
    ) -> None:
        """Take in both halves of a micro-batch."""
        split = self.parameters_of(module)
        require_shared(self, module, split.shared)
        parameters = [*split.shared, *split.all_own()]
        if step.aux is not None and step.aux.requires_grad:
            factor = step.factors(scaled)[1]
            accumulate(
                parameters,
                torch.autograd.grad(step.aux, parameters, factor, allow_unused=True),
            )
        ahead = self.ahead(module, step)
        if ahead is None:
            return
        if self._rows is None:
            size = sum(p.numel() for p in parameters)
            self._rows = torch.zeros(len(self.entries) + 1, size, device=ahead.device)
        found = self.look(ahead)
        if found is not None:
            at = self.positions(found[0])
            self._gradient[0, at] += found[1]
            self._gradient[1, at] += 1

    def finish(self, module: Balanceable, losses: Tensor, step: Step) -> None:
        """Combine the window's rows into gradients of all parameters."""
        split = self.parameters_of(module)
        parameters = [*split.shared, *split.all_own()]
        mean_gradients(parameters)  # of an auxiliary loss
        rows, self._rows = self._rows, None
        seen, self._seen = self._seen, {}
        count, self._penalties = self._penalties, 0
        if rows is not None:
            direction = self._combine(rows, seen, count, step)
            views = direction.split([p.numel() for p in parameters])
            gradients = [
                v.view(p.shape).to(p.dtype) for v, p in zip(views, parameters, strict=True)
            ]
            accumulate(parameters, gradients)
        self._gradient.zero_()

    def _combine(self, rows: Tensor, seen: dict[str, int], count: int, step: Step) -> Tensor:
        """The direction (n,), times the loss scale; averages and logits advance."""
        names = [e for e in self.entries if e in seen]
        outer = rows[self.positions(names).to(rows.device)]
        penalty = rows[-1] / count
        norms = torch.linalg.vector_norm(outer, dim=1, dtype=torch.float64).cpu()
        finite = bool(torch.isfinite(norms).all()) and bool(torch.isfinite(penalty.sum()))
        if not self.all_finite(torch.full((len(step.entries),), finite), step):
            return torch.full_like(penalty, torch.nan)
        alive = norms > 0
        names = [e for e, keep in zip(names, alive.tolist(), strict=True) if keep]
        outer = outer[alive.to(rows.device)] / norms[alive].to(rows)[:, None]
        by_logits = self._gradient[0] / self._gradient[1].clamp_min(1)
        square = float(penalty.double().square().sum()) + float(by_logits.square().sum())
        direction, nu = torch.zeros_like(penalty), self.phi
        if names:
            pulls = products(outer, penalty[None])[:, 0]
            weights = forum_weights(products(outer, outer), pulls, square, self.phi)
            weights = self._averaged(weights, names, step)
            if square > 0:
                nu = max(self.phi - float(weights @ pulls) / square, 0.0)
            direction = weights.to(outer) @ outer
            self.weights.update(zip(names, weights.tolist(), strict=True))
        self.report["penalty"] = nu
        at = self._gradient[1].nonzero()[:, 0]
        if len(at):
            self.scalars.step(nu * by_logits[at], at)
        return (direction + nu * penalty) * self.loss_scale()

    def _averaged(self, weights: Tensor, names: list[str], step: Step) -> Tensor:
        """Running average of the entries present, as a point on the simplex."""
        at, rate = self.positions(names), (step.epoch + 1) ** -0.75
        self._average[at] += rate * (weights - self._average[at])
        part = self._average[at]
        return part / part.sum() if float(part.sum()) > 0 else weights

    def method_state(self) -> dict[str, Any]:
        """Logits with their optimiser, averaged weights."""
        return {"scalars": self.scalars.state(), "average": self._average}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.scalars.load(state["scalars"])
        self._average = state["average"].clone()
