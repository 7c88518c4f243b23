"""Regularised task saliency in the shared representation."""

import warnings
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor

from mtl_core.balancing.base import Balanceable
from mtl_core.balancing.by_name import check_choice
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.nested import refuse_hooks
from mtl_core.balancing.ranks import sum_over_ranks, world_size
from mtl_core.balancing.saliency import affinity_contrast, saliency_entropy
from mtl_core.balancing.si import SI
from mtl_core.balancing.twice import MathAttention, find_once_differentiable
from mtl_core.errors import ArgumentError, BalancerError
from mtl_core.nn.network import MultiTaskNetwork


class RepMTL(LossBalancer):
    r"""Two penalties on the gradients of the losses by the features, on top of loss weights.

    Wang, Li and Xu, "Rep-MTL: Unleashing the Power of Representation-level Task Saliency for
    Multi-Task Learning", ICCV 2025 (arXiv 2507.21049). With the saliencies :math:`S_t = \partial
    \ell_t / \partial Z` of the encoder's features Z, minimised are the inner method's losses plus
    :math:`\lambda_{tsr} L_{tsr} + \lambda_{csa} L_{csa}`: each position is to be salient for few
    tasks (`saliency_entropy`), and the channels of a task's saliency are to go together as those of
    all tasks of the sample do (`affinity_contrast`). Features of several maps are penalised map by
    map, and the penalties averaged. The authors published no code; what the text leaves open is
    decided as written under the arguments.

    The saliencies keep their graph: decoders are walked back once more a task and differentiated
    twice, the encoder once. Attention inside of decoders is switched to torch's math kernel during
    a fit (fused ones cannot be differentiated twice); compiled decoders are refused; any other
    operation that cannot is named. Checkpointed decoders have to be of the non-reentrant kind. In a
    hand-written loop choose the kernel yourself.

    Fragile: with piecewise linear decoders saliencies depend on the features only through the
    curvature of the losses, so that an L1 loss behind ReLU layers without normalisation gives the
    encoder a gradient of exactly zero. The entropy is dominated by the task of the largest losses;
    neither penalty is invariant to the scale of one task. A large part of the published gain is
    the inner method's: equal weights on logarithms of losses alone gain 0.3 points of 1.7 on NYUv2.

    A sample without labels of a task has no saliency for it and is left out there. Negatives are
    the other samples of this rank's micro-batch; otherwise several processes equal one where all
    have as many positions with saliency. Penalties
    are computed in float32 from gradients that carry the loss scale, which they do not depend on.

    Args:
        inner: weighs the losses; any method that only weighs. Default: `SI`, equal weights on
            logarithms, as in the paper.
        tsr: :math:`\lambda_{tsr}`, not negative; the paper searches 0.7 to 1.5.
        csa: :math:`\lambda_{csa}`, likewise.
        temperature: :math:`\tau` of the contrast, positive (not given in the text, unverified).
        csa_reduce: positives in a ``sum`` inside of the logarithm, or the ``mean`` of T terms
            (which of the two is meant is unverified).
        saliency: of which losses: ``weighted`` by the inner method's weights as constants, ``log``
            (weights that change as inverse losses do, exact for `SI`), or ``raw``. None takes
            ``log`` for `SI` and ``weighted`` else: the losses that are minimised.
        saliency_norm: ``per_task`` divides each task's saliency by its length first.
        max_anchors: of a larger micro-batch so many samples serve as negatives.
        multi_input: what batches do in which no sample has labels of two tasks, where the
            penalties are undefined: ``raise``; ``paired`` takes the tasks' i-th samples for one
            (the paper reports such results without saying how); ``off`` drops the penalties.
        seed: of the inner method's random numbers.
    """

    needs = "features"
    source = "Wang et al., ICCV 2025"

    def __init__(
        self,
        *,
        inner: LossBalancer | None = None,
        tsr: float = 0.9,
        csa: float = 0.9,
        temperature: float = 0.1,
        csa_reduce: Literal["sum", "mean"] = "sum",
        saliency: Literal["log", "weighted", "raw"] | None = None,
        saliency_norm: Literal["none", "per_task"] = "none",
        max_anchors: int = 64,
        multi_input: Literal["raise", "paired", "off"] = "raise",
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        inner = SI() if inner is None else inner
        rule = "be a method that only weighs losses"
        if not isinstance(inner, LossBalancer):
            raise ArgumentError("inner", rule, type(inner).__name__)
        refuse_hooks(inner, LossBalancer, rule, "penalty")
        for name, value in {"tsr": tsr, "csa": csa}.items():
            if not 0 <= value < float("inf"):
                raise ArgumentError(name, "be finite and not negative", value)
        if not temperature > 0:
            raise ArgumentError("temperature", "be positive", temperature)
        if max_anchors < 2:
            raise ArgumentError("max_anchors", "be at least 2", max_anchors)
        if saliency is None:
            saliency = "log" if isinstance(inner, SI) else "weighted"
        check_choice("saliency", saliency, ("log", "weighted", "raw"))
        check_choice("csa_reduce", csa_reduce, ("sum", "mean"))
        check_choice("saliency_norm", saliency_norm, ("none", "per_task"))
        check_choice("multi_input", multi_input, ("raise", "paired", "off"))
        self.inner = inner
        self.tsr = tsr
        self.csa = csa
        self.temperature = temperature
        self.csa_reduce = csa_reduce
        self.saliency = saliency
        self.saliency_norm = saliency_norm
        self.max_anchors = max_anchors
        self.multi_input = multi_input
        self._attention: MathAttention | None = None
        self._means: dict[str, float] = {}
        self._shares: dict[str, float] = {}
        self._terms: list[Tensor] = []
        self._warned = False

    # The inner method.

    def prepare(self, entries: int) -> None:
        """Start the inner method too."""
        super().prepare(entries)
        self.inner.start(self.entries)
        self._terms, self._warned = [], False

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """The inner method's weights (T,)."""
        return self.inner.weigh(losses, step)

    def advance(self, losses: Tensor, step: Step) -> None:
        """Advance the inner method."""
        self.inner.index = self.index
        self.inner.advance(losses, step)

    def method_state(self) -> dict[str, Any]:
        """That of the inner method."""
        return {"method": self.inner.method_state(), "family": self.inner.family_state()}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.inner.load_family_state(state["family"])
        self.inner.load_method_state(state["method"])

    # Around a fit.

    def check(self, trainer: L.Trainer, module: L.LightningModule) -> Balanceable:
        """Refuse compiled decoders too."""
        checked = super().check(trainer, module)
        for name, part in _decoders(checked):
            if any(m._compiled_call_impl is not None for m in part.modules()):
                raise BalancerError(
                    f"RepMTL differentiates decoders twice, which compiled ones do not allow "
                    f"({name}). Compile the encoder alone."
                )
        return checked

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Switch attention in decoders to a kernel that can be differentiated twice."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and isinstance(pl_module, Balanceable):
            self._attention = MathAttention([m for _, m in _decoders(pl_module)])

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Switch it back."""
        super().teardown(trainer, pl_module, stage)
        if self._attention is not None:
            self._attention.close()
            self._attention = None

    # The penalties.

    def collect(
        self,
        module: Balanceable,
        step: TaskLosses,
        scaled: Tensor,
        means: dict[str, float],
        shares: dict[str, float],
    ) -> None:
        """One backward of the weighted sum and the penalties.

        Raises:
            BalancerError: a decoder cannot be differentiated twice; names the module.
        """
        self._means, self._shares = means, shares
        try:
            super().collect(module, step, scaled, means, shares)
        except BalancerError:
            raise
        except RuntimeError as error:
            again = step.recompute
            found = None
            if again is not None and (self.tsr or self.csa):
                found = find_once_differentiable(_decoders(module), again)
            if found is None:
                raise
            raise BalancerError(
                f"RepMTL differentiates decoders twice, which {found} does not allow: {error}"
            ) from error

    def finish(self, module: Balanceable, losses: Tensor, step: Step) -> None:
        """Log the penalties beside the weights."""
        super().finish(module, losses, step)
        self.report.update(self.inner.report)
        if self.reporting and self._terms:
            values = torch.stack(self._terms).mean(0).tolist()
            self.report.update(zip(("tsr", "csa"), values, strict=True))
        self._terms = []

    def penalty(self, losses: TaskLosses) -> Tensor | None:
        """The weighted penalties of one micro-batch; None where they are void."""
        if not (self.tsr or self.csa):
            return None
        device = losses.vector.device
        weights = self._inner_weights().to(device, torch.float32).requires_grad_()
        value = self._value(losses, weights)
        if self.saliency != "log":
            return value
        # The weights move with the losses over all ranks, not with those of this one alone.
        pull = torch.zeros_like(weights)
        if value is not None:
            (pull,) = torch.autograd.grad(value, weights, retain_graph=True)
        pull = sum_over_ranks(pull.detach().clone()) / world_size()
        slopes = -pull * weights.detach().square()
        moved = [
            (loss - loss.detach()) * (slopes[self.entries.index(e)] * self._shares[e])
            for e, loss in losses.losses.items()
        ]
        parts = [*moved, *([] if value is None else [value])]
        return torch.stack(parts).sum() if parts else None

    def _inner_weights(self) -> Tensor:
        """Weights of all entries, float64; one where absent."""
        present = [e for e in self.entries if e in self._means]
        values = torch.tensor([self._means[e] for e in present], dtype=torch.float64)
        weights = torch.ones(len(self.entries), dtype=torch.float64)
        if present and self.saliency != "raw":
            step = self.step(present)
            weights[step.present] = self.weigh(values, step)
        return weights

    def _value(self, losses: TaskLosses, weights: Tensor) -> Tensor | None:
        if len(losses.losses) < 2:
            return None
        if losses.features is None:
            raise BalancerError(
                "RepMTL penalises gradients of the features, which this network does not give."
            )
        maps = losses.features.tensors()
        if not all(m.requires_grad for m in maps):
            raise BalancerError("RepMTL needs an encoder that is trained, but this one is frozen.")
        saliencies = self._saliencies(losses, maps, weights)
        tokens = losses.features.tokens is not None
        terms = []
        for i, per_task in enumerate(saliencies):
            shaped = torch.stack([_positions(s, tokens and i == len(maps) - 1) for s in per_task])
            terms.append(self._terms_of(shaped))
        total = torch.stack(terms).mean(0)
        self._terms.append(total.detach())
        return self.tsr * total[0] + self.csa * total[1] if total.requires_grad else None

    def _saliencies(
        self, losses: TaskLosses, maps: list[Tensor], weights: Tensor
    ) -> list[list[Tensor]]:
        """Gradients by map and task, times one common constant."""
        found: list[list[Tensor]] = [[] for _ in maps]
        for entry, loss in losses.losses.items():
            gradients = torch.autograd.grad(
                loss,
                maps,
                grad_outputs=loss.new_tensor(self.loss_scale()),
                create_graph=True,
                allow_unused=True,
            )
            weight = weights[self.entries.index(entry)] * self._shares[entry]
            for place, gradient, like in zip(found, gradients, maps, strict=True):
                wide = torch.zeros_like(like) if gradient is None else gradient
                wide = wide.float() if wide.dtype in (torch.float16, torch.bfloat16) else wide
                place.append(wide * weight)
        return found

    def _terms_of(self, saliency: Tensor) -> Tensor:
        """Both penalties, unweighted, of saliencies (T, B, C, N)."""
        active = (saliency != 0).flatten(2).any(2)
        with torch.autocast(saliency.device.type, enabled=False):
            if not bool((active.sum(0) > 1).any()) and int(active.any(1).sum()) > 1:
                if self.multi_input == "off":
                    return saliency.new_zeros(2)
                saliency = self._paired(saliency, active)
            if saliency.shape[1] == 1 and self.csa and not self._warned:
                self._warned = True
                warnings.warn(
                    "RepMTL's contrast is zero for micro-batches of one sample: there are no "
                    "negatives.",
                    stacklevel=2,
                )
            if self.saliency_norm == "per_task":
                lengths = saliency.flatten(1).norm(dim=1)
                lengths = torch.where(lengths > 0, lengths, 1.0)
                saliency = saliency / lengths[:, None, None, None]
            largest = saliency.detach().abs().amax()
            saliency = saliency / torch.where(largest > 0, largest, 1.0)
            zero = saliency.new_zeros(())
            tsr = saliency_entropy(saliency) if self.tsr else zero
            csa = zero
            if self.csa:
                csa = affinity_contrast(
                    saliency,
                    temperature=self.temperature,
                    reduce=self.csa_reduce,
                    max_anchors=self.max_anchors,
                )
        return torch.stack([tsr, csa])

    def _paired(self, saliency: Tensor, active: Tensor) -> Tensor:
        """Saliencies of which no two tasks meet in a sample, brought together by position."""
        if self.multi_input == "raise":
            raise BalancerError(
                "RepMTL compares saliencies of several tasks in one sample, but no sample of this "
                "batch has labels of two tasks. Set multi_input to paired or off."
            )
        tasks = [s[a] for s, a in zip(saliency, active, strict=True) if bool(a.any())]
        count = min(len(s) for s in tasks)
        return torch.stack([s[:count] for s in tasks])


def _decoders(module: Balanceable) -> list[tuple[str, torch.nn.Module]]:
    """Names and modules of the parts that serve one task; none outside of `MultiTaskNetwork`."""
    network = module.network
    if not isinstance(network, MultiTaskNetwork):
        return []
    parts = {m for task in network.tasks for m in network.decoder_modules(task)}
    return [(name, m) for name, m in network.named_modules() if m in parts]


def _positions(values: Tensor, tokens: bool) -> Tensor:
    """(B, C, N) of a map (B, C, ...), a vector (B, C) or a sequence (B, N, C)."""
    return values.mT if tokens else values.flatten(2) if values.ndim > 2 else values[:, :, None]
