"""Networks with experts as networks of one task whose routing a graph can hold."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from export.moe_forms import FORMS, GraphMoE, GraphRouter
from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.moe import ConditionedRouter, MoEFFN, PerTaskRouter, SingleRouter, TokenRouter
from mtl_core.nn import MultiTaskNetwork
from mtl_core.types import TaskName

Form: TypeAlias = Literal["auto", "nonzero", "dense", "capacity", "sorted"]
"""How a layer of experts becomes operators.

| form | how | exact | static shapes |
|---|---|---|---|
| ``nonzero`` | each expert on its own tokens | yes | no |
| ``dense`` | each expert on all tokens, times its gate or 0 | yes | yes |
| ``capacity`` | C places an expert, for the largest gates | if no queue is longer | yes |
| ``sorted`` | C places an expert, for the first tokens | likewise | yes |

``auto``: ``nonzero`` for the profile ``cpu``, ``capacity`` for ``portable``, ``dense`` for ``fpga``
and wherever at most four experts remain.
"""

Profile: TypeAlias = Literal["cpu", "portable", "fpga"]

FEW = 4
"""Up to so many experts ``dense`` is as fast as anything."""


@dataclass(frozen=True)
class MoESettings:
    """How layers of experts are written.

    Args:
        form: see `Form`.
        profile: what ``auto`` looks at.
        capacity_factor: places of an expert in multiples of K·N / E; E / K always suffices.
        capacities: places of an expert by layer, for instance from `export.prune.queues`. Without
            these two an expert has a place for every token of an image and nothing is lost.
        keep: None: all experts. ``window``: those that the task may use by training; exact. A
            number m: the first m of `ranking`, at least K; lossy.
        ranking: experts by layer, best first, from `export.prune.rank_experts`.

    Raises:
        UnknownNameError: there is no such form or profile.
        ArgumentError: a number is out of range, or a ranking is missing.
    """

    form: Form = "auto"
    profile: Profile = "cpu"
    capacity_factor: float | None = None
    capacities: Mapping[str, int] | None = None
    keep: Literal["window"] | int | None = None
    ranking: Mapping[str, Sequence[int]] | None = None

    def __post_init__(self) -> None:
        """Check the words and numbers."""
        for name, value, known in (("form", self.form, Form), ("profile", self.profile, Profile)):
            if value not in get_args(known):
                raise UnknownNameError(name, value, get_args(known))
        if self.capacity_factor is not None and not self.capacity_factor > 0:
            raise ArgumentError("capacity_factor", "be positive", self.capacity_factor)
        if isinstance(self.keep, str):
            if self.keep != "window":
                raise UnknownNameError("keep", self.keep, ["window"])
        elif self.keep is not None and self.keep < 1:
            raise ArgumentError("keep", "be 'window' or at least 1", self.keep)


@dataclass(frozen=True)
class Converted:
    """A network of one task.

    Args:
        network: a copy, in evaluation mode.
        layers: what became of each layer of experts: ``layer``, ``form``, ``experts`` (kept ones,
            by their number in training), ``of``, ``top_k``, ``exact``, ``capacity``,
            ``capacity_factor``.
    """

    network: MultiTaskNetwork
    layers: list[dict[str, Any]]


def moe_layers(network: torch.nn.Module) -> dict[str, MoEFFN]:
    """Layers of experts of a network by their dotted names, in order."""
    return {name: m for name, m in network.named_modules() if isinstance(m, MoEFFN)}


@torch.no_grad()
def convert(
    network: MultiTaskNetwork, task: TaskName, settings: MoESettings | None = None
) -> Converted:
    """A copy of a network in which the experts serve one task by fixed routing.

    Every layer of experts (`mtl_core.moe.MoEFFN`) is replaced by its form, with the task's router
    as one matrix and every expert's weights by themselves. Gates over feature maps (`TaskExpert`,
    `MLoRE`) are ordinary operations already and stay. A network without experts comes back as it
    is.

    Args:
        network: any.
        task: one of its tasks.
        settings: None: the defaults.

    Raises:
        UnknownNameError: there is no such task.
        ArgumentError: fewer experts than K would remain, the ranking lacks a layer, or there are
            no windows to keep.
    """
    chosen = MoESettings() if settings is None else settings
    if task not in network.tasks:
        raise UnknownNameError("task", task, network.tasks)
    names = list(moe_layers(network))
    if not names:
        return Converted(network, [])
    found = copy.deepcopy(network).eval()
    layers = []
    for name in names:
        layer, note = _form(name, found.get_submodule(name), task, chosen)
        found.set_submodule(name, layer)
        layers.append(note)
    return Converted(found, layers)


def task_matrix(router: TokenRouter, task: TaskName) -> tuple[Tensor, Tensor | None]:
    """Weight (E, D) and bias (E,) or None, of the linear layer that a router is for one task.

    Args:
        router: one of the suite's that route tokens.
        task: one of its tasks.

    Raises:
        ArgumentError: the router is none of them.
    """
    place = router.index(task)
    if isinstance(router, PerTaskRouter):
        weight = router.gates[task].weight
        assert isinstance(weight, Tensor)
        return weight, None
    if isinstance(router, SingleRouter):
        return router.linear.weight, None
    if isinstance(router, ConditionedRouter):
        # What the embedding of the task adds is the same for all tokens.
        shift = router.embed()[place] @ router.task_linear.weight.float().t()
        return router.linear.weight, shift
    rule = "be a router of tokens that is one matrix for a task, for the experts to be exported"
    raise ArgumentError("router", rule, type(router).__name__)


def window(router: object, task: TaskName) -> tuple[int, ...] | None:
    """Experts that a task may use by training; None where it may use all."""
    windows = getattr(router, "task_windows", None)
    return None if not windows else tuple(windows[task]) if task in windows else None


def _form(
    name: str, layer: torch.nn.Module, task: TaskName, settings: MoESettings
) -> tuple[GraphMoE, dict[str, Any]]:
    """What stands for a layer, and the note about it."""
    assert isinstance(layer, MoEFFN)
    router, bank = layer.router, layer.bank
    if not isinstance(router, TokenRouter):
        rule = "route tokens, for the experts to be exported"
        raise ArgumentError(f"the router of {name}", rule, type(router).__name__)
    allowed = window(router, task) or tuple(range(router.num_experts))
    kept = _kept(name, router, task, allowed, settings)
    weight, bias = task_matrix(router, task)
    # The softmax runs over all that training allowed, whether it is kept or not.
    order = [*kept, *(e for e in allowed if e not in kept)]
    fixed = GraphRouter(
        weight[order],
        None if bias is None else bias[order],
        kept=len(kept),
        top_k=router.top_k,
        renormalise=router.norm == "topk",
    )
    # Nothing is removed unless asked for: what the task may not use comes last and gets no token.
    others = range(router.num_experts) if settings.keep is None else ()
    computed = [*kept, *(e for e in others if e not in kept)]
    form = pick_form(settings, len(computed))
    static = form in ("capacity", "sorted")
    capacity = (settings.capacities or {}).get(name) if static else None
    factor = settings.capacity_factor if static and capacity is None else None
    made = FORMS[form](
        fixed, [bank.expert(e) for e in computed], capacity=capacity, capacity_factor=factor
    )
    note = {
        "layer": name,
        "form": form,
        "experts": computed,
        "of": router.num_experts,
        "top_k": router.top_k,
        "exact": set(kept) == set(allowed),
        "capacity": capacity,
        "capacity_factor": factor,
    }
    return made, note


def pick_form(settings: MoESettings, experts: int) -> Form:
    """The form of a layer with so many experts left."""
    if settings.form != "auto":
        return settings.form
    if experts <= FEW or settings.profile == "fpga":
        return "dense"
    return "nonzero" if settings.profile == "cpu" else "capacity"


def _kept(
    name: str,
    router: TokenRouter,
    task: TaskName,
    allowed: tuple[int, ...],
    settings: MoESettings,
) -> tuple[int, ...]:
    """Experts that a token may still choose."""
    if settings.keep is None:
        return allowed
    if isinstance(settings.keep, str):
        if window(router, task) is None:
            rule = (
                "be left out where training set no task_windows for the task: "
                "every task uses every expert; nothing can be removed exactly"
            )
            raise ArgumentError("keep", rule, settings.keep)
        return allowed
    ranking = settings.ranking or {}
    if name not in ranking:
        raise ArgumentError("ranking", f"hold the layer {name}", sorted(ranking))
    if settings.keep < router.top_k:
        raise ArgumentError("keep", f"be at least top_k = {router.top_k} of {name}", settings.keep)
    best = [e for e in ranking[name] if e in allowed][: settings.keep]
    return tuple(sorted(best))
