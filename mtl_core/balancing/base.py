"""The callback beneath every balancing method: it answers the module's backward.

Automatic optimisation stays on. The training step returns the plain sum of the losses, so
accumulation, clipping, mixed precision and schedulers see nothing unusual; `Balancer` replaces
``backward`` of the module, reads from the graph what the trainer multiplied on, and works on the
separate losses.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import MethodType
from typing import Any, ClassVar, Protocol, runtime_checkable

import lightning as L
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.ranks import share_labels
from mtl_core.errors import BalancerError, NonFiniteLossError
from mtl_core.nn.parts import ParameterSplit, SharedNetwork


@runtime_checkable
class Balanceable(Protocol):
    """What a LightningModule offers to be balanced; `MultiTaskModule` does.

    ``task_losses`` is set by ``training_step`` and taken by ``backward``; with ``wants_cut`` the
    step computes them on cut copies of the features, with ``wants_replay`` it keeps what a second
    pass with the same random numbers needs.
    """

    @property
    def network(self) -> SharedNetwork:
        """Whose parameters are trained."""

    entries: tuple[str, ...]
    task_losses: TaskLosses | None
    wants_cut: bool
    wants_replay: bool


class Balancer(L.Callback, ABC):
    """Base of all methods: when to act, what is present, what is kept. Exactly one per fit.

    Under gradient accumulation a method acts once per window. Under several processes losses and
    gradients are averaged over all labels before the method sees them, so that n processes equal
    one. State is kept by entry, saved with the checkpoint, and never enters the model's state dict.

    Args:
        seed: of the method's own random numbers, which are a function of it and the update's index.
    """

    by_hand: ClassVar[bool] = False
    """Whether gradients are averaged over ranks here instead of by DDP's hooks."""
    wants_cut: ClassVar[bool] = False
    """Whether losses are to be computed on cut copies of the features."""
    wants_replay: ClassVar[bool] = False
    """Whether the batch is evaluated again with the same random numbers."""
    needs: ClassVar[str] = "losses"
    """What the method is computed from, as the catalogue prints it: losses, norms, Gramian, rows,
    rows of two batches, features, moved weights."""
    walks: ClassVar[str] = "1"
    """Backward walks of the trunk a step, in terms of T."""
    source: ClassVar[str] = ""
    """Authors, venue and year of the paper."""

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed
        self.entries: tuple[str, ...] = ()
        self.index = 0
        self.weights: dict[str, float] = {}
        self.report: dict[str, float] = {}
        self.reporting = True
        self.scaler: torch.amp.GradScaler | None = None
        self._boundary = True
        self._window: dict[str, list[float]] = {}
        self._pending: dict[str, Any] | None = None
        self._before: tuple[float, dict[str, Any]] | None = None
        self._trainer: L.Trainer | None = None
        self._taking = False
        self._split: ParameterSplit | None = None

    # What a family writes.

    @abstractmethod
    def collect(
        self,
        module: Balanceable,
        step: TaskLosses,
        scaled: Tensor,
        means: dict[str, float],
        shares: dict[str, float],
    ) -> None:
        """Take in one micro-batch: its losses, their means over ranks, this rank's shares."""

    @abstractmethod
    def finish(self, module: Balanceable, losses: Tensor, step: Step) -> None:
        """End a window: leave gradients in ``.grad`` and advance the method's state.

        Args:
            module: the module.
            losses: (T,) float64, mean loss over the window of every entry present in it.
            step: the update.
        """

    # What a method writes where it keeps anything.

    def reset(self, entries: int) -> None:
        """Allocate fresh state for T entries. Called once per fit, before any state is loaded."""

    # What a family writes where it keeps anything beside the method.

    def prepare(self, entries: int) -> None:
        """Allocate the family's own state, likewise."""

    def family_state(self) -> dict[str, Any]:
        """The family's own part of what a resumed run needs."""
        return {}

    def load_family_state(self, state: dict[str, Any]) -> None:
        """Take back what `family_state` gave."""

    def method_state(self) -> dict[str, Any]:
        """Tensors and plain data that a resumed run needs."""
        return {}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take back what `method_state` gave."""

    # Lightning's side.

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check the set-up and take over the module's backward."""
        if stage != "fit":
            return
        module = self.check(trainer, pl_module)
        self._trainer = trainer
        self.start(module.entries)
        module.wants_cut = self.wants_cut and module.network.independent_decoders()
        module.wants_replay = self.wants_replay
        pl_module.backward = MethodType(self._backward, pl_module)  # type: ignore[method-assign]
        if self._pending is not None:
            state, self._pending = self._pending, None
            self.load_state_dict(state)

    def start(self, entries: Sequence[str]) -> None:
        """Begin a run on these entries with fresh state, whatever was kept before."""
        self.entries = tuple(entries)
        self.index, self._window, self._before = 0, {}, None
        self.prepare(len(self.entries))
        self.reset(len(self.entries))

    def check(self, trainer: L.Trainer, module: L.LightningModule) -> Balanceable:
        """Refuse set-ups in which the method would be wrong."""
        name = type(self).__name__
        if not isinstance(module, Balanceable):
            raise BalancerError(
                f"{name} needs a module that registers separate task losses (MultiTaskModule "
                f"does), found {type(module).__name__}."
            )
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set elsewhere
        balancers = [type(c).__name__ for c in callbacks if isinstance(c, Balancer)]
        if len(balancers) > 1:
            raise BalancerError(f"a fit takes exactly one balancer, found {', '.join(balancers)}.")
        if type(module).backward is not L.LightningModule.backward:
            raise BalancerError(
                f"{name} replaces backward, but {type(module).__name__} overrides it itself."
            )
        if self.by_hand and not isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy)):
            raise BalancerError(
                f"{name} works on gradients of whole parameters, which "
                f"{type(trainer.strategy).__name__} does not offer. Use one device, strategy: ddp, "
                "or a method that only weighs losses."
            )
        return module

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the module its own backward back."""
        if "backward" in vars(pl_module):
            del pl_module.backward
            pl_module.wants_cut = pl_module.wants_replay = False  # type: ignore[assignment]
        self._trainer = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse optimisers that call the step several times."""
        if any(isinstance(o, torch.optim.LBFGS) for o in trainer.optimizers):
            raise BalancerError("a balancer needs one backward a step; LBFGS makes several.")

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Find out whether this batch ends an accumulation window."""
        every = trainer.accumulate_grad_batches
        self._boundary = (
            not pl_module.automatic_optimization
            or (batch_idx + 1) % every == 0
            or trainer.is_last_batch
            or batch_idx + 1 >= trainer.num_training_batches
        )
        logged: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set elsewhere
        self.reporting = self._boundary and (self.index + 1) % logged == 0
        model = trainer.strategy.model
        if self.by_hand and isinstance(model, DistributedDataParallel):
            # The second line keeps buffers (BatchNorm) in step, which the first would switch off.
            model.require_backward_grad_sync = False
            model.require_forward_param_sync = True

    def _backward(self, pl_module: L.LightningModule, loss: Tensor, *_: Any, **__: Any) -> None:
        assert isinstance(pl_module, Balanceable)
        step, pl_module.task_losses = pl_module.task_losses, None
        if step is None:
            raise BalancerError(
                "backward was called without a training step that registers task losses."
            )
        self.take(pl_module, step, loss, boundary=self._boundary)

    def take(
        self, module: Balanceable, step: TaskLosses, scaled: Tensor, *, boundary: bool
    ) -> None:
        """Answer one backward: take in a micro-batch and, at a window's end, act.

        Args:
            module: whose parameters are trained.
            step: its losses.
            scaled: a multiple of ``step.total``, as the trainer wants it differentiated.
            boundary: whether an optimiser step follows.
        """
        self._taking, self._split = True, None
        try:
            self._take(module, step, scaled, boundary)
        finally:
            self._taking, self._split = False, None

    def _take(self, module: Balanceable, step: TaskLosses, scaled: Tensor, boundary: bool) -> None:
        if not self._window:
            self._remember()
        means, shares = share_labels(step, self.entries, scaled.device)
        for entry, value in means.items():
            self._window.setdefault(entry, []).append(value)
        self.collect(module, step, scaled, means, shares)
        if not boundary:
            return
        window, self._window = self._window, {}
        present = [e for e in self.entries if e in window]
        losses = torch.tensor(
            [sum(window[e]) / len(window[e]) for e in present], dtype=torch.float64
        )
        self.weights = dict.fromkeys(self.entries, float("nan"))
        self.report = {}
        self.finish(module, losses, self.step(present))
        self.index += 1

    def parameters_of(self, module: Balanceable) -> ParameterSplit:
        """Whose parameters are whose, found out once a backward: sorting hundreds takes a while."""
        if not self._taking:
            return module.network.split_parameters()
        if self._split is None:
            self._split = module.network.split_parameters()
        return self._split

    def step(self, present: Sequence[str]) -> Step:
        """The update at hand for these entries, with random numbers of its own."""
        generator = torch.Generator().manual_seed((self.seed * 0x9E3779B1 + self.index) % 2**63)
        where = torch.tensor([self.entries.index(e) for e in present], dtype=torch.int64)
        epoch = self._trainer.current_epoch if self._trainer is not None else 0
        return Step(tuple(present), where, self.index, epoch, generator)

    def loss_scale(self) -> float:
        """Factor that the loss scaler of 16-mixed precision multiplies on; 1 without one."""
        scaler = self._scaler()
        return 1.0 if scaler is None else float(scaler.get_scale())

    def has_scaler(self) -> bool:
        """Whether a loss scaler will drop steps whose gradients are not finite."""
        return self._scaler() is not None

    def all_finite(self, finite: Tensor, step: Step) -> bool:
        """Whether no gradient overflowed; without a loss scaler one that did raises.

        Args:
            finite: (T,) bool by entry, equal on all ranks.
            step: the update.
        """
        verdict = finite.tolist()
        if all(verdict):
            return True
        if self.has_scaler():
            return False
        bad = [e for e, ok in zip(step.entries, verdict, strict=True) if not ok]
        raise NonFiniteLossError({f"gradient of {e}": float("nan") for e in bad}, self.index, [])

    def _scaler(self) -> torch.amp.GradScaler | None:
        if self.scaler is not None:
            return self.scaler
        plugin = None if self._trainer is None else self._trainer.precision_plugin
        return plugin.scaler if isinstance(plugin, MixedPrecision) else None

    def _remember(self) -> None:
        """Keep the state of before this update, in case the loss scaler drops it."""
        if self.has_scaler():
            self._before = (self.loss_scale(), self.state_dict())

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Undo the state's advance if the optimiser step was dropped, and log the weights."""
        self.settle()
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set elsewhere
        if self._boundary and self.weights and self.index % every == 0:
            values = {f"balance/weight/{e}": w for e, w in self.weights.items() if w == w}
            values |= {f"balance/{key}": value for key, value in self.report.items()}
            pl_module.log_dict(values, on_step=True, on_epoch=False)

    def settle(self) -> None:
        """Take the state of before the update back if the loss scaler dropped its step."""
        if self._before is not None:
            (scale, state), self._before = self._before, None
            if self.loss_scale() < scale:
                self.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs; loads with ``weights_only=True``."""
        return {
            "entries": list(self.entries),
            "index": self.index,
            "method": copy.deepcopy(self.method_state()),
            "family": copy.deepcopy(self.family_state()),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a saved state back; before `setup` it is kept until the entries are known."""
        if not self.entries:
            self._pending = state_dict
            return
        saved = tuple(state_dict["entries"])
        if saved != self.entries:
            raise BalancerError(
                f"the checkpoint's balancer has entries {', '.join(saved)}, this run "
                f"{', '.join(self.entries)}."
            )
        self.index = state_dict["index"]
        self.load_family_state(state_dict["family"])
        self.load_method_state(state_dict["method"])
