"""Methods that need only the inner products of the tasks' gradients."""

import copy
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Self

import lightning as L
import torch
from torch import Tensor

from mtl_core.balancing.base import Balanceable
from mtl_core.balancing.border import Border, Merged, merge_at_border, walk_losses
from mtl_core.balancing.feature import require_border, require_shared
from mtl_core.balancing.ghost import Ghost
from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.ranks import mean_gradients
from mtl_core.balancing.rows import combine, gramian, kept_graphs
from mtl_core.balancing.rowwise import RowBalancer, Update
from mtl_core.balancing.sharded import ShardedRows, is_sharded
from mtl_core.balancing.solvers import min_norm_point
from mtl_core.balancing.stages import Pipeline, Solved, Stages
from mtl_core.balancing.surrogates import surrogate_gramian
from mtl_core.errors import BalancerError
from mtl_core.metrics.conflict import summary, update_summary


class GradientBalancer(RowBalancer):
    """Turns the T×T Gramian of the rows into T weights.

    A method writes `weigh`, a rule that never sees a model: its mathematics is a function of a
    small float64 matrix, tested as such. What surrounds the rule, and where the Gramian comes from,
    are `Stages`. With one of its approximations, or between two refreshes, the trunk is walked once
    a micro-batch, on which the method then acts by itself.

    Args:
        stages: options common to all methods of this family.
        seed: of the method's random numbers.
    """

    needs = "Gramian"

    def __init__(self, *, stages: Stages | None = None, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.stages = Stages() if stages is None else stages
        self.batched = self.stages.gram == "batched"  # type: ignore[misc]  # of this instance
        self._pipeline = Pipeline(self.stages, 0)
        self._members: dict[str, Self] = {}
        self._kept = torch.ones(2, 0, dtype=torch.float64)
        self._factor = 1.0
        self._inner: Tensor | None = None
        self._ghost: Ghost | None = None
        self._ghost_pays: bool | None = None
        self._sharded: ShardedRows | None = None
        self._aux: Tensor | None = None

    @abstractmethod
    def weigh(self, gramian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Weights (T,) of the rows, as published.

        Args:
            gramian: (T, T) float64 on the CPU, of unscaled gradients, finite. Rows of zeros (a task
                without gradient) were removed: every diagonal entry is positive.
            losses: (T,) float64.
            step: the update; its entries are those of the Gramian.
        """

    def gain(self, tasks: int) -> float | None:
        """Sum of the weights that `weigh` gives T equal rows.

        It decides what the method does to the learning rate; with ``scale: sum`` the weights are
        multiplied by T over it. None where it depends on the length of the rows. Default: T.
        """
        return float(tasks)

    # On plain tensors.

    def solve(self, gramian: Tensor, losses: Tensor | None = None) -> Tensor:
        """Weights of T rows from a plain Gramian, without any module; stateful methods advance.

        Args:
            gramian: (T, T) of any floating type, symmetric.
            losses: (T,), where a stage or the method asks for them; default ones.

        Returns:
            (T,) float64 weights: the update is the rows' weighted sum. NaN, and no state moves,
            where the Gramian is not finite.
        """
        wide = gramian.detach().double().cpu()
        step = self._plain_step(len(wide))
        known = torch.ones(len(wide)) if losses is None else losses.detach()
        if not bool(torch.isfinite(wide).all()):
            return torch.full((len(wide),), torch.nan, dtype=torch.float64)
        found = self._solve(wide, known.double().cpu(), step)
        self.index += 1
        return found.weights * found.factor

    # In a fit: which route the window takes.

    def check(self, trainer: L.Trainer, module: L.LightningModule) -> Balanceable:
        """Refuse networks and set-ups that the source of the Gramian does not fit."""
        checked = super().check(trainer, module)
        if self.stages.cheap or self.stages.gram == "ghost":
            require_border(self, checked)
        if self.stages.gram == "ghost" and trainer.world_size > 1:
            raise BalancerError(
                "gram: ghost works on one process: rows of several would have to exchange their "
                "activations. Use gram: exact."
            )
        return checked

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Listen to the trunk's linear layers too where ``gram`` asks for it."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and isinstance(pl_module, Balanceable):
            self.listen(pl_module)

    def listen(self, module: Balanceable) -> None:
        """Begin to record activations where ``gram`` asks for it."""
        if self.stages.gram in ("ghost", "auto"):
            self._ghost = Ghost(module.network)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Stop listening."""
        super().teardown(trainer, pl_module, stage)
        self.stop_listening()

    def stop_listening(self) -> None:
        """Take the hooks of `listen` off."""
        if self._ghost is not None:
            self._ghost.close()
            self._ghost = None

    def _due(self) -> bool:
        """Whether this window computes weights rather than applying the last ones."""
        return self.index % self.stages.refresh == 0

    def collect(
        self,
        module: Balanceable,
        step: TaskLosses,
        scaled: Tensor,
        means: dict[str, float],
        shares: dict[str, float],
    ) -> None:
        """Take in one micro-batch by rows, by activations, or with one walk of the trunk."""
        split = self.parameters_of(module)
        if is_sharded(split.shared):
            self._collect_sharded(module, step, scaled, means, shares)
            return
        if self._due() and not self.stages.cheap:
            if self._ghost is not None and self.stages.gram == "auto":
                if self._ghost_pays is None:
                    self._ghost_pays = self._ghost.pays(step, split, len(self.entries))
                if not self._ghost_pays:
                    self.stop_listening()
            if self._ghost is None:
                super().collect(module, step, scaled, means, shares)
                return
            require_shared(self, module, split.shared)
            self._ghost.collect(step, scaled, split, self.entries)
            return
        if self._ghost is not None:
            self._ghost.forget()
        require_shared(self, module, split.shared)
        present = [e for e in self.entries if e in means]
        losses = torch.tensor([means[e] for e in present], dtype=torch.float64)
        update = replace(self.step(present), samples=step.size)
        if not module.network.independent_decoders():
            if self._due():
                require_border(self, module)
            former = self._former(update)
            weights = dict(zip(present, (former.weights * former.factor).tolist(), strict=True))
            walk_losses(step, scaled, split, shares, weights)
            return

        def merge(border: Border) -> Merged:
            found = self._former(update)
            if self._due():
                inner = surrogate_gramian(self.stages, border, step, module.network, split, update)
                if not self.all_finite(torch.isfinite(inner.diagonal()), update):
                    return Merged(torch.full_like(border.rows[0], float("nan")))
                found = self._solve(inner, losses, update)
                self._summarise(inner, found, f"{self.stages.gram}/")
            return Merged(
                combine(border.rows, found.weights * found.factor), found.weights, found.decoders
            )

        merge_at_border(step, scaled, split, present, shares, self.loss_scale(), merge)

    def finish(self, module: Balanceable, losses: Tensor, step: Step) -> None:
        """End a window by the route that it took."""
        if self._sharded is not None:
            self._finish_sharded(module, losses, step)
            return
        if self._due() and not self.stages.cheap:
            if self._ghost is None:
                super().finish(module, losses, step)
                return
            inner = self._ghost.gramian(self.entries, step) / self.loss_scale() ** 2
            split = self.parameters_of(module)
            if self.all_finite(torch.isfinite(inner.diagonal()), step):
                found = self._solve(inner, losses, step)
                self._summarise(inner, found)
                self.record(found.weights, step)
                self.scale_decoders(found.decoders, step, split)
                self._ghost.write(found.weights * found.factor, step)
            else:
                self._ghost.write(torch.full_like(losses, torch.nan), step)
            return
        split = self.parameters_of(module)
        mean_gradients([*split.shared, *split.all_own()])
        self.record(self._kept[0, step.present], step)

    def _collect_sharded(
        self,
        module: Balanceable,
        step: TaskLosses,
        scaled: Tensor,
        means: dict[str, float],
        shares: dict[str, float],
    ) -> None:
        stages = self.stages
        if stages.gram not in ("exact", "auto") or stages.group != "whole" or stages.refresh > 1:
            raise BalancerError(
                "sharded parameters go with gram: exact, group: whole and refresh: 1, found "
                f"{stages.gram}, {stages.group} and {stages.refresh}."
            )
        split = self.parameters_of(module)
        if self._sharded is None or {id(p) for p in self._sharded.parameters} != {
            id(p) for p in split.shared
        }:
            self._sharded = ShardedRows(split.shared, len(self.entries))
        present = [e for e in self.entries if e in means]
        with kept_graphs():
            aux = self._sharded.collect(step, scaled, split, self.entries, present, shares)
        if aux is not None:
            self._aux = aux if self._aux is None else self._aux + aux

    def _finish_sharded(self, module: Balanceable, losses: Tensor, step: Step) -> None:
        assert self._sharded is not None
        split = module.network.split_parameters()  # sharded again after the walks
        mean_gradients(split.all_own())
        inner = self._sharded.gramian(step) / self.loss_scale() ** 2
        weights = torch.full_like(losses, torch.nan)
        if self.all_finite(torch.isfinite(inner.diagonal()), step):
            found = self._solve(inner, losses, step)
            self._summarise(inner, found)
            self.record(found.weights, step)
            self.scale_decoders(found.decoders, step, split)
            weights = found.weights * found.factor
        self._sharded.write(weights, step, self._aux)
        self._sharded.reset()
        self._aux = None

    def finite(self, rows: Tensor) -> Tensor:
        """Read off the Gramian, which is needed anyway."""
        if self.stages.group != "whole":
            return super().finite(rows)
        self._inner = gramian(rows)
        return torch.isfinite(self._inner.diagonal())

    # From Gramian to weights.

    def update(self, rows: Tensor, losses: Tensor, step: Step) -> Update:
        """Weighted sum of the rows. A zero row gets weight one, which changes nothing."""
        scale = self.loss_scale() ** 2
        if self.stages.group == "whole":
            inner = (gramian(rows) if self._inner is None else self._inner) / scale
            self._inner = None
            found = self._solve(inner, losses, step)
            self._summarise(inner, found)
            direction = combine(rows, found.weights * found.factor)
            return Update(direction, found.weights, found.decoders)
        direction = torch.empty_like(rows[0])
        total = torch.zeros(len(rows), len(rows), dtype=torch.float64)
        for name, start, stop in self._spans(rows.shape[1]):
            part = rows[:, start:stop]
            inner = gramian(part) / scale
            found = self._member(name)._solve(inner, losses, step)
            direction[start:stop] = combine(part, found.weights * found.factor)
            total += inner
        self._summarise(total, None)
        return Update(direction)

    def _solve(self, inner: Tensor, losses: Tensor, step: Step) -> Solved:
        """Weights (T,) of finite rows with any Gramian."""
        alive = inner.diagonal() > 0
        if not bool(alive.any()):
            return Solved(torch.ones(len(inner), dtype=torch.float64))
        if bool(alive.all()):
            found = self._pipeline.solve(self, inner, losses, step)
        else:
            names = tuple(e for e, keep in zip(step.entries, alive.tolist(), strict=True) if keep)
            part = replace(step, entries=names, present=step.present[alive])
            kept = inner[alive][:, alive]
            found = self._pipeline.solve(self, kept, losses[alive], part)
            found = Solved(
                _spread(found.weights, alive),
                found.factor,
                None if found.decoders is None else _spread(found.decoders, alive),
            )
        self._keep(found, step)
        return found

    def _keep(self, found: Solved, step: Step) -> None:
        at = step.present
        self._kept[0, at] = found.weights
        self._kept[1, at] = 1.0 if found.decoders is None else found.decoders
        self._factor = found.factor

    def _former(self, step: Step) -> Solved:
        """The weights of the last refresh; one for entries that it did not see."""
        weights, decoders = self._kept[:, step.present]
        plain = not self.stages.weight_decoders and self.stages.transform == "none"
        return Solved(weights, self._factor, None if plain else decoders)

    def _summarise(self, inner: Tensor, found: Solved | None, prefix: str = "") -> None:
        """Fill the report, where it is going to be logged."""
        if not self.reporting:
            return
        alive = inner.diagonal() > 0
        kept = inner[alive][:, alive]
        if not len(kept):
            return
        values = summary(kept)
        point = min_norm_point(kept)
        values["stationarity"] = float(point @ kept @ point / kept.diagonal().mean())
        if found is not None:
            values |= update_summary(kept, found.weights[alive] * found.factor)
        self.report.update({f"{prefix}{key}": value for key, value in values.items()})

    # Weights by group of parameters.

    def _spans(self, width: int) -> Iterator[tuple[str, int, int]]:
        """Name, first and last column of every group; all columns are one outside of a fit."""
        if self._buffer is None:
            yield "all", 0, width
            return
        names = self.column_names()
        start, stop = 0, 0
        for i, (name, size) in enumerate(zip(names, self.column_sizes(), strict=True)):
            stop += size
            group = name if self.stages.group == "matrix" else name.rpartition(".")[0]
            last = i == len(names) - 1
            if last or self.stages.group == "matrix" or names[i + 1].rpartition(".")[0] != group:
                yield group, start, stop
                start = stop

    def _member(self, group: str) -> Self:
        """The copy of this method that keeps a group's state."""
        if group not in self._members:
            member = copy.copy(self)
            member._members = {}
            member.prepare(len(self.entries))
            member.reset(len(self.entries))
            self._members[group] = member
        return self._members[group]

    def prepare(self, entries: int) -> None:
        """Fresh state of the stages."""
        super().prepare(entries)
        self._pipeline = Pipeline(self.stages, entries)
        self._kept, self._factor = torch.ones(2, entries, dtype=torch.float64), 1.0
        self._members, self._inner, self._sharded, self._aux = {}, None, None, None
        self._ghost_pays = None

    def family_state(self) -> dict[str, Any]:
        """The stages' state, and that of every group."""
        members = {
            name: {"method": member.method_state(), "stages": member._pipeline.state()}
            for name, member in self._members.items()
        }
        return {
            "stages": self._pipeline.state(),
            "kept": self._kept,
            "factor": self._factor,
            "groups": members,
            "ghost_pays": self._ghost_pays,
        }

    def load_family_state(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self._pipeline.load(state["stages"])
        self._kept, self._factor = state["kept"].clone(), state["factor"]
        self._ghost_pays = state.get("ghost_pays")
        self._members = {}
        for name, kept in state["groups"].items():
            member = self._member(name)
            member.load_method_state(kept["method"])
            member._pipeline.load(kept["stages"])


def _spread(values: Tensor, alive: Tensor) -> Tensor:
    whole = torch.ones(len(alive), dtype=values.dtype)
    whole[alive] = values
    return whole
