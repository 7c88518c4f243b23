"""Hooks on every router of a network, and what tasks make of their experts in a batch."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from mtl_core.moe import Router, RouterOut, SingleRouter
from mtl_core.types import TaskName

Take: TypeAlias = Callable[[str, Router, TaskName | Tensor, RouterOut], None]
"""Called with a router's name, the router, the task (a name, or indices (B,)) and its routing."""


class RouterWatch:
    """Shows every routing of a network while it is switched on.

    Args:
        module: whose routers are watched.
        take: what to call.

    Attributes:
        routers: by their names in `module`.
        on: whether `take` is called; False at the beginning.
    """

    def __init__(self, module: nn.Module, take: Take) -> None:
        named = module.named_modules()
        self.routers = {name: part for name, part in named if isinstance(part, Router)}
        self.on = False
        self._take = take
        self._handles = [
            router.register_forward_hook(self._hook(name), with_kwargs=True)
            for name, router in self.routers.items()
        ]

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Callable[..., None]:
        def look(router: Router, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
            if self.on:
                self._take(name, router, kwargs["task"] if "task" in kwargs else args[1], out)

        return look


class RoutingCounts:
    """How often, and with which weight, every router's experts are chosen for every task.

    Args:
        routers: by name.
        device: where to count.
    """

    def __init__(self, routers: dict[str, Router], device: torch.device) -> None:
        self._routers = routers
        self._held = {
            name: torch.zeros(2, len(r.tasks), r.num_experts, device=device)
            for name, r in routers.items()
        }

    @torch.no_grad()
    def add(self, name: str, task: TaskName | Tensor, out: RouterOut) -> None:
        """Take in a routing; the choices of a router that knows no task are all tasks' choices.

        Args:
            name: of the router.
            task: a name, or indices (B,), B being the first axis of the routing.
            out: the routing.
        """
        router, held = self._routers[name], self._held[name]
        _, tasks, experts = held.shape
        idx, gate = out.idx.detach(), out.gate.detach().float()
        if isinstance(task, Tensor) and not isinstance(router, SingleRouter):
            first = task.view(-1, *[1] * (idx.ndim - 1)) * experts
            places, size = (idx + first).flatten(), tasks * experts
        else:
            places, size = idx.flatten(), experts
        counts = torch.zeros(2, size, device=held.device)
        counts[0].index_add_(0, places, torch.ones_like(gate).flatten())
        counts[1].index_add_(0, places, gate.flatten())
        if size > experts:
            held += counts.view(2, tasks, experts)
        elif isinstance(router, SingleRouter):
            held += counts.view(2, 1, experts)
        else:
            assert isinstance(task, str)
            held[:, router.tasks.index(task)] += counts

    def flat(self) -> Tensor:
        """Everything as one vector, whose sum over processes is that of all of them."""
        return torch.cat([held.flatten() for held in self._held.values()])

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """The vector again as counts and weights (2, T, E) by router."""
        parts = flat.split([held.numel() for held in self._held.values()])
        return {
            name: part.view(held.shape)
            for (name, held), part in zip(self._held.items(), parts, strict=True)
        }


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Dotted names without what all of them have in common, but for one word in front.

    >>> short_names(["net.blocks.1.mlp.router", "net.blocks.3.mlp.router"]).values()
    dict_values(['blocks.1', 'blocks.3'])
    >>> short_names(["net.layers.router"]).values()
    dict_values(['layers'])
    """
    parts = {name: name.split(".") for name in names}
    if len(parts) == 1:
        (only,) = parts
        words = [w for w in parts[only] if w != "router"]
        return {only: ".".join(words[-2:] if words and words[-1].isdigit() else words[-1:]) or only}
    lists = list(parts.values())
    shortest = min(len(p) for p in lists)
    head = next((i for i in range(shortest) if len({p[i] for p in lists}) > 1), shortest)
    tail = next((i for i in range(shortest - head) if len({p[-1 - i] for p in lists}) > 1), 0)
    return {n: ".".join(p[max(0, head - 1) : len(p) - tail]) or n for n, p in parts.items()}
