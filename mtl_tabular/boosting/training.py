"""How the blocks of R-MTGB grow: one after the other, or in turns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from mtl_tabular.boosting.additive import AdditiveModel, Margins
from mtl_tabular.boosting.blocks import RowSet
from mtl_tabular.boosting.objectives import (
    Floats,
    Loss,
    stage_derivatives,
    theta_derivatives,
    theta_step,
)
from mtl_tabular.boosting.reduce import Reduce, alone


@dataclass(frozen=True, kw_only=True)
class Round:
    """What a callback is told after every round.

    Args:
        block: ``shared``, ``groups``, ``own``, or ``all`` where the blocks grow in turns.
        round: of the block, from 1.
        rounds: that the block may have at most.
        loss: weighted mean over the training rows.
        held_out: over the held-out rows; NaN where there are none.
    """

    block: str
    round: int
    rounds: int
    loss: float
    held_out: float


Callback: TypeAlias = Callable[[Round], bool | None]
"""Called after every round; True ends the block."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Lengths and step rules of a training.

    Args:
        rounds: at most so many of the shared block, the groups, and the task blocks; 0 leaves a
            block out.
        interleaved: whether every round grows all blocks, for the largest of the three counts.
        patience: rounds without a better held-out loss that end a block; the best round is kept. 0
            trains all rounds.
        theta_rate: length of the steps of θ.
        theta_penalty: λ of θ, in the sum over a task's rows.
        min_task_rows: tasks with fewer training rows get no task block.
        reference: first-order leaves, both groups from one gradient, gradient steps of θ.
        learning_rate: of θ's gradient steps in `reference`.
    """

    rounds: tuple[int, int, int]
    interleaved: bool = False
    patience: int = 0
    theta_rate: float = 1.0
    theta_penalty: float = 0.5
    min_task_rows: int = 10
    reference: bool = False
    learning_rate: float = 0.1


class Boosting:
    """A model that grows on training rows, watched on held-out rows.

    Args:
        model: to grow, new or to be continued.
        loss: of a row.
        plan: lengths and step rules.
        train: rows that trees and θ are fitted to.
        held: rows that decide when to stop.
        callbacks: told after every round.
        reduce: sums over all processes; where there are several, rows are those of this one and a
            task's rows are all in one process.
    """

    def __init__(
        self,
        model: AdditiveModel,
        loss: Loss,
        plan: Plan,
        train: RowSet,
        held: RowSet | None = None,
        callbacks: Sequence[Callback] = (),
        reduce: Reduce = alone,
    ) -> None:
        self.model, self.loss, self.plan, self.reduce = model, loss, plan, reduce
        self.train, self.held, self.callbacks = train, held, list(callbacks)
        self._row_shares: dict[int, tuple[Floats, Floats]] = {}
        self.margins = self._grown()
        self.held_margins = None if held is None else model.margins(held, held.tasks)
        self.score = self._total()

    def run(self) -> None:
        """Grow all blocks as planned."""
        n1, n2, n3 = self.plan.rounds
        if self.plan.interleaved:
            steps = [
                step
                for step, n in ((self._grow_shared, n1), (self._grow_groups, n2),
                                (self._grow_own, n3))
                if n
            ]  # fmt: skip

            def grow_all() -> None:
                for step in steps:
                    step()

            most, active = max(n1, n2, n3), (n1 > 0, n2 > 0, n3 > 0)
            self._block("all", grow_all, most, active)
        else:
            self._block("shared", self._grow_shared, n1, (True, False, False))
            self._block("groups", self._grow_groups, n2, (False, True, False))
            self._block("own", self._grow_own, n3, (False, False, True))
        order = self.model.canonicalise()
        for margins in (self.margins, self.held_margins):
            if margins is not None:
                margins.groups[:] = margins.groups[order]

    def held_out_loss(self) -> float:
        """Weighted mean over the held-out rows, NaN where there are none."""
        if self.held is None or self.held_margins is None:
            return float("nan")
        share = self._shares(self.held)
        return self._mean(self.held, self.held_margins.total(self.model.intercept, share))

    def _shares(self, rows: RowSet) -> Floats:
        """π (n, G) of rows, worked out once a θ."""
        theta, shares = self._row_shares.get(id(rows), (None, None))
        if shares is None or theta is not self.model.theta:
            theta, shares = self.model.theta, self.model.row_shares(rows.tasks)
            self._row_shares[id(rows)] = theta, shares
        return shares

    # ------------------------------------------------------------------ loops

    def _block(
        self,
        name: str,
        grow: Callable[[], None],
        rounds: int,
        active: tuple[bool, bool, bool],
    ) -> None:
        done = max((r for r, on in zip(self.model.rounds, active, strict=True) if on), default=0)
        best, best_rounds = self.held_out_loss(), self.model.rounds
        waited = 0
        grown = done
        for k in range(done + 1, rounds + 1):
            grow()
            grown = k
            held = self.held_out_loss()
            loss = float("nan")
            if self.callbacks or self.reduce is not alone:  # nobody else asks for it
                loss = self._mean(self.train, self.score)
            told = Round(block=name, round=k, rounds=rounds, loss=loss, held_out=held)
            stop = sum(bool(callback(told)) for callback in self.callbacks) > 0
            if not held >= best:
                best, best_rounds, waited = held, self.model.rounds, 0
            else:
                waited += 1
            if stop or (self.plan.patience and self.held is not None
                        and waited >= self.plan.patience):  # fmt: skip
                break
        if self.plan.patience and self.held is not None and waited and grown > done:
            self.model.keep(*best_rounds)
            self.margins = self._grown()
            self.held_margins = self.model.margins(self.held, self.held.tasks)
            self.score = self._total()

    def _mean(self, rows: RowSet, scores: Floats) -> float:
        losses = self.loss.value(scores, rows.targets) * rows.weights
        total, weight = self.reduce(np.array([losses.sum(), rows.weights.sum()]))
        return float(total / weight)

    def _grown(self) -> Margins:
        """Scores on the training rows by the blocks' own caches."""
        model, train = self.model, self.train
        own = model.own.training_scores(train)
        groups = np.stack([block.scores(train.matrix) for block in model.groups])
        return Margins(model.shared.scores(train.matrix).copy(), groups, own)

    def _total(self) -> Floats:
        share = self._shares(self.train)
        return self.margins.total(self.model.intercept, share)

    # ------------------------------------------------------------------ rounds

    def _derivatives(self, rows: slice | None = None) -> tuple[Floats, Floats]:
        """First and second derivatives of training rows by score, weights included.

        The second are 1 for first-order leaves.
        """
        rows = slice(None) if rows is None else rows
        weights = self.train.weights[rows, None]
        targets, score = self.train.targets[rows], self.score[rows]
        gradient = self.loss.gradient(score, targets) * weights
        if self.plan.reference:
            return gradient, np.broadcast_to(weights, gradient.shape)
        return gradient, self.loss.curvature * self.loss.hessian(score, targets) * weights

    def _grow_shared(self) -> None:
        block, k = self.model.shared, self.model.shared.rounds
        block.grow(self.train.matrix, *stage_derivatives(*self._derivatives()))
        self.margins.shared[:] = block.scores(self.train.matrix)
        if self.held is not None and self.held_margins is not None:
            self.held_margins.shared[:] += block.part(self.held.matrix, k, k + 1)
        self.score = self._total()

    def _grow_groups(self) -> None:
        model, share = self.model, self._shares(self.train)
        theta = self._reference_theta() if self.plan.reference else None
        derivatives = self._derivatives()
        order = sorted(range(model.group_count), key=lambda g: -model.groups[g].origin)
        for g in order:  # that of before any relabelling, so that a continued run is one run
            block, k = model.groups[g], model.groups[g].rounds
            gradient, hessian = stage_derivatives(*derivatives, share[:, g])
            if self.plan.reference:
                hessian = derivatives[1]
            block.grow(self.train.matrix, gradient, hessian)
            if self.held is not None and self.held_margins is not None:
                self.held_margins.groups[g] += block.part(self.held.matrix, k, k + 1)
            if not self.plan.reference:  # Newton leaves of two groups overshoot unless in turns
                new = block.scores(self.train.matrix)
                self.score = self.score + share[:, g, None].astype(np.float32) * (
                    new - self.margins.groups[g]
                )
                self.margins.groups[g] = new
                derivatives = self._derivatives()
        if theta is None:
            first, second = self._theta_derivatives(derivatives)
            theta = theta_step(
                model.theta, first, second,
                penalty=self.plan.theta_penalty, rate=self.plan.theta_rate,
            )  # fmt: skip
        else:
            for g, block in enumerate(model.groups):
                self.margins.groups[g] = block.scores(self.train.matrix)
        model.thetas.append(theta)
        self.score = self._total()

    def _theta_derivatives(self, derivatives: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
        gradient, hessian = derivatives
        sums = theta_derivatives(
            gradient,
            hessian / self.loss.curvature,
            self.margins.groups,
            self.model.shares,
            self.train.tasks,
        )
        first, second = self.reduce(np.stack(sums))
        return first, second

    def _reference_theta(self) -> Floats:
        """A gradient step, summed over rows, with the groups of before the round."""
        first, _ = self._theta_derivatives(self._derivatives())
        moved: Floats = self.model.theta - self.plan.learning_rate * first
        return moved

    def _grow_own(self) -> None:
        gradient, hessian = stage_derivatives(*self._derivatives())
        own, k = self.model.own, self.model.own.rounds
        own.grow(
            self.train, gradient, hessian, least=self.plan.min_task_rows, scores=self.margins.own
        )
        if self.held is not None and self.held_margins is not None:
            self.held_margins.own[:] += own.part(self.held, self.held.tasks, k, k + 1)
        self.score = self._total()
