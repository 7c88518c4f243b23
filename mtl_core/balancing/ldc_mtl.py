"""Weights from a router that keeps the losses alike."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from mtl_core.balancing.base import Balanceable
from mtl_core.balancing.by_name import check_choice
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.ranks import sum_over_ranks, world_size
from mtl_core.balancing.scalars import LearnedScalars
from mtl_core.balancing.stages import require_positive
from mtl_core.errors import ArgumentError, BalancerError
from mtl_core.nn.features import Features


def ldc_objective(losses: Tensor, shares: Tensor, penalty: float) -> Tensor:
    r"""Weighted mean of the losses, and the differences of neighbours.

    :math:`\sum_t \sigma_t m_t / \operatorname{sg}[\sum_t \sigma_t]
    + \lambda \sum_t |\sigma_t m_t - \sigma_{t+1} m_{t+1}|`.

    Args:
        losses: :math:`m`, (T,) normalised losses.
        shares: :math:`\sigma`, (T,) from the router.
        penalty: :math:`\lambda`.

    Example:
        >>> import torch
        >>> ldc_objective(torch.tensor([1.0, 3.0]), torch.tensor([0.5, 0.5]), 0.1)
        tensor(2.1000)
    """
    weighted = shares * losses
    return weighted.sum() / shares.sum().detach() + penalty * weighted.diff().abs().sum()


def pool_features(features: Features) -> Tensor:
    """Coarsest map averaged over its positions, (B, C); the tokens where there is no map."""
    chosen = features.maps[-1] if features.maps else features.tokens
    if chosen is None:
        raise BalancerError("LDCMTL's router reads features, but the encoder gave none.")
    if not features.maps:
        return chosen.mean(1)
    return chosen if chosen.ndim == 2 else chosen.flatten(2).mean(2)


class Pulls(NamedTuple):
    """Derivatives of the objective.

    Args:
        losses: (T,) by the losses.
        features: (D,) by the mean features; empty without any.
        router: (n,) by the router's parameters.
    """

    losses: Tensor
    features: Tensor
    router: Tensor


class LDCMTL(LossBalancer):
    r"""Loss discrepancy control: a router weighs the tasks and is punished where losses differ.

    Xiao et al., "LDC-MTL: Balancing Multi-Task Learning through Scalable Loss Discrepancy Control",
    2025. A small router on the features, averaged over positions and the batch, gives
    :math:`\sigma = \operatorname{softmax}(\mathrm{router}(\bar z))`. Router and model both descend

    .. math:: \frac{\sum_t \sigma_t m_t}{\operatorname{sg}[\sum_t \sigma_t]}
        + \lambda \sum_t |\sigma_t m_t - \sigma_{t+1} m_{t+1}|

    of normalised losses :math:`m`, the model by its own optimiser, the router by an Adam of its
    own. Neighbours are those in the order of the tasks, among those present. Above
    :math:`\lambda = 1/2` weights of the losses can be negative.

    **Unverified**: the paper's upper level and its gradient path. This is the single-loop form of
    the released code (OptMN-Lab/LDC-MTL), which differs from one experiment to the next: the
    discrepancy is that of weighted losses for NYUv2, CelebA and QM9 and of unweighted ones for
    Cityscapes (not offered: the router would not see it); the router reads features for NYUv2 and
    consists of free scalars, through a sigmoid, for CelebA and QM9; losses are divided by their
    first value's ratio to the smallest one, or enter as logarithms. There the router shares the
    model's optimiser and, for NYUv2, its output is clamped. Fragile: the first term alone drives
    the router to the easiest task, which only :math:`\lambda` holds back. LibMTL and TorchJD do not
    have it.

    Args:
        penalty: :math:`\lambda`, not negative; released code has 0.01 to 0.1.
        normalise: ``none``; ``initial`` divides by the ratio of the task's first loss to the
            smallest first loss; ``log`` takes the logarithm of the loss over its first value. The
            last two need positive losses.
        router: ``features``, or ``free`` scalars, which know nothing of the batch.
        hidden: width of the router's hidden layer; 0 makes it linear.
        through_features: send the objective's gradient through the router into the trunk too, as
            the released code does.
        lr: learning rate of the router, positive.
        scale: ``sum`` multiplies the model's objective by T, so that the step agrees with the plain
            sum where losses and shares are equal; ``paper`` does not.
        seed: of the hidden layer's start. The output layer starts at zero: equal shares.
    """

    source = "Xiao et al., 2025"
    needs = "losses and features"
    keeps = "the router, T numbers"

    def __init__(
        self,
        *,
        penalty: float = 0.05,
        normalise: Literal["none", "initial", "log"] = "initial",
        router: Literal["features", "free"] = "features",
        hidden: int = 0,
        through_features: bool = True,
        lr: float = 1e-3,
        scale: Literal["sum", "paper"] = "sum",
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        check_choice("normalise", normalise, ("none", "initial", "log"))
        check_choice("router", router, ("features", "free"))
        check_choice("scale", scale, ("sum", "paper"))
        if not 0 <= penalty < float("inf"):
            raise ArgumentError("penalty", "be finite and not negative", penalty)
        if not hidden >= 0:
            raise ArgumentError("hidden", "not be negative", hidden)
        if not lr > 0:
            raise ArgumentError("lr", "be positive", lr)
        if router == "free" and hidden:
            raise ArgumentError("hidden", "be 0 with router: free", hidden)
        self.discrepancy = penalty
        self.normalise = normalise
        self.router = router
        self.hidden = hidden
        self.through_features = through_features
        self.lr = lr
        self.scale = scale
        self.first = torch.zeros(0, dtype=torch.float64)
        self.learned = LearnedScalars(0, lr=lr)
        self.width = -1
        self._pooled: Tensor | None = None
        self._total: Tensor | None = None
        self._samples = 0.0
        self._pull: Tensor | None = None

    def reset(self, entries: int) -> None:
        """Forget the router, which is made when the features' width is known."""
        self.first = torch.full((entries,), torch.nan, dtype=torch.float64)
        self.learned, self.width = LearnedScalars(0, lr=self.lr), -1
        self._pooled = self._total = self._pull = None
        self._samples = 0.0

    # The router: a flat vector of parameters, so that one optimiser and one state serve.

    def _shapes(self, width: int) -> list[tuple[int, ...]]:
        entries = len(self.entries)
        if not self.hidden:
            return [(entries, width), (entries,)]
        return [(self.hidden, width), (self.hidden,), (entries, self.hidden), (entries,)]

    def _make(self, width: int) -> None:
        sizes = [torch.Size(s).numel() for s in self._shapes(width)]
        self.width = width
        self.learned = LearnedScalars(sum(sizes), lr=self.lr)
        if self.hidden:
            generator = torch.Generator().manual_seed(self.seed)
            drawn = torch.randn(sizes[0], dtype=torch.float64, generator=generator)
            self.learned.values[: sizes[0]] = drawn / max(width, 1) ** 0.5

    def _shares(self, flat: Tensor, pooled: Tensor, present: Tensor) -> Tensor:
        shapes = self._shapes(self.width)
        parts = flat.split([torch.Size(s).numel() for s in shapes])
        layers = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        for i in range(0, len(layers), 2):
            pooled = layers[i] @ (pooled if i == 0 else pooled.relu()) + layers[i + 1]
        return torch.softmax(pooled[present], 0)

    def _input(self) -> Tensor:
        if self.router == "free":
            pooled = torch.zeros(0, dtype=torch.float64)
        elif self._pooled is None:
            raise BalancerError(
                "LDCMTL's router reads the encoder's features, but none came with the losses. Use "
                "router: free, which needs none."
            )
        else:
            pooled = self._pooled
        if self.width != len(pooled):
            if self.width >= 0:
                raise BalancerError(
                    f"LDCMTL's router was made for features of width {self.width}, found "
                    f"{len(pooled)}."
                )
            self._make(len(pooled))
        return pooled

    # From losses to derivatives.

    def _normalised(self, losses: Tensor, step: Step) -> Tensor:
        if self.normalise == "none":
            return losses
        require_positive(losses, step, "ratios and logarithms of losses")
        first = self.first[step.present]
        first = torch.where(first.isnan(), losses.detach(), first)
        if self.normalise == "log":
            return (losses / first).log()
        return losses * (first.min() / first)

    def pulls(self, losses: Tensor, step: Step) -> Pulls:
        """Derivatives of the objective at losses (T,) and the features last seen."""
        pooled = self._input().clone().requires_grad_()
        flat = self.learned.values.clone().requires_grad_()
        leaf = losses.clone().requires_grad_()
        with torch.enable_grad():
            shares = self._shares(flat, pooled, step.present)
            value = ldc_objective(self._normalised(leaf, step), shares, self.discrepancy)
        return Pulls(*torch.autograd.grad(value, (leaf, pooled, flat), materialize_grads=True))

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Derivatives (T,) of the objective by the losses."""
        return self.pulls(losses, step).losses * self._gain(len(losses))

    def _gain(self, tasks: int) -> float:
        return float(tasks) if self.scale == "sum" else 1.0

    def advance(self, losses: Tensor, step: Step) -> None:
        """One step of the router; tasks seen for the first time keep their loss as first one."""
        pull = self.pulls(losses, step).router
        self.learned.step(pull, torch.arange(len(pull)))
        former = self.first[step.present]
        self.first[step.present] = torch.where(former.isnan(), losses, former)

    # Features come in beside the losses.

    def collect(
        self,
        module: Balanceable,
        step: TaskLosses,
        scaled: Tensor,
        means: dict[str, float],
        shares: dict[str, float],
    ) -> None:
        """Average the features over all ranks, then one backward of the weighted sum."""
        if self.router == "features" and step.features is not None:
            pooled = pool_features(step.features)
            local = pooled.detach().double()
            # The last column counts the samples.
            held = sum_over_ranks(torch.cat([local, torch.ones_like(local[:, :1])], 1).sum(0)).cpu()
            self._pooled = held[:-1] / held[-1]
            self._total = held[:-1] + (0 if self._total is None else self._total)
            self._samples += float(held[-1])
            present = [e for e in self.entries if e in means]
            if self.through_features and present and pooled.requires_grad:
                values = torch.tensor([means[e] for e in present], dtype=torch.float64)
                pull = self.pulls(values, self.step(present)).features * self._gain(len(present))
                self._pull = pull * (world_size() / float(held[-1]))
        super().collect(module, step, scaled, means, shares)
        self._pull = None

    def penalty(self, losses: TaskLosses) -> Tensor | None:
        """A scalar whose gradient by the features is the objective's through the router."""
        if self._pull is None or losses.features is None:
            return None
        pooled = pool_features(losses.features).sum(0)
        return pooled.float() @ self._pull.to(pooled.device, torch.float32)

    def finish(self, module: Balanceable, losses: Tensor, step: Step) -> None:
        """Act on the mean features of the window."""
        if self._total is not None:
            self._pooled = self._total / self._samples
            self._total, self._samples = None, 0.0
        super().finish(module, losses, step)

    def method_state(self) -> dict[str, Any]:
        """The router, its optimiser's moments, and the first losses."""
        return {"width": self.width, "router": self.learned.state(), "first": self.first}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.width = state["width"]
        self.learned.load(state["router"])
        self.first = state["first"].clone()
