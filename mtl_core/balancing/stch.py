"""Smooth Tchebycheff scalarisation."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from mtl_core.balancing.by_name import ByName, check_choice
from mtl_core.balancing.epoch_means import EpochMeans
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.preference import Preference
from mtl_core.balancing.stages import require_positive
from mtl_core.errors import ArgumentError


def stch_weights(losses: Tensor, preference: Tensor, ideal: Tensor, mu: float) -> Tensor:
    r"""Derivatives (T,) of :math:`\mu \log \sum_t \exp(\lambda_t (\ell_t - z^*_t) / \mu)`.

    Example:
        >>> import torch
        >>> half = torch.tensor([0.5, 0.5])
        >>> stch_weights(torch.tensor([1.0, 1.0]), half, torch.zeros(2), 0.1).tolist()
        [0.25, 0.25]
    """
    return preference * torch.softmax(preference * (losses - ideal) / mu, 0)


class STCH(LossBalancer):
    r"""A smooth maximum of the losses' distances from an ideal point.

    Lin et al., "Smooth Tchebycheff Scalarization for Multi-Objective Optimization", ICML 2024.

    ``form: paper`` minimises :math:`\mu \log \sum_t \exp(\lambda_t (\ell_t - z^*_t) / \mu)`. Small
    :math:`\mu` follow the worst task alone; large ones give weights :math:`\propto \lambda`. Losses
    of different units need preferences that make them comparable.

    ``form: nadir`` is the recipe of the paper's experiments on deep networks, as in LibMTL: the sum
    of logarithms for `warmup` epochs and one more, which also gives the nadir, its mean losses;
    then :math:`T \mu \log \sum_t \exp(\log(\ell_t / \mathrm{nadir}_t) / \mu)`. Here losses have to
    be positive and their units do not matter. With :math:`\mu = 1` it is
    :math:`T \log \sum_t \ell_t / \mathrm{nadir}_t`. Unlike in LibMTL the nadir is in the
    checkpoint, and a task first labelled later gets its own from its first epoch; until then it has
    the weight of the warm-up.

    The maximum is taken off before any exponential. Agrees with TorchJD's STCH in the paper's form.

    Args:
        form: ``paper`` or ``nadir``.
        mu: smoothing, positive; the paper tries 0.01, 0.1, 0.5 and 1.
        preference: positive relative :math:`\lambda` by name, normalised over the tasks present;
            ``paper`` only.
        ideal: :math:`z^*` by name, zero where not named; ``paper`` only.
        warmup: epochs before the one that gives the nadir; ``nadir`` only.
        scale: ``sum`` multiplies the paper's form by :math:`T^2`, so that the step agrees with the
            plain sum of the losses where they are equal; ``paper`` does not. No effect on
            ``nadir``, where the step depends on the losses as that of `SI` does.
        seed: unused; every balancer has one.
    """

    source = "Lin et al., ICML 2024"

    def __init__(
        self,
        *,
        form: Literal["paper", "nadir"] = "paper",
        mu: float = 1.0,
        preference: Mapping[str, float] | None = None,
        ideal: Mapping[str, float] | None = None,
        warmup: int = 4,
        scale: Literal["sum", "paper"] = "sum",
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        check_choice("form", form, ("paper", "nadir"))
        check_choice("scale", scale, ("sum", "paper"))
        if not 0 < mu < float("inf"):
            raise ArgumentError("mu", "be positive and finite", mu)
        if not warmup >= 0:
            raise ArgumentError("warmup", "not be negative", warmup)
        for name, value in {"preference": preference, "ideal": ideal}.items():
            if form == "nadir" and value:
                raise ArgumentError(name, "be empty with form: nadir", value)
        self.form = form
        self.mu = mu
        self.preference = Preference(preference)
        self.ideal = ByName("ideal", ideal, 0.0)
        self.warmup = warmup
        self.scale = scale
        self.history = EpochMeans(0, first=warmup)

    def reset(self, entries: int) -> None:
        """Check names against those of the run and forget the nadir."""
        self.preference.check(self.entries)
        self.ideal.check(self.entries)
        self.history = EpochMeans(entries, first=self.warmup)

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Weights (T,) of the gradients of the losses."""
        if self.form == "nadir":
            return self._by_nadir(losses, step)
        size = len(losses)
        preference = self.preference.of(step) / size
        weights = stch_weights(losses, preference, self.ideal.tensor(step), self.mu)
        return weights * size**2 if self.scale == "sum" else weights

    def _by_nadir(self, losses: Tensor, step: Step) -> Tensor:
        require_positive(losses, step, "logarithms of losses")
        nadir = self.history.finished(step.present, step.epoch)[2]
        slopes = torch.ones_like(losses)
        known = ~nadir.isnan()
        if bool(known.any()):
            logs = (losses[known] / nadir[known]).log()
            slopes[known] = torch.softmax(logs / self.mu, 0) * int(known.sum())
        return slopes / losses

    def advance(self, losses: Tensor, step: Step) -> None:
        """Add to the nadir in its epoch."""
        if self.form == "nadir":
            self.history.add(losses, step.present, step.epoch)

    def method_state(self) -> dict[str, Any]:
        """The nadir by entry."""
        return self.history.state()

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.history.load(state)
