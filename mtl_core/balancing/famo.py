"""Fast adaptive multitask optimisation: weights that follow what a step did to the losses."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from mtl_core.balancing.base import Balanceable
from mtl_core.balancing.by_name import ByName, check_choice
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Recompute, Step, TaskLosses
from mtl_core.balancing.ranks import share_labels
from mtl_core.balancing.scalars import LearnedScalars
from mtl_core.balancing.stages import require_positive
from mtl_core.errors import ArgumentError, BalancerError


def famo_weights(logits: Tensor, losses: Tensor) -> Tensor:
    r"""Weights :math:`c \, p_t / \ell_t` that sum to one, :math:`p = \operatorname{softmax}(\xi)`.

    Args:
        logits: :math:`\xi`, (T,).
        losses: (T,) positive.

    Example:
        >>> import torch
        >>> famo_weights(torch.zeros(2), torch.tensor([1.0, 3.0]))
        tensor([0.7500, 0.2500])
    """
    return torch.softmax(logits - losses.log(), 0)


def famo_pull(logits: Tensor, decrease: Tensor) -> Tensor:
    r"""Gradient :math:`(\partial p / \partial \xi)^\top \delta` of the logits.

    Args:
        logits: :math:`\xi`, (T,).
        decrease: :math:`\delta`, (T,), by how much the log of every loss fell.

    Returns:
        (T,) :math:`p \odot (\delta - p^\top \delta)`: zero where all fell alike.
    """
    p = torch.softmax(logits, 0)
    return p * (decrease - p @ decrease)


class FAMO(LossBalancer):
    r"""Weights such that the logarithms of all losses fall at the same rate.

    Liu et al., "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023, algorithm 1. The step
    minimises :math:`c \sum_t p_t \log(\ell_t - b_t)` with :math:`p = \operatorname{softmax}(\xi)`
    and the constant c that makes the weights :math:`c \, p_t / (\ell_t - b_t)` sum to one. After
    the optimiser's step the same batch is evaluated again, and Adam moves :math:`\xi` down
    :math:`(\partial p / \partial \xi)^\top \delta`, :math:`\delta_t` being the fall of
    :math:`\log(\ell_t - b_t)`: tasks that fell more lose weight.

    The further pass has the random numbers of the first and leaves BatchNorm's statistics alone.
    Under several processes its losses are averaged over all of them. Under gradient accumulation
    it looks at the last micro-batch of a window only. Nothing moves after a step that the loss
    scaler dropped. In a hand-written loop give ``backward`` a ``closure`` and call
    ``balancer.settle()`` right after the optimiser's step.

    Losses must not fall below their `floor`. Logits of tasks absent from a batch do not move. A
    common factor on all losses leaves the weights alone. Agrees with TorchJD's FAMO (which does not
    save Adam's moments) and LibMTL's under ``scale: paper``.

    Args:
        lr: learning rate of the logits, positive.
        decay: of the logits, not negative: 1e-3 in the paper's algorithm, LibMTL and TorchJD, 0.01
            in the authors' class, 1e-5 in their experiments as TorchJD reports.
        floor: :math:`b_t`, a lower bound of the named tasks' losses; zero where not named.
        eps: added in the logarithm, not negative.
        update: ``same_batch`` as published, one further forward a step; ``next_step`` compares the
            losses of consecutive updates, which is free and biased.
        max_norm: length to which the shared parameters' gradient is clipped (1 in the authors'
            code, before any clipping of the trainer); None does not.
        scale: ``sum`` multiplies by T, so that the step agrees with the plain sum of the losses
            where weights are equal; ``paper`` leaves them at a sum of one.
        seed: unused; every balancer has one.
    """

    needs = "moved weights"
    wants_replay = True
    source = "Liu et al., NeurIPS 2023"

    def __init__(
        self,
        *,
        lr: float = 0.025,
        decay: float = 1e-3,
        floor: Mapping[str, float] | None = None,
        eps: float = 1e-8,
        update: Literal["same_batch", "next_step"] = "same_batch",
        max_norm: float | None = None,
        scale: Literal["sum", "paper"] = "sum",
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        if not lr > 0:
            raise ArgumentError("lr", "be positive", lr)
        for name, value in {"decay": decay, "eps": eps}.items():
            if not 0 <= value < float("inf"):
                raise ArgumentError(name, "be finite and not negative", value)
        self.floor = ByName("floor", floor, 0.0)
        for name, value in self.floor.given.items():
            if not abs(value) < float("inf"):
                raise ArgumentError(f"floor[{name!r}]", "be finite", value)
        if max_norm is not None and not max_norm > 0:
            raise ArgumentError("max_norm", "be positive or null", max_norm)
        check_choice("update", update, ("same_batch", "next_step"))
        check_choice("scale", scale, ("sum", "paper"))
        self.lr = lr
        self.decay = decay
        self.eps = eps
        self.update = update
        self.max_norm = max_norm
        self.scale = scale
        self.wants_replay = update == "same_batch"  # type: ignore[misc]  # of this instance
        self.logits = LearnedScalars(0, lr=lr, decay=decay)
        self._former = torch.zeros(0, dtype=torch.float64)
        self._last: tuple[Recompute | None, dict[str, float]] | None = None
        self._moved: tuple[Recompute | None, dict[str, float]] | None = None

    def reset(self, entries: int) -> None:
        """Equal logits; checks that floors name tasks of this run."""
        self.floor.check(self.entries)
        self.logits = LearnedScalars(entries, lr=self.lr, decay=self.decay)
        self._former = torch.full((entries,), torch.nan, dtype=torch.float64)
        self._last = self._moved = None

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Weights (T,) of the entries present.

        Raises:
            BalancerError: a loss is below its floor.
        """
        weights = famo_weights(self.logits.values[step.present], self._above(losses, step))
        return weights * len(losses) if self.scale == "sum" else weights

    def _above(self, losses: Tensor, step: Step) -> Tensor:
        above = losses - self.floor.tensor(step) + self.eps
        require_positive(above, step, "logarithms of losses (above their floor)")
        return above

    def collect(
        self,
        module: Balanceable,
        step: TaskLosses,
        scaled: Tensor,
        means: dict[str, float],
        shares: dict[str, float],
    ) -> None:
        """Weigh, and keep what evaluates this micro-batch again."""
        super().collect(module, step, scaled, means, shares)
        if self.update == "same_batch":
            self._last = (step.recompute, means)

    def finish(self, module: Balanceable, losses: Tensor, step: Step) -> None:
        """Clip, and await the optimiser's step."""
        super().finish(module, losses, step)
        self._moved, self._last = self._last, None
        if self.max_norm is not None:
            shared = [p for p in self.parameters_of(module).shared if p.grad is not None]
            if shared:
                torch.nn.utils.clip_grad_norm_(shared, self.max_norm * self.loss_scale())

    def advance(self, losses: Tensor, step: Step) -> None:
        """Compare with the last update's losses, where that is asked for."""
        if self.update == "same_batch":
            return
        at = step.present
        current = self._above(losses, step).log()
        known = ~self._former[at].isnan()
        self._move((self._former[at] - current)[known], at[known])
        self._former[at] = current

    def settle(self) -> None:
        """After the optimiser's step: look at the moved weights."""
        dropped = self._before is not None and self.loss_scale() < self._before[0]
        super().settle()
        moved, self._moved = self._moved, None
        if moved is None or dropped:
            return
        recompute, former = moved
        if recompute is None:
            raise BalancerError(
                "FAMO needs a module that can evaluate a batch again, or update: next_step."
            )
        again = recompute()
        means, _ = share_labels(again, self.entries, again.vector.device)
        both = self.step([e for e in self.entries if e in means and e in former])
        old, new = (
            torch.tensor([x[e] for e in both.entries], dtype=torch.float64) for x in (former, means)
        )
        self._move(self._above(old, both).log() - self._above(new, both).log(), both.present)

    def _move(self, decrease: Tensor, at: Tensor) -> None:
        if len(at):
            self.logits.step(famo_pull(self.logits.values[at], decrease), at)

    def method_state(self) -> dict[str, Any]:
        """Logits, the moments of their optimiser, and the last losses."""
        return {"logits": self.logits.state(), "former": self._former}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.logits.load(state["logits"])
        self._former = state["former"].clone()
