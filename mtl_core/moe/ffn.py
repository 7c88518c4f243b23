"""Experts in the place of a transformer block's MLP."""

from collections.abc import Sequence
from typing import get_args

from torch import Tensor, nn

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.moe.bank import ExpertBank
from mtl_core.moe.dispatch import Backend, dispatch
from mtl_core.moe.router import Router, RouterOut, TokenRouter
from mtl_core.types import TaskName


class MoEFFN(nn.Module):
    r"""Sparse mixture of experts: :math:`y = \sum_{e \in S(x)} g_e f_e(x)`.

    The router works in float32, the experts in the type of the tokens or of autocast.

    Shapes: x (B, N, D) → (B, N, D) and a `RouterOut` of (B, N, K).

    Args:
        router: picks K of E experts for each token.
        bank: the E experts.
        backend: how tokens get to them, see `mtl_core.moe.dispatch.Backend`.
        capacity: of the back end ``capacity``.

    Raises:
        ArgumentError: router and bank differ in E.

    Example:
        >>> import torch
        >>> from mtl_core.moe import PerTaskRouter
        >>> router = PerTaskRouter(("semseg", "depth"), 8, num_experts=4, top_k=2)
        >>> ffn = MoEFFN(router, ExpertBank(4, dim=8, hidden=8))
        >>> tokens, routed = ffn(torch.rand(2, 5, 8), "depth")
        >>> tokens.shape, routed.idx.shape
        (torch.Size([2, 5, 8]), torch.Size([2, 5, 2]))
    """

    def __init__(
        self,
        router: Router,
        bank: ExpertBank,
        *,
        backend: Backend = "sorted",
        capacity: float = 1.25,
    ) -> None:
        super().__init__()
        if router.num_experts != bank.num_experts:
            found = (router.num_experts, bank.num_experts)
            raise ArgumentError("router and bank", "have the same number of experts", found)
        if backend not in get_args(Backend):
            raise UnknownNameError("backend", backend, get_args(Backend))
        self.router = router
        self.bank = bank
        self.backend: Backend = backend
        self.capacity = capacity

    def forward(
        self, x: Tensor, task: TaskName | Tensor, gate_input: Tensor | None = None
    ) -> tuple[Tensor, RouterOut]:
        """Output of the experts, and who computed what.

        Args:
            x: (B, N, D).
            task: a name, or (B,) indices into the router's tasks.
            gate_input: (B, N, D) what the router sees instead of `x`.
        """
        routed: RouterOut = self.router(x if gate_input is None else gate_input, task)
        y = dispatch(
            self.bank,
            x.flatten(0, -2),
            routed.idx.flatten(0, -2),
            routed.gate.flatten(0, -2),
            backend=self.backend,
            capacity=self.capacity,
        )
        return y.view(x.shape), routed

    def grow(self, count: int) -> None:
        """Add `count` experts, and columns for them; build the optimiser afterwards."""
        self._columns().grow(count)
        self.bank.grow(count)

    def keep(self, experts: Sequence[int]) -> None:
        """Forget all experts but these, numbered anew in this order, and their columns."""
        self._columns().keep(experts)
        self.bank.keep(experts)

    def _columns(self) -> TokenRouter:
        if not isinstance(self.router, TokenRouter):
            rule = "route tokens, for experts to be added or forgotten"
            raise ArgumentError("router", rule, type(self.router).__name__)
        return self.router
