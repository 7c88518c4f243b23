"""Mixtures of experts of one task as graphs can hold them: fixed router, one weight an expert.

A layer of M tokens (B·N, D) gets K of E experts a token. All forms compute the same sum, but for
``capacity`` and ``sorted`` where an expert has more tokens of an image than places.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_core.moe import Expert, RouterOut
from mtl_core.moe.dispatch import places
from mtl_core.types import TaskName


class GraphRouter(nn.Module):
    """The router of one task: a matrix, and a bias where an embedding of the task was folded in.

    Shapes: (B, N, D) → `RouterOut` of (B, N, K) and (B, N, E).

    Args:
        weight: (R, D); the first `kept` rows are the experts that remain, the others only count in
            the softmax.
        bias: (R,), or None.
        kept: E.
        top_k: K.
        renormalise: gates are the softmax over the K chosen instead of over all R.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self, weight: Tensor, bias: Tensor | None, *, kept: int, top_k: int, renormalise: bool
    ) -> None:
        super().__init__()
        # (D, R), so that the product needs no transposition.
        self.register_buffer("weight", weight.detach().float().t().contiguous().clone())
        self.register_buffer("bias", None if bias is None else bias.detach().float().clone())
        self.kept, self.top_k, self.renormalise = kept, top_k, renormalise

    def forward(self, x: Tensor) -> RouterOut:
        """Experts and their weights, of every token."""
        logits = x @ self.weight
        if self.bias is not None:
            logits = logits + self.bias
        probs = logits.softmax(-1)
        allowed = probs if self.kept == probs.shape[-1] else probs[..., : self.kept]
        gate, idx = allowed.topk(self.top_k, -1)
        if self.renormalise:
            gate = gate / gate.sum(-1, keepdim=True)
        return RouterOut(idx, gate, probs, logits)


class GraphExpert(nn.Module):
    """One expert: GELU(x W1 + b1) W2 + b2 for tokens (..., D).

    Args:
        expert: its weights, copied.
    """

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor

    def __init__(self, expert: Expert) -> None:
        super().__init__()
        for name, value in expert._asdict().items():
            self.register_buffer(name, value.detach().float().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Output (..., D)."""
        return F.gelu(x @ self.w1 + self.b1) @ self.w2 + self.b2


class GraphMoE(nn.Module):
    """Common ground of the forms; takes the place of a `mtl_core.moe.MoEFFN`.

    Shapes: tokens (B, N, D) → (B, N, D) and a `RouterOut` of (B, N, K).

    Args:
        router: of the task.
        experts: those kept, in the router's order.
        capacity: tokens of an image that an expert takes, of the forms that have places; None: all,
            so that nothing can overflow.
        capacity_factor: the same in multiples of the mean K·N / E; a `capacity` goes before it.
    """

    numbers: Tensor

    def __init__(
        self,
        router: GraphRouter,
        experts: Sequence[Expert],
        *,
        capacity: int | None = None,
        capacity_factor: float | None = None,
    ) -> None:
        super().__init__()
        self.router = router
        self.experts = nn.ModuleList(GraphExpert(expert) for expert in experts)
        self.capacity, self.capacity_factor = capacity, capacity_factor
        self.register_buffer("numbers", torch.arange(len(experts)))

    def forward(
        self, x: Tensor, task: TaskName | Tensor = "", gate_input: Tensor | None = None
    ) -> tuple[Tensor, RouterOut]:
        """Output of the experts, and who computed what; the task is fixed and not looked at."""
        routed = self.router(x if gate_input is None else gate_input)
        return self.combine(x, routed), routed

    def combine(self, x: Tensor, routed: RouterOut) -> Tensor:
        """Weighted sum of the experts' outputs."""
        raise NotImplementedError

    def places(self, tokens: int) -> int:
        """C: tokens that an expert takes of an image's N; N where the form has no places."""
        if self.capacity is not None:
            return min(tokens, self.capacity)
        if self.capacity_factor is None:
            return tokens
        return places(tokens, self.router.top_k, len(self.experts), self.capacity_factor)

    def overflow(self, idx: Tensor) -> Tensor:
        """How many pairs of token and expert find no place, (B,), for experts idx (B, N, K)."""
        lengths = (idx.unsqueeze(-1) == self.numbers).sum((1, 2))
        return (lengths - self.places(idx.shape[1])).clamp_min(0).sum(-1)

    def chosen(self, routed: RouterOut) -> Tensor:
        """(B, N, K, E) float: 1 where slot k of a token is expert e."""
        return (routed.idx.unsqueeze(-1) == self.numbers).to(routed.gate.dtype)

    def weights(self, routed: RouterOut) -> Tensor:
        """(B, N, E): the gate where an expert is chosen, 0 elsewhere."""
        return (self.chosen(routed) * routed.gate.unsqueeze(-1)).sum(-2)


class DenseMoE(GraphMoE):
    """``dense``: every kept expert on every token, times its gate or zero. Exact, static."""

    def combine(self, x: Tensor, routed: RouterOut) -> Tensor:
        """Sum over all experts."""
        weights = self.weights(routed).split(1, -1)
        total = torch.zeros_like(x)
        for weight, expert in zip(weights, self.experts, strict=True):
            total = total + weight * expert(x)
        return total


class CapacityMoE(GraphMoE):
    """``capacity``: C places an expert, for those tokens of an image with the largest gates.

    Exact where no expert has a longer queue; others lose this expert (`overflow`). Static.
    """

    def combine(self, x: Tensor, routed: RouterOut) -> Tensor:
        """The places filled, computed and added back."""
        count, width = len(self.experts), x.shape[-1]
        size = self.places(x.shape[1])
        chosen = self.chosen(routed)
        weights = (chosen * routed.gate.unsqueeze(-1)).sum(-2)
        # What was not chosen comes last and counts nothing.
        ranked = torch.where(chosen.sum(-2) > 0, weights, -1.0).transpose(1, 2)
        best, tokens = ranked.topk(size, -1)
        rows = tokens.reshape(-1, count * size, 1).expand(-1, -1, width)
        taken = x.gather(1, rows).split(size, 1)
        found = torch.cat([e(part) for e, part in zip(self.experts, taken, strict=True)], 1)
        kept = best.clamp_min(0.0).reshape(-1, count * size, 1)
        return torch.zeros_like(x).scatter_add(1, rows, found * kept)


class SortedMoE(GraphMoE):
    """``sorted``: C places an expert, for the first of an image's tokens that choose it.

    Exact with C = N. Static; scatters without sums, which more runtimes have.
    """

    def combine(self, x: Tensor, routed: RouterOut) -> Tensor:
        """Rank within the expert, place, compute, fetch."""
        count, top_k, width = len(self.experts), self.router.top_k, x.shape[-1]
        size = self.places(x.shape[1])
        pairs = routed.idx.flatten(1)
        slot = self.chosen(routed).flatten(1, 2)
        rank = ((slot.cumsum(1) - 1) * slot).sum(-1).to(pairs.dtype)
        # One further row takes what finds no place.
        place = torch.where(rank < size, pairs * size + rank, count * size).unsqueeze(-1)
        place = place.expand(-1, -1, width)
        spread = x.repeat_interleave(top_k, 1) if top_k > 1 else x
        empty = torch.zeros_like(x[:, :1]).expand(-1, count * size + 1, -1)
        taken = empty.scatter(1, place, spread)[:, :-1].split(size, 1)
        found = [e(part) for e, part in zip(self.experts, taken, strict=True)]
        own = torch.cat([*found, torch.zeros_like(x[:, :1])], 1).gather(1, place)
        weighted = own * routed.gate.flatten(1).unsqueeze(-1)
        total: Tensor = weighted.unflatten(1, (-1, top_k)).sum(2)
        return total


class NonzeroMoE(GraphMoE):
    """``nonzero``: each expert on its own tokens only. Exact; shapes depend on values.

    The pairs of expert and token are found once, in the order of experts, so a layer gathers and
    scatters once.
    """

    def combine(self, x: Tensor, routed: RouterOut) -> Tensor:
        """Gathered, cut by expert, computed, added."""
        flat = x.flatten(0, 1)
        weights = self.weights(routed).flatten(0, 1).t()
        chosen = self.chosen(routed).sum(-2).flatten(0, 1).t()
        expert, token = chosen.nonzero().unbind(1)
        rows = flat.index_select(0, token)
        ends = chosen.sum(1).to(torch.int64).cumsum(0).tolist()
        found, start = [], 0
        for one, end in zip(self.experts, ends, strict=True):
            torch._check(end >= start)
            torch._check(end <= rows.shape[0])
            found.append(one(rows[start:end]))
            start = end
        scale = weights[expert, token].unsqueeze(-1)
        total: Tensor = torch.zeros_like(flat).index_add(0, token, torch.cat(found) * scale)
        return total.view(x.shape)


FORMS: dict[str, type[GraphMoE]] = {
    "nonzero": NonzeroMoE,
    "dense": DenseMoE,
    "capacity": CapacityMoE,
    "sorted": SortedMoE,
}
"""Class of every form by name."""
