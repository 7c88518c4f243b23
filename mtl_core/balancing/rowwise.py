"""Methods that see every task's gradient of the shared parameters: one walk of the trunk a task."""

from abc import abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mtl_core.balancing.base import Balanceable, Balancer
from mtl_core.balancing.feature import require_shared
from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.ranks import mean_window, window_tail
from mtl_core.balancing.rows import RowBuffer, add_rows, kept_graphs
from mtl_core.errors import ArgumentError
from mtl_core.nn.parts import ParameterSplit, SharedNetwork


class Update(NamedTuple):
    """What a method makes of the rows.

    Args:
        direction: (n,) for the shared parameters, times the loss scale.
        weights: (T,) behind it, where there are such.
        decoders: (T,) factors of the decoders' gradients; None leaves them as they are.
    """

    direction: Tensor
    weights: Tensor | None = None
    decoders: Tensor | None = None


class RowBalancer(Balancer):
    """Collects rows over a window, averages them over ranks once, and writes the method's answer.

    Rows of all micro-batches are added before the method acts, so a window equals one large batch
    up to batch statistics.

    Args:
        seed: of the method's random numbers.
    """

    by_hand = True
    wants_cut = True
    walks = "T"
    batched: ClassVar[bool] = False

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self._buffer: RowBuffer | None = None
        self._names: list[str] = []

    @abstractmethod
    def update(self, rows: Tensor, losses: Tensor, step: Step) -> Update:
        """Turn the rows into one direction.

        Args:
            rows: (T, n) float32 finite gradients, times the loss scale.
            losses: (T,) float64 mean losses.
            step: the update.
        """

    def prepare(self, entries: int) -> None:
        """Forget the buffer; it is allocated at the first batch, on the parameters' device."""
        super().prepare(entries)
        self._buffer = None

    def direction(self, jacobian: Tensor, losses: Tensor | None = None) -> Tensor:
        """Combine T plain gradients, without any module; stateful methods advance.

        Args:
            jacobian: (T, n) floating, row t the gradient of loss t.
            losses: (T,), where the method asks for them; default ones.

        Returns:
            (n,) in the Jacobian's type: what to subtract from the parameters, times a learning
            rate. NaN, and no state moves, where the Jacobian is not finite.
        """
        jacobian = jacobian.detach()
        step = self._plain_step(len(jacobian))
        if not bool(torch.isfinite(jacobian).all()):
            return torch.full_like(jacobian[0], torch.nan)
        known = torch.ones(len(jacobian)) if losses is None else losses.detach()
        self.report = {}
        found = self.update(jacobian, known.double().cpu(), step).direction
        self.index += 1
        return found

    def _plain_step(self, rows: int) -> Step:
        """The update at hand for unnamed rows, which start a run if none of so many goes on."""
        if len(self.entries) != rows:
            self.start([str(i) for i in range(rows)])
        return self.step(self.entries)

    def _rows(self, network: SharedNetwork, split: ParameterSplit) -> RowBuffer:
        shared = split.shared
        buffer, tail = self._buffer, window_tail(split.all_own())
        if (
            buffer is None
            or [id(p) for p in shared] != [id(p) for p in buffer.parameters]
            or buffer.rows.device != shared[0].device
            or len(buffer.tail) != tail
        ):
            buffer = self._buffer = RowBuffer(shared, len(self.entries), tail=tail)
            names = {id(p): name for name, p in network.named_parameters()}
            self._names = [names[id(p)] for p in shared]
        return buffer

    def column_names(self) -> list[str]:
        """Dotted names of the shared parameters in the order of the rows' columns."""
        return self._names

    def column_sizes(self) -> list[int]:
        """Numbers of elements of the same parameters."""
        assert self._buffer is not None
        return self._buffer.sizes

    def collect(
        self,
        module: Balanceable,
        step: TaskLosses,
        scaled: Tensor,
        means: dict[str, float],
        shares: dict[str, float],
    ) -> None:
        """Add one micro-batch's rows."""
        split = self.parameters_of(module)
        require_shared(self, module, split.shared)
        buffer = self._rows(module.network, split)
        index = {entry: i for i, entry in enumerate(self.entries)}
        with kept_graphs():
            add_rows(buffer, step, scaled, split, index, shares, batched=self.batched)

    def finish(self, module: Balanceable, losses: Tensor, step: Step) -> None:
        """Average over ranks, ask the method, write ``.grad``."""
        buffer = self._buffer
        assert buffer is not None
        split = self.parameters_of(module)
        buffer.complete()
        mean_window(buffer, split.all_own())
        rows = self.pick(buffer.rows, step)
        if self.all_finite(self.finite(rows), step):
            found = self.update(rows, losses, step)
            self.record(found.weights, step)
            self.scale_decoders(found.decoders, step, split)
            direction = found.direction
        else:
            # Nothing is solved and no state advances; the scaler sees this and drops the step.
            direction = torch.full_like(buffer.rows[0], float("nan"))
        buffer.write(direction)
        buffer.reset()

    def pick(self, rows: Tensor, step: Step) -> Tensor:
        """Rows of the entries present: the buffer itself where all are."""
        if len(step.present) == len(rows):
            return rows
        return rows[step.present.to(rows.device)]

    def finite(self, rows: Tensor) -> Tensor:
        """Which rows (T,) hold no NaN or infinity."""
        return torch.isfinite(rows.sum(1))

    def record(self, weights: Tensor | None, step: Step) -> None:
        """Keep the weights by name for the log."""
        if weights is not None:
            self.weights.update(zip(step.entries, weights.tolist(), strict=True))

    def scale_decoders(self, factors: Tensor | None, step: Step, split: ParameterSplit) -> None:
        """Multiply the decoders' gradients by (T,) factors."""
        if factors is None:
            return
        by_task = dict(zip(step.entries, factors.tolist(), strict=True))
        for task, parameters in split.own.items():
            if task not in by_task and any(e.startswith(f"{task}/") for e in by_task):
                raise ArgumentError("weight_decoders", "be false for tasks with groups", task)
            for parameter in parameters:
                if parameter.grad is not None and task in by_task:
                    parameter.grad = parameter.grad * by_task[task]
