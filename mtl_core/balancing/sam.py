"""Flat minima for every task by itself, on top of any method that combines rows."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from mtl_core.balancing.by_name import check_choice
from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.moved_weights import MovedWeights
from mtl_core.balancing.passes import aux_pass, entry_passes
from mtl_core.balancing.rows import RowBuffer
from mtl_core.balancing.rowwise import Update
from mtl_core.balancing.sharpness import (
    Inner,
    Norm,
    PointGradients,
    SharpnessBalancer,
    ascent_length,
    check_norm,
    climb,
    twin,
    with_length_of_sum,
)
from mtl_core.errors import ArgumentError
from mtl_core.nn.parts import ParameterSplit


class SAM(SharpnessBalancer):
    r"""Sharpness-aware gradients by task, whose loss and flatness parts are combined separately.

    SAM-MTL; Phan et al., "Improving Multi-task Learning via Seeking Task-based Flat Regions", arXiv
    2211.13723 (ICCV 2025 as "Beyond Losses Reweighting"). With the rows :math:`g_t` of the shared
    parameters :math:`\theta` and the gradient :math:`h_t` of the task's decoder :math:`\psi_t`,

    .. math:: \epsilon_t = \rho \, g_t / \lVert g_t \rVert, \quad
        \eta_t = \rho_{own} \, h_t / \lVert h_t \rVert, \quad
        s_t = \nabla_\theta \ell_t(\theta + \epsilon_t, \psi_t + \eta_t), \quad
        d = A(g_1 .. g_T) + A(s_1 - g_1 .. s_T - g_T),

    A being the inner method, in two instances with state of their own. A decoder gets its gradient
    at the moved point, unweighted (but for a loss transform among the inner method's stages).
    ``adaptive`` steps are :math:`\epsilon_t = \rho \, \theta^2 \odot g_t / \lVert |\theta| \odot
    g_t \rVert` (ASAM), which rescaled neurons leave alone. There is no constant beside the norms: a
    zero gradient moves nothing.

    A step costs 1 + T forwards of the trunk and 2 T backwards, about (1 + 5 T) / 3 plain steps, and
    memory for two rows a task. The paper's comparisons are not equal in compute. ICLR 2024 reviews
    of an earlier version criticised that cost. Results are known as F-CAGrad and the like; the
    normalisation of MGDA's rows (times T, or 40 on CelebA) of the authors' scripts is a matter of
    the inner method's stages.

    Fragile: an inner method whose update does not shrink with the rows (Nash-MTL, FairGrad) gives
    the flatness part the size of the loss part for any :math:`\rho > 0`; see `keep_sum_norm`. The
    flatness rows are differences of order :math:`\rho`, so the inner method must have no absolute
    thresholds. With 16-true precision a small :math:`\rho` is lost in rounding. The published code
    draws new dropout masks in the second pass, which adds noise of order one; here they are those
    of the first.

    Under gradient accumulation every micro-batch has perturbations of its own, rows are added up,
    and the parts are combined at the window's end. Under several processes rows are averaged before
    the perturbation and once more after the second passes. Absent tasks are in neither part.

    Args:
        inner: combines rows; see `SharpnessBalancer`. Default: CAGrad with c = 0.4, scaled to agree
            with the plain sum at consensus like everything here (``scale: paper`` is the authors').
        rho: radius for the shared parameters, not negative. None takes 2 if `adaptive`, else 0.05.
        rho_own: radius for the decoders; None takes `rho`.
        adaptive: measure perturbations relative to the weights.
        norm: divide by the norms of trunk and decoder ``separate``-ly, or by their ``joint`` one
            (the authors' Multi-MNIST code).
        split: combine the two parts separately; else :math:`d = A(s_1 .. s_T)`, clearly worse in
            the paper.
        keep_sum_norm: give each part the length of the plain sum of its rows. None does so where
            the inner method's gain depends on the length of the rows (Nash-MTL, FairGrad), which
            the paper does not address; False is the literal form.
        every_k: look at moved weights in one update of so many. An approximation.
        between: in the others ``reuse`` the last flatness part or ``drop`` it.
        shared_ascent: one common step along the sum of the rows instead of one a task: 2 forwards
            and 2 T backwards. An approximation. Ordinary SAM on equal weights, a baseline that
            belongs beside any result, is ``{inner: {class_path: CAGrad, init_args: {c: 0}},
            shared_ascent: true, split: false, norm: joint}``.
        seed: unused; the inner method has its own.
    """

    source = "Phan et al., ICCV 2025"
    walks = "2T"

    def __init__(
        self,
        *,
        inner: Inner | None = None,
        rho: float | None = None,
        rho_own: float | None = None,
        adaptive: bool = True,
        norm: Norm = "separate",
        split: bool = True,
        keep_sum_norm: bool | None = None,
        every_k: int = 1,
        between: Literal["reuse", "drop"] = "reuse",
        shared_ascent: bool = False,
        seed: int = 0,
    ) -> None:
        if rho is None:
            rho = 2.0 if adaptive else 0.05
        super().__init__(inner=inner, rho=rho, rho_own=rho_own, adaptive=adaptive, seed=seed)
        check_norm(norm)
        check_choice("between", between, ("reuse", "drop"))
        if every_k < 1:
            raise ArgumentError("every_k", "be at least 1", every_k)
        self.norm = norm
        self.split = split
        self.keep_sum_norm = keep_sum_norm
        self.every_k = every_k
        self.between = between
        self.shared_ascent = shared_ascent
        self.flat = twin(self.inner)
        self._here: list[PointGradients] = []
        self._started = False
        self._point: Tensor | None = None
        self._kept: Tensor | None = None

    def members(self) -> dict[str, Inner]:
        """One instance for each part."""
        return {"inner": self.inner, "flat": self.flat}

    def prepare(self, entries: int) -> None:
        """Forget gradients and the flatness part."""
        super().prepare(entries)
        self._here, self._started = [], False
        self._point = self._kept = None

    def due(self) -> bool:
        """In one window of `every_k`."""
        return self.index % self.every_k == 0

    # In a fit.

    def collect_moved(
        self,
        step: TaskLosses,
        scaled: Tensor,
        split: ParameterSplit,
        buffer: RowBuffer,
        shares: dict[str, float],
        update: Step,
    ) -> None:
        """Rows at the point, then every task's row at its own moved point."""
        factors, aux_factor = step.factors(scaled)
        aux_pass(buffer, step, aux_factor, split)
        here = self._gather(step, factors, split, shares)
        if not self.all_finite(here.finite(update.present), update):
            self.spoil(buffer)
            return
        outer = dict(zip(step.losses, factors.unbind(), strict=True))
        entries = list(step.losses)
        with MovedWeights([*split.shared, *split.all_own()]) as weights:
            if self.shared_ascent:
                self._climb_together(here, split)
                if entries:
                    self.add_moved(step, outer, split, buffer, shares, entries)
                return
            for entry in entries:
                self._climb_alone(here, self.entries.index(entry))
                self.add_moved(step, outer, split, buffer, shares, [entry])
                weights.restore()

    def _gather(
        self, step: TaskLosses, factors: Tensor, split: ParameterSplit, shares: dict[str, float]
    ) -> PointGradients:
        """This micro-batch's gradients over all ranks; the first ones of a window add up all."""
        border = bool(step.cut) and step.features is not None
        if self._here and not self._here[0].fits(split, self.entries, border=border):
            self._here = []
        turn = int(self._started)
        while len(self._here) <= turn:
            self._here.append(PointGradients(split, self.entries, border=border))
        here = self._here[turn]
        for i, entry in enumerate(self.entries):
            if entry not in step.losses:
                here.clear(i)
        for found in entry_passes(step, factors, split, batched=self.batched):
            here.put(self.entries.index(found.entry), found, shares[found.entry])
        here.average()
        if turn:
            self._here[0].rows.add_(here.rows)
        self._started = True
        return here

    def _climb_alone(self, here: PointGradients, at: int) -> None:
        shared, own = here.shared_parameters, here.own_parameters[at]
        lengths = (
            ascent_length(shared, here.shared[at], adaptive=self.adaptive),
            ascent_length(own, here.own[at], adaptive=self.adaptive),
        )
        if self.norm == "joint":
            lengths = (_joint(lengths),) * 2
        climb(shared, here.shared[at], radius=self.rho, length=lengths[0], adaptive=self.adaptive)
        climb(own, here.own[at], radius=self.rho_own, length=lengths[1], adaptive=self.adaptive)

    def _climb_together(self, here: PointGradients, split: ParameterSplit) -> None:
        """Trunk along the sum of the rows, every decoder along its own gradient."""
        totals: dict[int, Tensor] = {}
        for parameters, gradients in zip(here.own_parameters, here.own, strict=True):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                known = totals.get(id(parameter))
                totals[id(parameter)] = gradient if known is None else known + gradient
        total = here.rows.sum(0).split([p.numel() for p in split.shared])
        parts = [
            (
                split.shared,
                [x.view(p.shape) for x, p in zip(total, split.shared, strict=True)],
                self.rho,
            ),
            *((own, [totals[id(p)] for p in own], self.rho_own) for own in split.own.values()),
        ]
        lengths = [ascent_length(p, g, adaptive=self.adaptive) for p, g, _ in parts]
        if self.norm == "joint":
            lengths = [_joint(lengths)] * len(parts)
        for (parameters, gradients, radius), length in zip(parts, lengths, strict=True):
            climb(parameters, gradients, radius=radius, length=length, adaptive=self.adaptive)

    def pick(self, rows: Tensor, step: Step) -> Tensor:
        """Rows of the entries present, at the moved weights and at the point."""
        moved, self._started = self._started, False
        self._point = super().pick(self._here[0].rows, step) if moved else None
        return super().pick(rows, step)

    def finite(self, rows: Tensor) -> Tensor:
        """Both kinds of rows."""
        found = super().finite(rows)
        return found if self._point is None else found & super().finite(self._point)

    # From rows to a direction.

    def direction(
        self,
        jacobian: Tensor,
        losses: Tensor | None = None,
        *,
        perturbed: Tensor | None = None,
    ) -> Tensor:
        """Combine plain gradients, without any module; stateful methods advance.

        Args:
            jacobian: (T, n) rows at the point.
            losses: (T,), where the inner method asks for them; default ones.
            perturbed: (T, n) rows at the moved weights; None takes `jacobian`, which leaves the
                inner method's update.

        Returns:
            (n,) direction; NaN where a row is not finite.
        """
        moved = jacobian if perturbed is None else perturbed
        if not bool(torch.isfinite(jacobian).all()):
            return torch.full_like(jacobian[0], torch.nan)
        self._plain_step(len(jacobian))
        self._point = jacobian.detach() if self.due() else None
        return super().direction(moved.detach().clone() if self.due() else jacobian, losses)

    def update(self, rows: Tensor, losses: Tensor, step: Step) -> Update:
        """The inner method on both parts, or on the rows at the moved weights."""
        point, self._point = self._point, None
        if point is None:
            found = self._part(self.inner, rows, losses, step)
            if self._kept is None:
                return found
            return found._replace(direction=found.direction + self._kept * self.loss_scale())
        if not self.split:
            return self._part(self.inner, rows, losses, step)
        found = self._part(self.inner, point, losses, step)
        rows = rows.sub_(point)
        if not bool(rows.any()):  # whatever a method makes of zeros
            self._keep(torch.zeros_like(rows[0]))
            return found
        flat = self._part(self.flat, rows, losses, step, prefix="flat/").direction
        if self.reporting:
            size = float(found.direction.norm())
            self.report["flat/share"] = float(flat.norm()) / size if size > 0 else float("nan")
        self._keep(flat)
        return found._replace(direction=found.direction + flat)

    def _part(
        self, member: Inner, rows: Tensor, losses: Tensor, step: Step, prefix: str = ""
    ) -> Update:
        found = self.ask(member, rows, losses, step)
        self.report.update({f"{prefix}{key}": value for key, value in member.report.items()})
        keep = self.keep_sum_norm
        if keep is None:
            keep = isinstance(member, GradientBalancer) and member.gain(len(rows)) is None
        return (
            found._replace(direction=with_length_of_sum(found.direction, rows)) if keep else found
        )

    def _keep(self, flat: Tensor) -> None:
        if self.every_k > 1 and self.between == "reuse":
            self._kept = flat / self.loss_scale()

    def family_state(self) -> dict[str, Any]:
        """Both instances' state, and the flatness part that is being reused."""
        return {**super().family_state(), "kept": self._kept}

    def load_family_state(self, state: dict[str, Any]) -> None:
        """Take it back."""
        super().load_family_state(state)
        kept = state["kept"]
        self._kept = None if kept is None else kept.clone()


def _joint(lengths: list[float] | tuple[float, ...]) -> float:
    return math.hypot(*lengths)
