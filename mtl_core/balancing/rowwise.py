"""Methods that see every task's gradient of the shared parameters: one walk of the trunk a task."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from mtl_core.balancing.base import Balanceable, Balancer
from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.ranks import mean_gradients, sum_over_ranks, world_size
from mtl_core.balancing.rows import RowBuffer, add_rows, kept_graphs
from mtl_core.errors import ArgumentError, BalancerError, NonFiniteLossError


class RowBalancer(Balancer):
    """Collects rows over a window, averages them over ranks once, and writes the method's answer.

    Rows of all micro-batches are added before the method acts, so a window equals one large batch
    up to batch statistics. Decoders keep their own, unweighted gradients unless `weight_decoders`
    says otherwise.

    Args:
        weight_decoders: multiply every decoder's gradient by its task's weight too.
        seed: of the method's random numbers.
    """

    by_hand = True
    wants_cut = True

    def __init__(self, *, weight_decoders: bool = False, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.weight_decoders = weight_decoders
        self._buffer: RowBuffer | None = None
        self._names: list[str] = []

    @abstractmethod
    def update(self, rows: Tensor, losses: Tensor, step: Step) -> tuple[Tensor, Tensor | None]:
        """Direction (n,) for the shared parameters, and the weights (T,) behind it if any.

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
        found, _ = self.update(jacobian, known.double().cpu(), step)
        self.index += 1
        return found

    def _plain_step(self, rows: int) -> Step:
        """The update at hand for unnamed rows, which start a run if none of so many goes on."""
        if len(self.entries) != rows:
            self.start([str(i) for i in range(rows)])
        return self.step(self.entries)

    def _rows(self, network: nn.Module, shared: list[nn.Parameter]) -> RowBuffer:
        if not shared:
            raise BalancerError(
                f"{type(self).__name__} balances shared parameters, but {type(network).__name__} "
                "has none that are trainable. Unfreeze the encoder, or use a method that weighs "
                "losses."
            )
        same = self._buffer is not None and [id(p) for p in shared] == [
            id(p) for p in self._buffer.parameters
        ]
        if self._buffer is None or not same or self._buffer.rows.device != shared[0].device:
            self._buffer = RowBuffer(shared, len(self.entries))
            names = {id(p): name for name, p in network.named_parameters()}
            self._names = [names[id(p)] for p in shared]
        return self._buffer

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
        network = module.network
        buffer = self._rows(network, network.shared_parameters())
        index = {entry: i for i, entry in enumerate(self.entries)}
        with kept_graphs():
            add_rows(buffer, step, scaled, network, index, shares)

    def finish(self, module: Balanceable, losses: Tensor, step: Step) -> None:
        """Average over ranks, ask the method, write ``.grad``."""
        buffer = self._buffer
        assert buffer is not None
        network = module.network
        own = {t: network.task_parameters(t) for t in network.tasks}
        size = world_size()
        if size > 1:
            sum_over_ranks(buffer.rows).div_(size)
            flag = sum_over_ranks(buffer.aux.new_tensor([float(buffer.has_aux)]))
            buffer.has_aux = bool(flag)
            if buffer.has_aux:
                sum_over_ranks(buffer.aux).div_(size)
            mean_gradients([p for parameters in own.values() for p in parameters])
        rows = buffer.rows[step.present.to(buffer.rows.device)]
        finite = torch.isfinite(rows.sum(1)).tolist()
        if all(finite):
            direction, weights = self.update(rows, losses, step)
            if weights is not None:
                self.weights.update(zip(step.entries, weights.tolist(), strict=True))
                if self.weight_decoders:
                    self._weigh_decoders(own)
        elif self.has_scaler():
            # Nothing is solved and no state advances; the scaler sees this and drops the step.
            direction = torch.full_like(buffer.aux, float("nan"))
        else:
            bad = [e for e, ok in zip(step.entries, finite, strict=True) if not ok]
            raise NonFiniteLossError(
                {f"gradient of {e}": float("nan") for e in bad}, self.index, []
            )
        buffer.write(direction)
        buffer.reset()

    def _weigh_decoders(self, own: dict[str, list[nn.Parameter]]) -> None:
        for task, parameters in own.items():
            if task not in self.weights:
                raise ArgumentError("weight_decoders", "be false for tasks with groups", task)
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(self.weights[task])
