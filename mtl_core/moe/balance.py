"""Terms that keep experts in use, and who collects them."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mtl_core.errors import ArgumentError, MTLError
from mtl_core.moe.router import RouterOut


def importance(out: RouterOut) -> Tensor:
    r""":math:`I_e = \sum_x p_e(x) \, [e \in S(x)]`, (E,): what each expert is trusted with."""
    kept = torch.zeros_like(out.probs).scatter(-1, out.idx, 1.0)
    return (out.probs * kept).flatten(0, -2).sum(0)


def load(out: RouterOut) -> Tensor:
    r"""How many tokens go to each expert, (E,); with noise the expected number.

    With noise of standard deviation :math:`\sigma` an expert e with clean logit :math:`z_e` is
    among the K best with probability :math:`\Phi((z_e - \theta_e) / \sigma)`, where the threshold
    :math:`\theta_e` is the K-th largest of the *others'* noisy logits (Shazeer et al., ICLR 2017,
    appendix A). Logits are compared with logits: M³ViT's code takes its thresholds from softmaxed
    values, which is a mistake. Without noise, or where all experts are chosen, it is a count and
    has no gradient.
    """
    count, top_k = out.logits.shape[-1], out.idx.shape[-1]
    if out.noisy is None or out.scale is None or top_k == count:
        return torch.bincount(out.idx.flatten(), minlength=count).to(out.logits.dtype)
    best = out.noisy.topk(top_k + 1, -1).values
    inside, outside = best[..., -1:], best[..., -2:-1]
    chosen = torch.zeros_like(out.noisy, dtype=torch.bool)
    chosen = chosen.scatter(-1, out.idx, torch.ones_like(out.idx, dtype=torch.bool))
    threshold = torch.where(chosen, inside, outside)
    found: Tensor = torch.special.ndtr((out.logits - threshold) / out.scale)
    return found.flatten(0, -2).sum(0)


def cv_squared(values: Tensor, counted: Tensor | None = None) -> Tensor:
    """Squared coefficient of variation of (E,): unbiased variance over squared mean, ().

    Zero for equal values and for a single one; E where one has everything.

    Args:
        values: (E,).
        counted: (E,) bool, those that count, at least one; None: all.

    >>> round(float(cv_squared(torch.tensor([8.0, 0.0, 0.0, 0.0]))), 4)
    4.0
    """
    if len(values) == 1:
        return values.new_zeros(())
    if counted is None:
        return values.var() / (values.mean().square() + 1e-10)
    held = counted.to(values.dtype)
    total = held.sum()
    mean = (values * held).sum() / total
    variance = ((values - mean) * held).square().sum() / (total - 1).clamp_min(1)
    return variance / (mean.square() + 1e-10)


def balance_loss(out: RouterOut) -> Tensor:
    """CV²(importance) + CV²(load) of one router's tokens, (): zero where all experts share alike.

    Experts that no token's task may use do not count.

    Liang et al., NeurIPS 2022 (weight 0.01), after Shazeer et al., ICLR 2017.
    """
    counted = None if out.allowed is None else out.allowed.flatten(0, -2).any(0)
    return cv_squared(importance(out), counted) + cv_squared(load(out), counted)


def z_loss(out: RouterOut) -> Tensor:
    """Mean squared log-sum-exp of the logits, (): keeps them small (Zoph et al., 2022, eq. 5)."""
    return out.logits.logsumexp(-1).square().mean()


def entropy(out: RouterOut) -> Tensor:
    """Mean entropy of the probabilities in nats, (): between 0 and log E."""
    found: Tensor = torch.special.entr(out.probs).sum(-1)
    return found.mean()


class Collector:
    """Routings of one step, added as layers give them, read once.

    A sum that nobody resets silently changes the weight of a term, so reading twice without a
    `reset` is an error, and so is adding after reading.

    Example:
        >>> from mtl_core.moe.router import choose
        >>> collector = Collector()
        >>> collector.add(choose(torch.zeros(5, 4), 2, "none"))
        >>> round(float(collector.loss()), 3) >= 0
        True
    """

    def __init__(self) -> None:
        self._held: list[RouterOut] = []
        self._read = False

    def __iter__(self) -> Iterator[RouterOut]:
        return iter(self._held)

    def add(self, out: RouterOut) -> None:
        """Take in what one router did."""
        if self._read:
            raise MTLError("The collector has been read; reset it at the beginning of a step.")
        self._held.append(out)

    def loss(self, *, balance: float = 1.0, z: float = 0.0) -> Tensor:
        """Sum over routers of the weighted terms, ().

        Args:
            balance: weight of `balance_loss`.
            z: weight of `z_loss`.

        Raises:
            MTLError: it has been read since the last reset.
            ArgumentError: nothing was added.
        """
        if self._read:
            raise MTLError("The collector has been read already; reset it once a step.")
        if not self._held:
            raise ArgumentError("the collector", "hold the routing of one layer at least", 0)
        self._read = True
        terms = [balance * balance_loss(out) for out in self._held]
        terms += [z * z_loss(out) for out in self._held] if z else []
        return torch.stack(terms).sum()

    def reset(self) -> None:
        """Forget the step."""
        self._held, self._read = [], False
