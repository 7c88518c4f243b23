"""Experts: two-layer perceptrons of one shape, held in stacked parameters."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_core.errors import ArgumentError
from mtl_core.moe.router import check_experts

STACKS = ("w1", "b1", "w2", "b2")


class Expert(NamedTuple):
    """Weights of one expert, as views.

    Args:
        w1: (D, h).
        b1: (h,).
        w2: (h, D).
        b2: (D,).
    """

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """GELU(x W1 + b1) W2 + b2 of tokens (M, D)."""
        hidden = F.gelu(torch.addmm(self.b1.to(x.dtype), x, self.w1.to(x.dtype)))
        return torch.addmm(self.b2.to(x.dtype), hidden, self.w2.to(x.dtype))


class ExpertBank(nn.Module):
    r"""E experts :math:`f_e(x) = \operatorname{GELU}(x W_{1e} + b_{1e}) W_{2e} + b_{2e}`.

    The weights of all of them are one parameter each, ``w1`` (E, D, h), ``b1`` (E, h), ``w2``
    (E, h, D), ``b2`` (E, D), drawn as `torch.nn.Linear` draws its own. Experts without tokens get a
    gradient of zeros, so every process has a gradient for every parameter, and
    ``find_unused_parameters`` is not needed.

    Frozen experts are buffers and no parameters: no optimiser changes them, neither by momentum nor
    by weight decay. Growing, keeping and freezing make new parameters; build the optimiser
    afterwards.

    Args:
        num_experts: E.
        dim: D.
        hidden: h.

    Example:
        >>> bank = ExpertBank(4, dim=8, hidden=16)
        >>> bank.expert(2)(torch.rand(5, 8)).shape
        torch.Size([5, 8])
    """

    w1: nn.Parameter
    b1: nn.Parameter
    w2: nn.Parameter
    b2: nn.Parameter
    frozen_b1: Tensor
    place: Tensor

    def __init__(self, num_experts: int, dim: int, hidden: int) -> None:
        super().__init__()
        for name, value in (("num_experts", num_experts), ("dim", dim), ("hidden", hidden)):
            if value < 1:
                raise ArgumentError(name, "be at least 1", value)
        self.dim, self.hidden = dim, hidden
        for name, stack in zip(STACKS, _draw(num_experts, dim, hidden), strict=True):
            self.register_parameter(name, nn.Parameter(stack))
            self.register_buffer(f"frozen_{name}", stack.new_empty(0, *stack.shape[1:]))
        # Where each expert lies among the trainable ones followed by the frozen ones.
        self.register_buffer("place", torch.arange(num_experts))

    @property
    def num_experts(self) -> int:
        """E."""
        return len(self.place)

    @property
    def frozen(self) -> list[int]:
        """Experts that do not learn."""
        return [e for e, at in enumerate(self.place.tolist()) if at >= len(self.b1)]

    def rows(self) -> list[int]:
        """Where each expert lies among the trainable ones followed by the frozen ones."""
        found: list[int] = (
            self.place.tolist() if len(self.frozen_b1) else [*range(self.num_experts)]
        )
        return found

    def stacks(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """w1, b1, w2 and b2 of all experts in their order; copies where some are frozen."""
        if not len(self.frozen_b1):
            return self.w1, self.b1, self.w2, self.b2
        w1, b1, w2, b2 = (
            torch.cat([getattr(self, name), getattr(self, f"frozen_{name}")])[self.place]
            for name in STACKS
        )
        return w1, b1, w2, b2

    def experts(self) -> list[Expert]:
        """All experts. Their gradients are gathered in one step, so this is what loops iterate."""
        parts = [
            [*getattr(self, name).unbind(), *getattr(self, f"frozen_{name}").unbind()]
            for name in STACKS
        ]
        return [Expert(*(part[at] for part in parts)) for at in self.rows()]

    def expert(self, number: int) -> Expert:
        """One expert; its weights are views that can be written to without gradients."""
        at = int(self.place[number])
        prefix, row = ("", at) if at < len(self.b1) else ("frozen_", at - len(self.b1))
        return Expert(*(getattr(self, f"{prefix}{name}")[row] for name in STACKS))

    def grow(self, count: int) -> None:
        """Add trainable experts behind the others, drawn as the first ones were."""
        if count < 1:
            raise ArgumentError("count", "be at least 1", count)
        old = len(self.b1)
        for name, more in zip(STACKS, _draw(count, self.dim, self.hidden), strict=True):
            held = getattr(self, name).detach()
            setattr(self, name, nn.Parameter(torch.cat([held, more.to(held)])))
        place = torch.where(self.place >= old, self.place + count, self.place)
        new = torch.arange(old, old + count, device=place.device)
        self.place = torch.cat([place, new])

    def keep(self, experts: Sequence[int]) -> None:
        """Forget all experts but these, which are numbered anew in this order."""
        kept = check_experts(experts, self.num_experts)
        frozen = set(self.frozen)
        self._arrange(kept, [e in frozen for e in kept])

    def freeze(self, experts: Sequence[int]) -> None:
        """These experts learn no more; the others do."""
        chosen = set(check_experts(experts, self.num_experts)) if experts else set()
        everyone = range(self.num_experts)
        self._arrange(list(everyone), [e in chosen for e in everyone])

    def _arrange(self, experts: list[int], still: list[bool]) -> None:
        stacks = [stack.detach() for stack in self.stacks()]
        learning = [e for e, s in zip(experts, still, strict=True) if not s]
        others = [e for e, s in zip(experts, still, strict=True) if s]
        for name, stack in zip(STACKS, stacks, strict=True):
            setattr(self, name, nn.Parameter(stack[learning].clone()))
            setattr(self, f"frozen_{name}", stack[others].clone())
        rows = {e: i for i, e in enumerate([*learning, *others])}
        self.place = torch.tensor([rows[e] for e in experts], device=self.place.device)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Take frozen and trainable experts as they were saved, if E is the same."""
        place = state_dict.get(f"{prefix}place")
        saved = {name: state_dict.get(f"{prefix}{name}") for name in STACKS}
        if place is not None and len(place) == self.num_experts:
            for name, value in saved.items():
                if value is not None and len(value) != len(getattr(self, name)):
                    held = getattr(self, name)
                    setattr(self, name, nn.Parameter(held.new_empty(value.shape)))
                    shape = (self.num_experts - len(value), *value.shape[1:])
                    setattr(self, f"frozen_{name}", held.new_empty(shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"num_experts={self.num_experts}, dim={self.dim}, hidden={self.hidden}"


def _draw(count: int, dim: int, hidden: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fresh w1, b1, w2, b2: uniform within one over the square root of the inputs."""

    def uniform(*shape: int, inputs: int) -> Tensor:
        return torch.empty(shape).uniform_(-(inputs**-0.5), inputs**-0.5)

    return (
        uniform(count, dim, hidden, inputs=dim),
        uniform(count, hidden, inputs=dim),
        uniform(count, hidden, dim, inputs=hidden),
        uniform(count, dim, inputs=hidden),
    )
