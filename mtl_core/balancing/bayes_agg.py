"""Gradients of the features weighted by how sure each task is of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mtl_core.balancing.base import Balanceable
from mtl_core.balancing.border import Merged
from mtl_core.balancing.by_name import check_choice
from mtl_core.balancing.feature import FeatureBalancer
from mtl_core.balancing.last_layer_posterior import (
    covariance_roots,
    curvature,
    extended,
    extended_weights,
    last_layers,
    precision_shares,
    sampled_moments,
    squared_error_moments,
    weighted_squares,
)
from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.ranks import sum_over_ranks
from mtl_core.errors import ArgumentError, BalancerError
from mtl_core.tasks import Regression, Task


@dataclass(frozen=True)
class _Labels:
    """One task's labels in a batch.

    Args:
        task: the record.
        target: as the batch holds it.
        known: mask in the shape of the task's elements.
    """

    task: Task
    target: Tensor
    known: Tensor

    def losses(self, logits: Tensor) -> Tensor:
        """Loss of every element, zero where there is no label; logits K times over are allowed."""
        times = len(logits) // len(self.target)
        target, known = (
            x.repeat(times, *[1] * (x.ndim - 1)) if times > 1 else x
            for x in (self.target, self.known)
        )
        return torch.where(known, self.task.element_loss(logits, target, known), 0.0)

    @property
    def gaussian(self) -> bool:
        """Whether the loss is a squared error."""
        return isinstance(self.task, Regression) and self.task.loss == "mse"

    def standardised(self) -> Tensor:
        """Targets (B, C) of a squared error, in the units of the predictions."""
        assert isinstance(self.task, Regression)
        return (self.target.float().reshape(self.known.shape) - self.task.mean) / self.task.std


class BayesAgg(FeatureBalancer):
    r"""Averages the tasks' gradients of the features by their posterior precision.

    Achituve, Diamant, Netzer, Chechik and Fetaya, "Bayesian Uncertainty for Gradient Aggregation in
    Multi-Task Learning", ICML 2024 (BayesAgg-MTL). With a Gaussian posterior of every task's last
    linear layer, the gradient of a sample's loss by the features is a random vector; its mean
    :math:`\mu_t` and its variances :math:`\sigma_t^2` by dimension give

    .. math:: d = \sum_t \Lambda_t \mu_t \Big/ \sum_t \Lambda_t, \qquad
        \Lambda_t = (\sigma_t^2)^{-p},

    by sample and dimension, which walks the trunk once. Squared errors have a posterior and moments
    in closed form (`squared_error_moments`); other losses have samples of a Laplace approximation.

    What differs from the authors' code (ssi-research/BayesAgg_MTL): the posterior rests on sums
    over the last batches, forgotten at the rate 1 / `memory`, where theirs passes the whole
    training set through the network before every epoch; these are features of a moving network, at
    no further pass. The Laplace posterior lies at the layer's current weights, where theirs takes a
    Newton step from the epoch's posterior, and neglects covariances between classes, which theirs
    does for binary labels only. The bias is part of the posterior. A task's outputs are one
    gradient, theirs are separate tasks for regression. Variances are floored relative to the tasks'
    mean, not at 1e-8. Losses keep their static weights and their divisors, so that gradients count
    less where they are uncertain *in the units of the update*: scaling a loss by a factor divides
    its influence by that factor.

    Degree one in the scale of all losses together. With ``scale: sum`` equal gradients add up as in
    the plain sum. Decoders get their own gradients, unweighted. Samples that a task has no label
    for are left to the others.

    Needs labels and the layer's input: `MultiTaskModule` under a trainer; decoders that are one
    linear layer on vectors (B, D), as `mtl_core.nn.LinearDecoder`, with pooling or dropout in front
    of it at most; no compiled ones, no tasks with groups, no absolute error (it has no curvature).
    Costs a Cholesky factor of size D an output, and `samples` evaluations of the last layer. State:
    D² numbers an output.

    Args:
        memory: batches that the posterior remembers, at least 1.
        prior: precision of the weights' prior, positive.
        power: :math:`p`, not negative. The formula of the paper has 1, with which a task that has
            learnt its samples silences the others; the authors' scripts have 0.3 (regression), 0.1
            and 0.0005 (classification). 0 gives plain means.
        samples: of the posterior, at least 2; 512 in the authors' code.
        scale: ``sum`` multiplies by the number of tasks that know the sample; ``paper`` leaves the
            mean.
        seed: of the samples.
    """

    source = "Achituve et al., ICML 2024"
    needs = "features"
    keeps = "D² numbers an output"

    def __init__(
        self,
        *,
        memory: int = 100,
        prior: float = 1.0,
        power: float = 0.1,
        samples: int = 64,
        scale: Literal["sum", "paper"] = "sum",
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        for name, value, least in (("memory", memory, 1), ("samples", samples, 2)):
            if value < least:
                raise ArgumentError(name, f"be at least {least}", value)
        if not prior > 0:
            raise ArgumentError("prior", "be positive", prior)
        if not power >= 0:
            raise ArgumentError("power", "not be negative", power)
        check_choice("scale", scale, ("sum", "paper"))
        self.memory = memory
        self.prior = prior
        self.power = power
        self.samples = samples
        self.scale = scale
        self._handles: list[RemovableHandle] = []
        self._layers: dict[str, nn.Linear] = {}
        self._inputs: dict[str, Tensor] = {}
        self._batch: Mapping[str, Any] | None = None
        self._merged: Tensor | None = None
        self.reset(0)

    def reset(self, entries: int) -> None:
        """Nothing remembered."""
        self._sums: dict[str, list[Tensor]] = {}
        self._fresh: dict[str, list[Tensor]] = {}
        self._verified: set[str] = set()

    # Finding the layers and the labels.

    def check(self, trainer: L.Trainer, module: L.LightningModule) -> Balanceable:
        """Refuse decoders that are not one linear layer, groups, and compiled decoders."""
        checked = super().check(trainer, module)
        if getattr(module, "compiled", False):
            raise BalancerError("BayesAgg reads the decoders' inputs: not with compiled decoders.")
        for task, record in checked.network.tasks.items():
            if not isinstance(record, Task) or record.groups:
                raise BalancerError(f"BayesAgg needs tasks without groups; {task} has some.")
            if isinstance(record, Regression) and record.loss == "mae":
                raise BalancerError(
                    f"BayesAgg needs losses with curvature; that of {task} is an absolute error."
                )
        last_layers(checked.network)
        return checked

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Begin to listen to the layers' inputs."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and isinstance(pl_module, Balanceable):
            self._layers = last_layers(pl_module.network)
            for task, layer in self._layers.items():
                self._handles.append(layer.register_forward_pre_hook(self._listener(task)))

    def _listener(self, task: str) -> Any:
        def listen(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if torch.is_grad_enabled() and inputs[0].requires_grad:
                self._inputs[task] = inputs[0]

        return listen

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Stop listening."""
        super().teardown(trainer, pl_module, stage)
        for handle in self._handles:
            handle.remove()
        self._handles, self._layers, self._inputs, self._batch = [], {}, {}, None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the labels at hand."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._batch = batch

    def _labels(self, module: Balanceable, name: str) -> _Labels:
        batch = self._batch
        if not isinstance(batch, Mapping) or name not in batch.get("targets", {}):
            raise BalancerError(
                "BayesAgg needs the labels of the batch, as MultiTaskModule's batches hold them, "
                "and a trainer that hands them over."
            )
        task, target = module.network.tasks[name], batch["targets"][name]
        known = task.valid(target)
        extra = batch.get("valid", {}).get(name)
        if extra is not None:
            known = known & extra
        labelled = batch.get("labelled", {}).get(name)
        if labelled is not None:
            known = known & labelled.view(-1, *[1] * (known.ndim - 1))
        return _Labels(task, target, known)

    # From posteriors to one gradient.

    def collect(
        self,
        module: Balanceable,
        step: TaskLosses,
        scaled: Tensor,
        means: dict[str, float],
        shares: dict[str, float],
    ) -> None:
        """Posteriors first, while the graph is there; then as every method at the features."""
        present = [e for e in self.entries if e in means]
        if not self._layers:
            self._labels(module, next(iter(present), ""))
        known = {e: self._labels(module, e) for e in step.losses}
        self._remember_batch(present, known, step)
        factors = step.factors(scaled)[0] / self.loss_scale()
        factor_of = {e: f * shares[e] for e, f in zip(step.losses, factors.unbind(), strict=True)}
        self._merged = self._merge(known, factor_of, step, self.step(present))
        self._inputs = {}
        super().collect(module, step, scaled, means, shares)
        self._merged = None

    def _remember_batch(
        self, present: list[str], known: dict[str, _Labels], step: TaskLosses
    ) -> None:
        """Add the batch to the sums behind the posteriors, over all ranks."""
        for entry in present:
            layer = self._layers[entry]
            size = layer.in_features + (layer.bias is not None)
            device = layer.weight.device
            found = [
                torch.zeros(layer.out_features, size, size, device=device),
                torch.zeros(layer.out_features, size, device=device),
            ]
            if entry in known:
                inputs, labels = self._extended(entry), known[entry]
                logits = inputs @ extended_weights(layer).t()
                self._verify(entry, labels, logits, step)
                if labels.gaussian:
                    mask = labels.known.float()
                    found[0] = weighted_squares(inputs, mask)
                    found[1] = (labels.standardised() * mask).t() @ inputs
                else:
                    found[0] = weighted_squares(inputs, curvature(labels.losses, logits))
            found = [sum_over_ranks(f) for f in found]
            former = self._fresh.get(entry)
            self._fresh[entry] = (
                found if former is None else [a + b for a, b in zip(former, found, strict=True)]
            )

    def _extended(self, entry: str) -> Tensor:
        inputs = self._inputs.get(entry)
        layer = self._layers[entry]
        if inputs is None or inputs.ndim != 2:
            shape = None if inputs is None else tuple(inputs.shape)
            raise BalancerError(
                f"BayesAgg needs decoders that are a linear layer on vectors (B, D); that of "
                f"{entry} got {shape}."
            )
        return extended(inputs, bias=layer.bias is not None)

    def _verify(self, entry: str, labels: _Labels, logits: Tensor, step: TaskLosses) -> None:
        """Compare with the loss that the module computed, once a run."""
        if entry in self._verified:
            return
        self._verified.add(entry)
        count = float(labels.known.sum())
        value = labels.task.weight * float(labels.losses(logits).sum()) / max(count, 1.0)
        if abs(value - step.values[entry]) > 0.05 * abs(step.values[entry]) + 1e-4:
            raise BalancerError(
                f"BayesAgg needs decoders whose linear layer gives the prediction; that of {entry} "
                f"would have a loss of {value:.4g}, but it is {step.values[entry]:.4g}."
            )

    def _merge(
        self,
        known: dict[str, _Labels],
        factors: dict[str, Tensor],
        step: TaskLosses,
        update: Step,
    ) -> Tensor | None:
        """Gradient (m,) at the border; None where this rank has no labels."""
        if not known or step.features is None:
            return None
        moments = [
            self._moments(entry, labels, factors[entry], update) for entry, labels in known.items()
        ]
        if len({m.shape for m, _ in moments}) > 1:
            raise BalancerError("BayesAgg needs linear layers that all take the same features.")
        labelled = torch.stack(
            [la.known.flatten(1).any(1) if la.known.ndim > 1 else la.known for la in known.values()]
        )
        shares = precision_shares(torch.stack([v for _, v in moments]), labelled, self.power)
        if self.scale == "sum":
            shares = shares * labelled.sum(0)[:, None]
        total = [torch.zeros_like(f, dtype=torch.float32) for f in step.features.tensors()]
        for entry, (mean, _), share in zip(known, moments, shares, strict=True):
            inputs = self._inputs[entry]
            sides = step.cut[entry].tensors()
            found = torch.autograd.grad(
                inputs, sides, (mean * share).to(inputs.dtype), retain_graph=True, allow_unused=True
            )
            for place, gradient in zip(total, found, strict=True):
                if gradient is not None:
                    place += gradient
        return torch.cat([t.flatten() for t in total])

    def _moments(
        self, entry: str, labels: _Labels, factor: Tensor, update: Step
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance (B, D) of the samples' gradients, in units of the update."""
        layer, inputs = self._layers[entry], self._extended(entry)
        precision, pull = self._posterior(entry)
        root = covariance_roots(precision, self.prior)
        size = layer.in_features
        if labels.gaussian:
            mean = torch.einsum("cef,cgf,cg->ce", root, root, pull)
            first, second = squared_error_moments(
                inputs, labels.standardised(), labels.known, mean, root, size
            )
        else:
            seed = update.generator.initial_seed() + list(self._layers).index(entry)
            first, second = sampled_moments(
                inputs,
                labels.losses,
                extended_weights(layer),
                root,
                size,
                samples=self.samples,
                generator=torch.Generator(inputs.device).manual_seed(seed),
            )
        unit = factor * (labels.task.weight / labels.known.sum().clamp_min(1))
        return first * unit, second * unit.square()

    def _posterior(self, entry: str) -> list[Tensor]:
        """Sums with this window's batches, older ones fading."""
        fresh, former = self._fresh[entry], self._sums.get(entry)
        if former is None:
            return fresh
        kept = 1 - 1 / self.memory
        return [kept * a.to(b.device) + b for a, b in zip(former, fresh, strict=True)]

    def merge(self, rows: Tensor, losses: Tensor, step: Step) -> Merged:
        """What was found from the posteriors."""
        return Merged(torch.zeros_like(rows[0]) if self._merged is None else self._merged)

    def finish(self, module: Balanceable, losses: Tensor, step: Step) -> None:
        """Average gradients over ranks and keep the window's sums."""
        super().finish(module, losses, step)
        found = {e: self._posterior(e) for e in self._fresh}
        if all(bool(torch.isfinite(f).all()) for part in found.values() for f in part):
            self._sums.update(found)
        self._fresh = {}

    def method_state(self) -> dict[str, Any]:
        """Sums behind the posteriors, by entry."""
        return {"sums": {entry: list(sums) for entry, sums in self._sums.items()}}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self._sums = {e: [s.clone() for s in sums] for e, sums in state["sums"].items()}
