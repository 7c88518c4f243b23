"""Methods that look at the losses at moved weights: engine of flat minima by task."""

import copy
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mtl_core.balancing.base import Balanceable
from mtl_core.balancing.by_name import check_choice
from mtl_core.balancing.cagrad import CAGrad
from mtl_core.balancing.feature import require_shared
from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.jacobian import JacobianBalancer
from mtl_core.balancing.losses import Recompute, Step, TaskLosses
from mtl_core.balancing.nested import refuse_hooks
from mtl_core.balancing.passes import EntryGradients, own_parameters
from mtl_core.balancing.ranks import sum_over_ranks, world_size
from mtl_core.balancing.rows import RowBuffer, add_rows, kept_graphs
from mtl_core.balancing.rowwise import RowBalancer, Update
from mtl_core.errors import ArgumentError, BalancerError
from mtl_core.nn.parts import ParameterSplit

Inner = GradientBalancer | JacobianBalancer


@torch.no_grad()
def ascent_length(
    parameters: Sequence[Tensor], gradients: Sequence[Tensor], *, adaptive: bool
) -> float:
    r"""The norm that an ascent step is divided by: that of g, or of :math:`|\theta| \odot g`.

    Args:
        parameters: :math:`\theta`, any shapes.
        gradients: g, likewise; of any scale.
        adaptive: the second one (Kwon et al., ICML 2021).

    Returns:
        The norm over all tensors, in float64.
    """
    if not gradients:
        return 0.0
    parts = torch._foreach_mul(list(parameters), list(gradients)) if adaptive else gradients
    norms = [torch.linalg.vector_norm(part, dtype=torch.float64) for part in parts]
    return float(torch.stack(norms).square().sum().sqrt())


@torch.no_grad()
def climb(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    *,
    radius: float,
    length: float,
    adaptive: bool,
) -> None:
    r"""Add :math:`\rho \, g / L`, or :math:`\rho \, \theta^2 \odot g / L`, to parameters in place.

    Args:
        parameters: :math:`\theta`.
        gradients: g, of any scale.
        radius: :math:`\rho`.
        length: L, as `ascent_length` gives it; where it is zero nothing moves.
        adaptive: the second form.
    """
    if not length > 0 or not radius or not gradients:
        return
    steps = list(gradients)
    if adaptive:
        steps = list(torch._foreach_mul(list(parameters), list(parameters)))
        torch._foreach_mul_(steps, list(gradients))
    torch._foreach_add_(list(parameters), steps, alpha=radius / length)


class PointGradients:
    """Gradients of every entry at one point, of shared and own parameters, in one piece of memory.

    Args:
        split: whose parameters are whose.
        entries: of the run, T of them.
        border: whether an entry's loss reaches one decoder only.
    """

    def __init__(self, split: ParameterSplit, entries: Sequence[str], *, border: bool) -> None:
        self.shared_parameters = list(split.shared)
        self.own_parameters = [own_parameters(split, e, border=border) for e in entries]
        width = sum(p.numel() for p in self.shared_parameters)
        owns = [sum(p.numel() for p in own) for own in self.own_parameters]
        self.storage = torch.zeros(
            len(entries) * width + sum(owns), device=self.shared_parameters[0].device
        )
        count = len(entries) * width
        self.rows = self.storage[:count].view(len(entries), width)
        self.shared = [_views(row, self.shared_parameters) for row in self.rows]
        tails = self.storage[count:].split(owns)
        self.own = [_views(tail, own) for tail, own in zip(tails, self.own_parameters, strict=True)]
        self._tails = tails

    def fits(self, split: ParameterSplit, entries: Sequence[str], *, border: bool) -> bool:
        """Whether this is for the same parameters."""
        known = [self.shared_parameters, *self.own_parameters]
        asked = [split.shared, *(own_parameters(split, e, border=border) for e in entries)]
        return [[id(p) for p in part] for part in known] == [
            [id(p) for p in part] for part in asked
        ] and self.storage.device == split.shared[0].device

    def put(self, at: int, found: EntryGradients, share: float) -> None:
        """Take in one entry's gradients, times this rank's share."""
        for views, gradients in ((self.shared[at], found.shared), (self.own[at], found.own)):
            for view, gradient in zip(views, gradients, strict=True):
                if gradient is None:
                    view.zero_()
                else:
                    view.copy_(gradient)
                    if share != 1.0:
                        view.mul_(share)

    def clear(self, at: int) -> None:
        """Zeros for one entry."""
        self.rows[at].zero_()
        self._tails[at].zero_()

    def average(self) -> None:
        """Mean over ranks, in one collective."""
        if world_size() > 1:
            sum_over_ranks(self.storage).div_(world_size())

    def finite(self, present: Tensor) -> Tensor:
        """Which of the entries at `present` (P,) hold no NaN or infinity."""
        sums = torch.stack(
            [row.sum() + t.sum() for row, t in zip(self.rows, self._tails, strict=True)]
        )
        return torch.isfinite(sums)[present.to(sums.device)]


def _views(flat: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    parts = flat.split([p.numel() for p in parameters])
    return [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]


class SharpnessBalancer(RowBalancer):
    """Rows at moved weights, for any method that works on rows.

    A subclass decides where the weights move. Every micro-batch of a window has ascent steps of its
    own; the rows are added up and the inner method acts at the window's end. Random numbers of the
    further passes are those of the first, BatchNorm statistics do not move in them, and metrics are
    those of the first. In a hand-written loop that is up to the ``closure`` given to ``backward``.

    Args:
        inner: the method that combines rows: one that works on the Gramian or the Jacobian of exact
            rows. Default: CAGrad with c = 0.4.
        rho: radius for the shared parameters, not negative.
        rho_own: radius for the decoders; None takes `rho`.
        adaptive: measure steps relative to the weights.
        seed: unused; the inner method has its own.
    """

    needs: ClassVar[str] = "moved weights"
    wants_replay = True

    def __init__(
        self,
        *,
        inner: Inner | None,
        rho: float,
        rho_own: float | None,
        adaptive: bool,
        seed: int,
    ) -> None:
        super().__init__(seed=seed)
        if inner is None:
            inner = CAGrad(c=0.4)
        for name, value in {"rho": rho, "rho_own": rho if rho_own is None else rho_own}.items():
            if not 0 <= value < float("inf"):
                raise ArgumentError(name, "be finite and not negative", value)
        check_inner(inner)
        self.inner: Inner = inner
        self.batched = inner.batched  # type: ignore[misc]  # of this instance
        self.rho = rho
        self.rho_own = rho if rho_own is None else rho_own
        self.adaptive = adaptive

    @abstractmethod
    def collect_moved(
        self,
        step: TaskLosses,
        scaled: Tensor,
        split: ParameterSplit,
        buffer: RowBuffer,
        shares: dict[str, float],
        update: Step,
    ) -> None:
        """Add rows at moved weights to `buffer` and the decoders' gradients there to ``.grad``.

        Args:
            step: the first pass.
            scaled: the trainer's multiple of the summed loss.
            split: whose parameters are whose.
            buffer: of this window.
            shares: this rank's share in the labels by entry.
            update: of the entries with labels on any rank.
        """

    def due(self) -> bool:
        """Whether weights are moved in this window. Default: always."""
        return True

    def collect(
        self,
        module: Balanceable,
        step: TaskLosses,
        scaled: Tensor,
        means: dict[str, float],
        shares: dict[str, float],
    ) -> None:
        """Take in one micro-batch: a first pass, then passes at moved weights."""
        if not self.due():
            super().collect(module, step, scaled, means, shares)
            return
        split = self.parameters_of(module)
        require_shared(self, module, split.shared)
        buffer = self._rows(module.network, split)
        with kept_graphs():
            update = self.step([e for e in self.entries if e in means])
            self.collect_moved(step, scaled, split, buffer, shares, update)

    def add_moved(
        self,
        step: TaskLosses,
        factors: dict[str, Tensor],
        split: ParameterSplit,
        buffer: RowBuffer,
        shares: dict[str, float],
        entries: Sequence[str],
    ) -> None:
        """Evaluate the losses of some entries again, at the weights as they now are.

        Args:
            step: the first pass.
            factors: derivative of the trainer's loss by every loss.
            split: whose parameters are whose.
            buffer: takes the rows.
            shares: this rank's share in the labels by entry.
            entries: which ones.
        """
        tasks = dict.fromkeys(step.owner[e] for e in entries)
        torch.clear_autocast_cache()
        again = recompute_of(self, step)(tasks=list(tasks))
        losses = {e: again.losses[e] for e in entries}
        part = replace(
            again, losses=losses, vector=torch.stack(list(losses.values())), aux=None, idle=None
        )
        outer = torch.stack([factors[e] for e in entries])
        index = {entry: i for i, entry in enumerate(self.entries)}
        add_rows(buffer, part, (part.vector * outer).sum(), split, index, shares)

    def spoil(self, buffer: RowBuffer) -> None:
        """Mark a window whose gradients overflowed: the loss scaler will drop its step."""
        buffer.rows.fill_(torch.nan)
        buffer.filled.update(range(buffer.entries))

    # The inner method.

    def prepare(self, entries: int) -> None:
        """Start the inner method too."""
        super().prepare(entries)
        for member in self.members().values():
            member.start(self.entries)

    def members(self) -> dict[str, Inner]:
        """The inner method's instances by name; each has its own state and random numbers."""
        return {"inner": self.inner}

    def update(self, rows: Tensor, losses: Tensor, step: Step) -> Update:
        """The inner method on the rows as they are."""
        found = self.ask(self.inner, rows, losses, step)
        self.report.update(self.inner.report)
        return found

    def ask(self, member: Inner, rows: Tensor, losses: Tensor, step: Step) -> Update:
        """Let an instance of the inner method combine rows (T, n)."""
        # It is no callback of the trainer: what it would find out there is lent to it.
        member.scaler, member._trainer = self.scaler, self._trainer
        member._buffer, member._names = self._buffer, self._names
        member.index, member.reporting, member.report = self.index, self.reporting, {}
        update = replace(step, generator=member.step(step.entries).generator)
        found = member.update(rows, losses, update)
        member._trainer = None
        transformed = isinstance(member, GradientBalancer) and member.stages.transform != "none"
        return found if transformed else found._replace(decoders=None)

    def family_state(self) -> dict[str, Any]:
        """That of the inner method."""
        return {
            name: {"method": member.method_state(), "family": member.family_state()}
            for name, member in self.members().items()
        }

    def load_family_state(self, state: dict[str, Any]) -> None:
        """Take it back."""
        for name, member in self.members().items():
            member.load_family_state(state[name]["family"])
            member.load_method_state(state[name]["method"])


def check_inner(inner: object) -> None:
    """Refuse methods that do not simply turn exact rows into one direction."""
    rule = "be a method on the Gramian or the Jacobian of exact rows, such as CAGrad or DBMTL"
    if not isinstance(inner, (GradientBalancer, JacobianBalancer)):
        raise ArgumentError("inner", rule, type(inner).__name__)
    family = GradientBalancer if isinstance(inner, GradientBalancer) else JacobianBalancer
    refuse_hooks(inner, family, rule)
    if isinstance(inner, GradientBalancer):
        stages = inner.stages
        if stages.gram not in ("exact", "batched") or stages.refresh > 1:
            raise ArgumentError(
                "inner.stages",
                "have gram: exact or batched and refresh: 1",
                f"gram: {stages.gram}, refresh: {stages.refresh}",
            )


def recompute_of(balancer: RowBalancer, step: TaskLosses) -> Recompute:
    """How to evaluate the batch again.

    Raises:
        BalancerError: the module does not say.
    """
    if step.recompute is None:
        raise BalancerError(
            f"{type(balancer).__name__} needs a module that can evaluate a batch again."
        )
    return step.recompute


def twin(inner: Inner) -> Inner:
    """A second instance with state and random numbers of its own."""
    other = copy.deepcopy(inner)
    other.seed = inner.seed + 1
    return other


def with_length_of_sum(direction: Tensor, rows: Tensor) -> Tensor:
    """The direction (n,) as long as the plain sum of the rows (T, n)."""
    length = torch.linalg.vector_norm(direction, dtype=torch.float64)
    wanted = torch.linalg.vector_norm(rows.sum(0), dtype=torch.float64)
    return direction * (wanted / length).to(direction) if float(length) > 0 else direction


Norm = Literal["separate", "joint"]


def check_norm(norm: str) -> None:
    """Refuse unknown ways to measure an ascent step."""
    check_choice("norm", norm, ("separate", "joint"))
