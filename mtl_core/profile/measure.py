"""Profile a network: every task alone, all together, and what that compares with."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from mtl_core.errors import ArgumentError
from mtl_core.moe.ffn import MoEFFN
from mtl_core.nn import MultiTaskNetwork
from mtl_core.profile.clock import clock
from mtl_core.profile.record import Cost, Profile
from mtl_core.profile.trace import Trace
from mtl_core.types import Inputs, TaskName

_ALL = "all"


def profile_network(
    network: MultiTaskNetwork,
    inputs: Inputs,
    tasks: Sequence[TaskName] | None = None,
    *,
    separate: Mapping[TaskName, MultiTaskNetwork] | None = None,
    others: Mapping[str, MultiTaskNetwork] | None = None,
    dense: bool = True,
    repeats: int = 0,
    warmup: int = 2,
) -> Profile:
    """Costs of a network in evaluation mode, without gradients.

    Networks end in the modes that they had. Values of inputs and weights matter only where routing
    decides how much is computed, which the back ends of `mtl_core.moe` do not let it.

    Args:
        network: any.
        inputs: of the device of the parameters.
        tasks: to look at, alone and together; None for all.
        separate: networks of one task each to compare with, by task.
        others: further networks of any tasks to compare with, by name.
        dense: where the network has experts, also count all of them on all tokens.
        repeats: rounds to measure time in; 0 measures none. A network's task, all its tasks, and
            each of the other networks take their turns, see `mtl_core.profile.clock`.
        warmup: rounds before.

    Raises:
        UnknownNameError: there is no such task.
        ArgumentError: no task is left, or the inputs hold no tensor.

    Example:
        >>> from torch import nn
        >>> from mtl_core.nn import FeatureInfo, Features, LinearDecoder
        >>> from mtl_core.tasks import Classification, Regression
        >>> class Small(MultiTaskNetwork):
        ...     def __init__(self, tasks):
        ...         super().__init__(tasks)
        ...         self.trunk, info = nn.Linear(3, 8), FeatureInfo((8,), (1,))
        ...         heads = {n: LinearDecoder(info, t) for n, t in tasks.items()}
        ...         self.heads = nn.ModuleDict(heads)
        ...     def encode(self, inputs, tags=None):
        ...         return Features([self.trunk(inputs)])
        ...     def decode(self, features, task):
        ...         return self.heads[task](features)
        ...     def decoder_modules(self, task):
        ...         return [self.heads[task]]
        >>> network = Small({"kind": Classification(num_classes=5), "size": Regression()})
        >>> profile = profile_network(network, torch.rand(2, 3))
        >>> {task: cost.macs for task, cost in profile.single.items()}, profile.macs
        ({'kind': 64.0, 'size': 32.0}, 72.0)
    """
    names = network.select(tasks)
    if not names:
        raise ArgumentError("tasks", "name one at least", [])
    batch = _batch(inputs)
    single = {name: _cost(network, inputs, [name], batch) for name in names}
    together = _cost(network, inputs, names, batch)
    found = Profile(
        network=type(network).__name__,
        tasks=names,
        inputs={name: tuple(t.shape) for name, t in _by_name(inputs).items()},
        batch=batch,
        device=str(_device(inputs)),
        threads=torch.get_num_threads(),
        parameters=sum(p.numel() for p in network.parameters()),
        single=single,
        together=together,
        separate={n: _cost(m, inputs, None, batch) for n, m in (separate or {}).items()},
        dense=_all_experts(network, inputs, names, batch) if dense else {},
        others={n: _cost(m, inputs, None, batch) for n, m in (others or {}).items()},
    )
    if repeats:
        found = _timed(found, network, inputs, separate or {}, others or {}, repeats, warmup)
    return found


def _cost(
    network: MultiTaskNetwork, inputs: Inputs, tasks: Sequence[TaskName] | None, batch: int
) -> Cost:
    """Everything but the time of one call."""
    asked = network.select(tasks)
    given = list(_by_name(inputs).values())
    with _evaluating(network), torch.no_grad():
        with Trace(network, given) as trace:
            network.run(inputs, tasks=tasks)
        peak = trace.peak
        if given[0].is_cuda:
            peak = _cuda_peak(network, inputs, tasks)
    held = dict(network.named_parameters())
    touched = [held[name] for name in held if name in trace.touched]
    return Cost(
        macs=sum(trace.macs.values()) / batch,
        parameters=sum(p.numel() for p in touched),
        weight_bytes=sum(p.numel() * p.element_size() for p in touched),
        peak_bytes=peak,
        parts=_parts(network, trace.macs, batch),
        modules=tuple(name for name in trace.ran if name),
        foreign=tuple(name for name in _foreign(network, asked) if name in trace.touched),
    )


def _cuda_peak(network: MultiTaskNetwork, inputs: Inputs, tasks: Sequence[TaskName] | None) -> int:
    device = _device(inputs)
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    network.run(inputs, tasks=tasks)
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device)) - before


def _foreign(network: MultiTaskNetwork, asked: Sequence[TaskName]) -> list[str]:
    """Parameters that serve only tasks that are not asked for."""
    owners: dict[int, set[TaskName]] = {}
    for task in network.tasks:
        for module in network.decoder_modules(task):
            for parameter in module.parameters():
                owners.setdefault(id(parameter), set()).add(task)
    return [
        name
        for name, parameter in network.named_parameters()
        if owners.get(id(parameter)) and not owners[id(parameter)] & set(asked)
    ]


def _parts(network: nn.Module, macs: Mapping[str, int], batch: int) -> dict[str, float]:
    """Arithmetic of the network's children; lists of modules are taken apart once more."""
    parts = []
    for name, child in network.named_children():
        listed = isinstance(child, nn.ModuleDict | nn.ModuleList)
        parts += [f"{name}.{key}" for key, _ in child.named_children()] if listed else [name]
    found: Counter[str] = Counter()
    for name, count in macs.items():
        inside = (p for p in parts if name == p or name.startswith(f"{p}."))
        found[next(inside, "elsewhere")] += count
    return {p: found[p] / batch for p in [*parts, "elsewhere"] if found[p]}


def _all_experts(
    network: MultiTaskNetwork, inputs: Inputs, names: Sequence[TaskName], batch: int
) -> dict[str, Cost]:
    """The costs if every expert computed every token; nothing for networks without experts."""
    layers = [m for m in network.modules() if isinstance(m, MoEFFN)]
    if not layers:
        return {}
    kept = [layer.backend for layer in layers]
    try:
        for layer in layers:
            layer.backend = "dense"
        found = {name: _cost(network, inputs, [name], batch) for name in names}
        if len(names) > 1:
            found[_ALL] = _cost(network, inputs, names, batch)
    finally:
        for layer, backend in zip(layers, kept, strict=True):
            layer.backend = backend
    return found


def _timed(
    profile: Profile,
    network: MultiTaskNetwork,
    inputs: Inputs,
    separate: Mapping[TaskName, MultiTaskNetwork],
    others: Mapping[str, MultiTaskNetwork],
    repeats: int,
    warmup: int,
) -> Profile:
    """The profile with times."""
    calls: dict[str, tuple[MultiTaskNetwork, Sequence[TaskName] | None]] = {
        "all": (network, profile.tasks)
    }
    calls |= {f"single/{name}": (network, [name]) for name in profile.tasks}
    calls |= {f"separate/{name}": (other, None) for name, other in separate.items()}
    calls |= {f"others/{name}": (other, None) for name, other in others.items()}
    modules = nn.ModuleList({id(m): m for m, _ in calls.values()}.values())
    with _evaluating(modules), torch.inference_mode():
        found = clock(
            {key: partial(m.run, inputs, tasks=t) for key, (m, t) in calls.items()},
            "all",
            repeats=repeats,
            warmup=warmup,
            device=_device(inputs),
        )

    def timed(key: str, cost: Cost) -> Cost:
        seconds, work, ratio = found[key]
        return replace(cost, seconds=seconds, cpu_seconds=work, time_ratio=ratio)

    return replace(
        profile,
        together=timed("all", profile.together),
        single={n: timed(f"single/{n}", c) for n, c in profile.single.items()},
        separate={n: timed(f"separate/{n}", c) for n, c in profile.separate.items()},
        others={n: timed(f"others/{n}", c) for n, c in profile.others.items()},
    )


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards every module's own mode again."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _by_name(inputs: Inputs) -> dict[str, Tensor]:
    return {"inputs": inputs} if isinstance(inputs, Tensor) else dict(inputs)


def _batch(inputs: Inputs) -> int:
    held = list(_by_name(inputs).values())
    if not held or not all(isinstance(t, Tensor) and t.ndim for t in held):
        raise ArgumentError("inputs", "be a tensor (B, ...) or tensors by name", type(inputs))
    return len(held[0])


def _device(inputs: Inputs) -> torch.device:
    return next(iter(_by_name(inputs).values())).device
