"""How evenly experts are used: terms for training, and a collector of one step's terms."""

import torch
from torch import Tensor

from mtl_core.errors import ArgumentError, MTLError
from mtl_core.moe.router import RouterOut, chosen
from mtl_core.types import TaskName


def importance(routed: RouterOut) -> Tensor:
    """Probability mass of every expert where it was chosen: (E,).

    Args:
        routed: of all tokens that count together.
    """
    mask = chosen(routed.idx, routed.probs.shape[-1])
    return (routed.probs * mask).flatten(0, -2).sum(0)


def load(routed: RouterOut) -> Tensor:
    """Tokens of every expert: (E,). With noise their expected number, which has a gradient.

    Args:
        routed: of all tokens that count together.
    """
    found = routed.load
    if found is None:
        found = chosen(routed.idx, routed.probs.shape[-1])
    return found.flatten(0, -2).sum(0)


def cv_squared(values: Tensor) -> Tensor:
    """Squared coefficient of variation over the last dimension: unbiased variance / mean².

    Args:
        values: (..., E); 0 where all are equal or E is 1, E where one has everything.
    """
    if values.shape[-1] == 1:
        return torch.zeros_like(values[..., 0])
    return values.var(-1) / (values.mean(-1).square() + 1e-10)


def balance_loss(routed: RouterOut) -> Tensor:
    """CV² of importance plus CV² of load (Shazeer et al., 2017), a scalar.

    The load has a gradient only under noise.

    Args:
        routed: of all tokens of one task in one layer.
    """
    return cv_squared(importance(routed)) + cv_squared(load(routed))


def z_loss(routed: RouterOut) -> Tensor:
    """Mean squared log-sum-exp of the logits (Zoph et al., 2022), which keeps them small.

    Args:
        routed: of any tokens.
    """
    return routed.logits.logsumexp(-1).square().mean()


def token_entropy(routed: RouterOut) -> Tensor:
    """Mean entropy of a token's probabilities, in nats: 0 decided, log E undecided.

    Args:
        routed: of any tokens.
    """
    return torch.special.entr(routed.probs).sum(-1).mean()


def usage_entropy(routed: RouterOut) -> Tensor:
    """Entropy of the mean probabilities, in nats: log E where experts are used evenly.

    Args:
        routed: of all tokens that count together.
    """
    return torch.special.entr(routed.probs.flatten(0, -2).mean(0)).sum()


class CollectorError(MTLError, RuntimeError):
    """A collector of routings is read twice, or filled after it was read, without a reset."""


class BalanceCollector:
    """Balance terms of one step, over layers and tasks, reset by whoever owns the step.

    Reading twice, or adding after reading, without a reset raises: either would change the weight
    of the loss silently.

    Args:
        balance: weight of `balance_loss`.
        z: weight of `z_loss`.
        token: weight of `token_entropy`, which makes tokens decided.
        usage: weight of log E minus `usage_entropy`, which makes usage even.

    Example:
        >>> from mtl_core.moe import PerTaskRouter
        >>> router = PerTaskRouter(("depth",), 16, num_experts=8, top_k=2)
        >>> terms = BalanceCollector(balance=0.01)
        >>> terms.update("depth", router(torch.rand(3, 5, 16), "depth"))
        >>> terms.loss().shape
        torch.Size([])
        >>> terms.reset()
    """

    def __init__(
        self, *, balance: float = 0.01, z: float = 0.0, token: float = 0.0, usage: float = 0.0
    ) -> None:
        for name, value in (("balance", balance), ("z", z), ("token", token), ("usage", usage)):
            if value < 0:
                raise ArgumentError(name, "not be negative", value)
        self.balance, self.z, self.token, self.usage = balance, z, token, usage
        self._terms: list[Tensor] = []
        self._read = False

    def update(self, task: TaskName | Tensor, routed: RouterOut) -> None:
        """Add the terms of one layer's routing.

        Args:
            task: its name; for indices (B,) use `RouterOut.chunk`, since every task counts alone.
            routed: of all tokens of the task.

        Raises:
            CollectorError: the collector was read and not reset.
            ArgumentError: several tasks at once.
        """
        if self._read:
            raise CollectorError("a collector that was read must be reset before the next step")
        if not isinstance(task, str):
            raise ArgumentError("task", "be one name, since every task counts alone", task.tolist())
        parts = []
        if self.balance:
            parts.append(self.balance * balance_loss(routed))
        if self.z:
            parts.append(self.z * z_loss(routed))
        if self.token:
            parts.append(self.token * token_entropy(routed))
        if self.usage:
            even = torch.tensor(float(routed.probs.shape[-1]), device=routed.probs.device).log()
            parts.append(self.usage * (even - usage_entropy(routed)))
        if parts:
            self._terms.append(torch.stack(parts).sum())

    def loss(self) -> Tensor:
        """Sum of all terms since the reset; 0 without any.

        Raises:
            CollectorError: read before, and not reset.
        """
        if self._read:
            raise CollectorError("a collector must be read once between two resets")
        self._read = True
        return torch.stack(self._terms).sum() if self._terms else torch.zeros(())

    def reset(self) -> None:
        """Forget everything: at the start of a step."""
        self._terms = []
        self._read = False
