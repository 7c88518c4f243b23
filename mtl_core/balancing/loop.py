"""A balancer in a training loop written by hand."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from mtl_core.balancing.base import Balancer
from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.losses import TaskLosses
from mtl_core.balancing.ranks import mean_gradients, world_size
from mtl_core.balancing.sharded import is_sharded
from mtl_core.errors import ArgumentError, BalancerError, UnknownNameError
from mtl_core.nn.features import Features
from mtl_core.nn.parts import ParameterSplit
from mtl_core.types import TaskName

Owner = nn.Module | Sequence[nn.Parameter]


class _Network:
    """Hand-written modules in the place of a `MultiTaskNetwork`."""

    def __init__(self, shared: Owner, own: Mapping[TaskName, Owner]) -> None:
        self.shared, self.tasks = shared, dict(own)
        self.border = False
        self._sharded: ParameterSplit | None = None

    def open(self) -> None:
        """Note sharded parameters; after a forward pass whole ones may be in their places."""
        split = self._split()
        self._sharded = split if is_sharded([*split.shared, *split.all_own()]) else None

    def split_parameters(self) -> ParameterSplit:
        if self._sharded is None:
            return self._split()
        own = {t: _trainable(parameters) for t, parameters in self._sharded.own.items()}
        return ParameterSplit(_trainable(self._sharded.shared), own)

    def _split(self) -> ParameterSplit:
        own = {task: _trainable(owner) for task, owner in self.tasks.items()}
        return ParameterSplit(_trainable(self.shared), own)

    def independent_decoders(self) -> bool:
        return self.border

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, owner in {"shared": self.shared, **self.tasks}.items():
            if isinstance(owner, nn.Module):
                yield from owner.named_parameters(prefix=name)
            else:
                yield from ((f"{name}.{i}", p) for i, p in enumerate(owner))

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        for name, owner in {"shared": self.shared, **self.tasks}.items():
            if isinstance(owner, nn.Module):
                yield from owner.named_modules(prefix=name)


class Balanced:
    """A context in which one call takes the place of ``sum(losses).backward()``.

    Decoders that work on the sides of `cut` are walked once and the trunk once a task. Without
    `cut` (decoders that exchange features, a trunk that knows the task) every loss is
    differentiated by itself, which is exact too. Under `torch.distributed` gradients are averaged
    over ranks here: do not wrap the modules in DistributedDataParallel. Modules may be sharded by
    ``fully_shard`` before the context is entered.

    Args:
        balancer: the method. It must not be a callback of a trainer at the same time.
        shared: the shared part, a module or its parameters.
        own: every task's own part by name, likewise; the order of names is the order of tasks.
        scaler: loss scaler of mixed precision, whose dropped steps leave the method's state alone.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from mtl_core.balancing import PCGrad
        >>> trunk, heads = nn.Linear(4, 8), {"a": nn.Linear(8, 1), "b": nn.Linear(8, 1)}
        >>> modules = nn.ModuleList([trunk, *heads.values()])
        >>> optimizer = torch.optim.AdamW(modules.parameters())
        >>> inputs = torch.randn(16, 4)
        >>> targets = {"a": inputs[:, :1], "b": -inputs[:, :1]}
        >>> with Balanced(PCGrad(), shared=trunk, own=heads) as balanced:
        ...     for _ in range(3):
        ...         optimizer.zero_grad()
        ...         sides = balanced.cut(trunk(inputs).relu())
        ...         losses = {t: (heads[t](sides[t]) - targets[t]).square().mean() for t in heads}
        ...         balanced.backward(losses)
        ...         optimizer.step()
        >>> sorted(balanced.weights)
        ['a', 'b']
    """

    def __init__(
        self,
        balancer: Balancer,
        *,
        shared: Owner,
        own: Mapping[TaskName, Owner],
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        if not own:
            raise ArgumentError("own", "name at least one task", dict(own))
        self.balancer = balancer
        self.network = _Network(shared, own)
        self.entries = tuple(own)
        self.task_losses: TaskLosses | None = None
        self.wants_cut, self.wants_replay = True, False
        self._features: Features | None = None
        self._sides: dict[TaskName, Features] = {}
        self._pending: dict[str, Any] | None = None
        self._open = False
        balancer.scaler = scaler

    def __enter__(self) -> Self:
        """Begin a run, from loaded state where there is such."""
        self.network.open()
        self.balancer.start(self.entries)
        if self._pending is not None:
            self.balancer.load_state_dict(self._pending)
            self._pending = None
        if isinstance(self.balancer, GradientBalancer):
            self.balancer.listen(self)
        self._open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it; the state stays readable."""
        self._open = False
        self.balancer.settle()
        if isinstance(self.balancer, GradientBalancer):
            self.balancer.stop_listening()

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the last update by task; NaN for tasks absent from it."""
        return self.balancer.weights

    @property
    def report(self) -> dict[str, float]:
        """Figures of the last update: cosines, conflicts, lengths."""
        return self.balancer.report

    def cut(self, features: Tensor | Sequence[Tensor]) -> dict[TaskName, Any]:
        """One copy of the features for every task's decoder.

        Args:
            features: what the shared part gave, a tensor or several.

        Returns:
            By task, a tensor, or as many as were given; gradients stop there until `backward`.
            The features themselves for methods that only weigh losses.
        """
        single = isinstance(features, Tensor)
        maps = [features] if isinstance(features, Tensor) else list(features)
        self._features = Features(maps)
        if not self.balancer.wants_cut:
            return dict.fromkeys(self.entries, features)
        self._sides = {task: self._features.cut() for task in self.entries}
        return {t: side.maps[0] if single else side.maps for t, side in self._sides.items()}

    def backward(
        self,
        losses: Mapping[TaskName, Tensor | None],
        *,
        aux: Tensor | None = None,
        counts: Mapping[TaskName, float] | None = None,
        batches: int = 1,
        last: bool = True,
        closure: Callable[[], Mapping[TaskName, Tensor | None]] | None = None,
    ) -> None:
        """Leave the balanced gradients in ``.grad``.

        Args:
            losses: scalar by task, with graph; a task that is None or missing is absent.
            aux: further scalar that is added and never balanced.
            counts: labels behind each loss; they matter where ranks have different numbers of
                them. Default: one each.
            batches: how many make a step (gradient accumulation); gradients are divided by it.
            last: whether the optimiser steps after this one; with False they are collected.
            closure: evaluates the same batch again, for methods that look at moved weights.

        Raises:
            UnknownNameError: a loss of no task.
            BalancerError: outside of the context.
        """
        if not self._open:
            raise BalancerError("backward works inside of `with Balanced(...) as balanced:`.")
        self.balancer.settle()
        step = self._register(losses, aux, counts, closure)
        total = step.total / batches
        scaler = self.balancer.scaler
        self.balancer.take(
            self, step, total if scaler is None else scaler.scale(total), boundary=last
        )
        if last and not self.balancer.by_hand and world_size() > 1:
            split = self.network.split_parameters()
            mean_gradients([*split.shared, *split.all_own()])

    def _register(
        self,
        losses: Mapping[TaskName, Tensor | None],
        aux: Tensor | None,
        counts: Mapping[TaskName, float] | None,
        closure: Callable[[], Mapping[TaskName, Tensor | None]] | None,
    ) -> TaskLosses:
        for task in losses:
            if task not in self.entries:
                raise UnknownNameError("losses", task, self.entries)
        known = {t: x for t in self.entries if (x := losses.get(t)) is not None}
        features, sides = self._features, self._sides
        self._features, self._sides = None, {}
        self.network.border = features is not None
        values = torch.stack([x.detach().float() for x in known.values()]) if known else None

        def recompute(
            *, tasks: Sequence[TaskName] | None = None, part: slice | None = None
        ) -> TaskLosses:
            if closure is None or part is not None:
                what = "a closure" if closure is None else "the trainer, which can split a batch"
                raise BalancerError(f"{type(self.balancer).__name__} needs {what}.")
            found = closure()
            wanted = {t: x for t, x in found.items() if tasks is None or t in tasks}
            return self._register(wanted, None, counts, closure)

        return TaskLosses(
            losses=known,
            owner={t: t for t in known},
            values={} if values is None else dict(zip(known, values.tolist(), strict=True)),
            counts={t: 1.0 if counts is None else float(counts[t]) for t in known},
            vector=torch.stack(list(known.values()))
            if known
            else torch.zeros(0, requires_grad=True),
            aux=aux,
            features=features,
            cut=sides,
            recompute=recompute,
            size=len(features.maps[0]) if features is not None else 0,
        )

    def state_dict(self) -> dict[str, Any]:
        """The method's state, to be saved beside model and optimiser."""
        self.balancer.settle()
        return self.balancer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a saved state back, before the context or in it."""
        if self._open:
            self.balancer.load_state_dict(state)
        else:
            self._pending = state


def _trainable(owner: Owner) -> list[nn.Parameter]:
    parameters: Iterable[nn.Parameter]
    parameters = owner.parameters() if isinstance(owner, nn.Module) else owner
    return [p for p in parameters if p.requires_grad]
