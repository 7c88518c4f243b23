"""Groups of tasks, updated one after the other on every batch."""

from typing import Any, ClassVar

import lightning as L
import numpy as np
import torch
from torch import Tensor

from mtl_core.balancing.affinity import affinity_propagation
from mtl_core.balancing.base import Balanceable, Balancer
from mtl_core.balancing.feature import require_shared
from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.ranks import mean_gradients, share_labels
from mtl_core.balancing.solvers import to_numpy
from mtl_core.balancing.stages import require_positive
from mtl_core.errors import ArgumentError, BalancerError


def proximal_affinity(changes: Tensor, members: Tensor) -> Tensor:
    r"""What a group's step did to every task, booked on each of its members.

    With the relative change :math:`a_t = (1 - \ell_t^{after} / \ell_t^{before}) / |S|`, a member s
    of the group S gets :math:`a_t` for a task outside of it. Inside, it gets :math:`a_t` where
    :math:`a_s a_t \ge 0`, else :math:`-\max(a_s, a_t)`; and for itself :math:`a_s` unless negative.

    Args:
        changes: :math:`1 - \ell^{after} / \ell^{before}`, (T,).
        members: bool (T,), the group.

    Returns:
        (T, T), NaN where there is nothing to book.
    """
    by_task = changes / members.sum()
    found = by_task.expand(len(changes), -1).clone()
    pairs = members[:, None] & members
    opposite = pairs & (torch.outer(by_task, by_task) < 0)
    larger = torch.maximum(by_task[:, None], by_task)
    found = torch.where(opposite, -larger, found)
    found.fill_diagonal_(torch.nan)
    found.diagonal().copy_(torch.where(by_task >= 0, by_task, torch.nan))
    found[~members] = torch.nan
    return found


def cluster(affinity: Tensor, generator: torch.Generator) -> list[int] | None:
    """Group of every task by affinity propagation; None where that does not converge.

    Columns are divided by the diagonal and the matrix is made symmetric. Tasks without a positive
    diagonal, which have not gained from their own steps yet, stay alone.

    Args:
        affinity: (T, T).
        generator: of the noise that breaks ties.
    """
    known = (affinity.diagonal() > 0).nonzero()[:, 0]
    labels = list(range(len(affinity)))
    if not len(known):
        return labels
    part = affinity[known][:, known]
    part = part / part.diagonal()
    noise = torch.randn(len(known), len(known), dtype=torch.float64, generator=generator)
    found = affinity_propagation(
        np.ascontiguousarray(to_numpy((part + part.t()) / 2)), noise=to_numpy(noise), patience=50
    )
    if found is None:
        return None
    for at, centre in zip(known.tolist(), found, strict=True):
        labels[at] = int(known[centre])
    return labels


class SelUpdate(Balancer):
    r"""Tasks in groups that take turns: one optimiser step a group on every batch.

    Jeong and Yoon, "Selective Task Group Updates for Multi-Task Optimization", ICLR 2025. The
    groups are visited in random order; each visit is a forward pass, a backward pass of the sum of
    the group's losses and a step of the optimiser, clipped as the trainer clips. How one group's
    step changes the losses of all tasks is kept as an average with rate `beta`
    (`proximal_affinity`) and gives the groups of the next batch (`cluster`). For the first `warmup`
    batches every task is a group; a single group is visited twice.

    What differs from the authors' code (wooseong97/sel-update-mtl): a change is booked on the group
    that caused it, where theirs books it on the next one. The last group's change is not booked, as
    that would take one more pass. Tasks without a positive diagonal stay alone, where theirs
    divides by zero; without convergence the former groups stay. Random numbers are the same in all
    passes over a batch, BatchNorm statistics move once a batch instead of M times, schedulers step
    once a batch. A relative change needs positive losses.

    An auxiliary loss is spread evenly over the visits. Steps between visits are taken on the
    optimiser itself: hooks of callbacks around the optimiser's step see the last one only, which is
    the trainer's. M forward and backward passes a batch. Not with accumulation, a loss scaler
    (16-mixed), manual optimisation or several optimisers. The published figures are not verified.

    Args:
        beta: rate of the average, in (0, 1]; 0.001 as published.
        warmup: batches with every task by itself, not negative; 100 as published.
        seed: of the order of groups.
    """

    source = "Jeong and Yoon, ICLR 2025"
    needs = "moved weights"
    walks = "M"
    by_hand: ClassVar[bool] = True
    wants_replay = True

    def __init__(self, *, beta: float = 0.001, warmup: int = 100, seed: int = 0) -> None:
        super().__init__(seed=seed)
        if not 0 < beta <= 1:
            raise ArgumentError("beta", "lie in (0, 1]", beta)
        if warmup < 0:
            raise ArgumentError("warmup", "not be negative", warmup)
        self.beta = beta
        self.warmup = warmup
        self.reset(0)

    def reset(self, entries: int) -> None:
        """No affinity, every task by itself."""
        self.affinity = torch.zeros(entries, entries, dtype=torch.float64)
        self.group_of = torch.arange(entries)

    @property
    def groups(self) -> list[list[str]]:
        """Names of the entries by group."""
        labels = self.group_of.tolist()
        return [
            [e for e, label in zip(self.entries, labels, strict=True) if label == group]
            for group in dict.fromkeys(labels)
        ]

    def check(self, trainer: L.Trainer, module: L.LightningModule) -> Balanceable:
        """Refuse manual optimisation and accumulation too."""
        checked = super().check(trainer, module)
        if not module.automatic_optimization:
            raise BalancerError(
                "SelUpdate takes the steps between groups itself and needs automatic optimisation."
            )
        self._check_window(trainer)
        return checked

    def _check_window(self, trainer: L.Trainer) -> None:
        if trainer.accumulate_grad_batches != 1:
            raise BalancerError(
                "SelUpdate takes several optimiser steps on every batch, so it cannot accumulate: "
                f"accumulate_grad_batches must be 1, found {trainer.accumulate_grad_batches}."
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse several optimisers and loss scalers too."""
        super().on_train_start(trainer, pl_module)
        if len(trainer.optimizers) != 1:
            raise BalancerError(f"SelUpdate needs one optimiser, found {len(trainer.optimizers)}.")
        self._check_scaler()

    def _check_scaler(self) -> None:
        if self.has_scaler():
            raise BalancerError(
                "SelUpdate takes optimiser steps that a loss scaler would not see. Use precision "
                "bf16-mixed or 32-true."
            )

    def collect(
        self,
        module: Balanceable,
        step: TaskLosses,
        scaled: Tensor,
        means: dict[str, float],
        shares: dict[str, float],
    ) -> None:
        """All visits but the last one's optimiser step, which is the trainer's."""
        if self._trainer is None or step.recompute is None:
            raise BalancerError("SelUpdate steps the optimiser itself, which needs a trainer.")
        self._check_window(self._trainer)
        self._check_scaler()
        split = self.parameters_of(module)
        require_shared(self, module, split.shared)
        parameters = [*split.shared, *split.all_own()]
        again = step.recompute
        update = self.step([e for e in self.entries if e in means])
        visits = self._visits(update)
        for turn, group in enumerate(visits):
            if turn:
                self._optimise(self._trainer, module)
                step = again()
                scaled = step.total
                after, shares = share_labels(step, self.entries, parameters[0].device)
                self._book(visits[turn - 1], means, after, update)
                means = after
            self._backward_group(step, scaled, group, shares, len(visits))
            mean_gradients(parameters)

    def _visits(self, update: Step) -> list[list[str]]:
        """Groups of the entries present, in random order."""
        if self.index >= self.warmup:
            found = cluster(self.affinity, update.generator)
            if found is not None:
                self.group_of = torch.tensor(found)
        present = set(update.entries)
        groups = [[e for e in group if e in present] for group in self.groups]
        groups = [group for group in groups if group]
        order = torch.randperm(len(groups), generator=update.generator).tolist()
        visits = [groups[i] for i in order]
        return visits * 2 if len(visits) == 1 else visits

    def _backward_group(
        self,
        step: TaskLosses,
        scaled: Tensor,
        group: list[str],
        shares: dict[str, float],
        visits: int,
    ) -> None:
        factors, aux_factor = step.factors(scaled)
        each = dict(zip(step.losses, factors.unbind(), strict=True))
        here = [e for e in group if e in step.losses]
        roots = [step.losses[e] for e in here]
        outgoing = [each[e] * shares[e] for e in here]
        if step.aux is not None and aux_factor is not None and step.aux.requires_grad:
            roots.append(step.aux)
            outgoing.append(aux_factor / visits)
        if roots:
            torch.autograd.backward(roots, outgoing)

    def _optimise(self, trainer: L.Trainer, module: Balanceable) -> None:
        """One step on the gradients at hand."""
        assert isinstance(module, L.LightningModule)
        optimizer = trainer.optimizers[0]
        module.configure_gradient_clipping(
            optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm
        )
        optimizer.step()
        optimizer.zero_grad()

    def _book(
        self, group: list[str], before: dict[str, float], after: dict[str, float], update: Step
    ) -> None:
        former = torch.tensor([before[e] for e in update.entries], dtype=torch.float64)
        require_positive(torch.where(former == 0, 1.0, former), update, "relative changes")
        latter = torch.tensor([after[e] for e in update.entries], dtype=torch.float64)
        members = torch.tensor([e in group for e in update.entries])
        found = proximal_affinity(1 - latter / former, members)
        at = update.present
        kept = self.affinity[at[:, None], at]
        mixed = (1 - self.beta) * kept + self.beta * found
        self.affinity[at[:, None], at] = torch.where(torch.isfinite(mixed), mixed, kept)

    def finish(self, module: Balanceable, losses: Tensor, step: Step) -> None:
        """Record the number of groups."""
        self.weights.update(dict.fromkeys(step.entries, 1.0))
        self.report["groups"] = float(len(self.groups))

    def method_state(self) -> dict[str, Any]:
        """Affinities and groups."""
        return {"affinity": self.affinity, "group_of": self.group_of}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.affinity = state["affinity"].clone()
        self.group_of = state["group_of"].clone()
