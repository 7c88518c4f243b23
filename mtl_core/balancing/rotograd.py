"""Gradients homogenised in direction, by learned rotations, and in length."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from mtl_core.balancing.base import Balanceable
from mtl_core.balancing.border import Merged
from mtl_core.balancing.feature import FeatureBalancer
from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.ranks import sum_over_ranks
from mtl_core.balancing.rows import combine
from mtl_core.errors import ArgumentError, BalancerError
from mtl_core.nn.features import Features
from mtl_core.nn.rotated import Rotated, channel_axis, rotations


def rotation_gradient(angles: Tensor, correlation: Tensor) -> Tensor:
    r"""Gradient by the angles of :math:`\sum_b \lVert R v_b - \tilde g_b \rVert^2`.

    R is orthogonal, so that only :math:`-2 \langle R, \sum_b \tilde g_b v_b^\top \rangle` of it
    depends on the angles.

    Args:
        angles: (..., k (k - 1) / 2).
        correlation: the sum, (..., k, k).
    """
    with torch.enable_grad():
        wanted = angles.detach().requires_grad_()
        objective = -2 * (rotations(wanted, correlation.shape[-1]) * correlation).sum()
        (found,) = torch.autograd.grad(objective, wanted)
    return found


def homogeneous_weights(norms: Tensor, initial: Tensor) -> Tensor:
    r"""Weights that bring all gradients to the length :math:`\sum_s \alpha_s n_s`.

    :math:`\alpha = c / \sum_s c_s` with the ratios :math:`c_t = n_t / n_t(0)` (Javaloy and Valera,
    eq. 7 and 8): tasks whose gradients shrank less count for more.

    Args:
        norms: :math:`n`, (T,) positive.
        initial: :math:`n(0)`, (T,) positive.
    """
    ratios = norms / initial
    length = (ratios / ratios.sum()) @ norms
    return length / norms


class RotoGrad(FeatureBalancer):
    r"""Rotates the features in front of every decoder until the tasks' gradients agree.

    Javaloy and Valera, "RotoGrad: Gradient Homogenization in Multitask Learning", ICLR 2022, after
    the authors' code (adrianjav/rotograd). Needs a network wrapped in `mtl_core.nn.Rotated`.
    With :math:`g_t` the gradient by the features and :math:`\tilde g_t = R_t g_t` that by the
    rotated ones, the reference is the mean :math:`v` of all :math:`g_t` brought to the length of
    their mean, and :math:`R_t` follows

    .. math:: \min_{R_t} \operatorname{mean}_b \lVert R_t v_b - \tilde g_{t,b} \rVert^2

    by one step a window of an Adam of its own, which should be slower than the model's. The trunk
    gets the sum of the :math:`g_t` at equal length (`homogeneous_weights`), walked once; lengths of
    reference are taken at a task's first update and once more after `burn_in` updates.

    The objective is divided by the lengths of :math:`v` and :math:`g_t`, so that the optimiser's
    epsilon plays no part; its minimum is where it was. Rotations are buffers of the network, the
    state of their optimiser is kept here. Decoders are not weighted, as published. Degree one in
    the scale of the gradients; once lengths of reference were taken, the scale of one loss changes
    the update's length only. Gradients of a common direction and length add up to the plain sum. A
    task without gradient is left out. Neither LibMTL nor TorchJD has it.

    Args:
        lr: learning rate of the rotations, positive; smaller than the model's, as the authors
            advise.
        burn_in: updates after which the lengths of reference are retaken, not negative; 20 in the
            authors' code.
        homogenise: bring lengths together too; without it only directions are (the authors'
            RotateOnly) and the trunk gets the plain sum.
        weight_decoders: multiply decoder gradients by the weights.
        seed: unused; every balancer has one.
    """

    source = "Javaloy and Valera, ICLR 2022"
    keeps = "moments of the rotations, 2T numbers"

    def __init__(
        self,
        *,
        lr: float = 1e-4,
        burn_in: int = 20,
        homogenise: bool = True,
        weight_decoders: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(weight_decoders=weight_decoders, seed=seed)
        if not lr > 0:
            raise ArgumentError("lr", "be positive", lr)
        if burn_in < 0:
            raise ArgumentError("burn_in", "not be negative", burn_in)
        self.lr = lr
        self.burn_in = burn_in
        self.homogenise = homogenise
        self.reset(0)

    def reset(self, entries: int) -> None:
        """No lengths of reference, no moments."""
        self._initial = torch.full((entries,), torch.nan, dtype=torch.float64)
        self._count = torch.zeros(entries, dtype=torch.float64)
        self._moments: list[Tensor] = []
        self._steps = torch.zeros(0, dtype=torch.float64)
        self._norms: dict[int, float] = {}
        self._correlation: Tensor | None = None
        self._turned: set[int] = set()
        self._network: Rotated | None = None
        self._undo: Tensor | None = None
        self._border: Features | None = None

    def check(self, trainer: L.Trainer, module: L.LightningModule) -> Balanceable:
        """Refuse networks without rotations too."""
        checked = super().check(trainer, module)
        self._rotated(checked)
        return checked

    def _rotated(self, module: Balanceable) -> Rotated:
        if not isinstance(module.network, Rotated):
            raise BalancerError(
                "RotoGrad trains rotations of the features, which "
                f"{type(module.network).__name__} does not have. Wrap it: "
                "mtl_core.nn.Rotated with network: and latent_size:."
            )
        return module.network

    def collect(
        self,
        module: Balanceable,
        step: TaskLosses,
        scaled: Tensor,
        means: dict[str, float],
        shares: dict[str, float],
    ) -> None:
        """Likewise, with the border's shapes at hand."""
        self._network, self._border = self._rotated(module), step.features
        super().collect(module, step, scaled, means, shares)
        self._border = None

    def merge(self, rows: Tensor, losses: Tensor, step: Step) -> Merged:
        """Sum at equal length; what the rotations will learn from is taken down."""
        inner = self.inner(rows)
        norms = inner.diagonal().sqrt()
        alive = norms > 0
        weights = torch.ones_like(norms)
        if not bool(alive.any()):
            return Merged(rows.sum(0), weights)
        at = step.present
        known = self._initial[at]
        known = torch.where(known.isnan() | (self._count[at] == self.burn_in), norms, known)
        if self.homogenise:
            weights[alive] = homogeneous_weights(norms[alive], known[alive])
        self._norms.update(zip(at[alive].tolist(), norms[alive].tolist(), strict=True))
        self._correlate(rows, inner, norms, step)
        return Merged(combine(rows, weights), weights)

    def _correlate(self, rows: Tensor, inner: Tensor, norms: Tensor, step: Step) -> None:
        r"""Add :math:`\sum_b \tilde g_b v_b^\top`, both of unit length, by task and tensor."""
        network, border = self._network, self._border
        if network is None or border is None:  # plain rows, without any network
            return
        alive = norms > 0
        mean = float(inner[alive][:, alive].sum().clamp_min(0).sqrt()) / int(alive.sum())
        shares = torch.where(alive, mean / norms.clamp_min(1e-300), 0.0) / int(alive.sum())
        length = float((shares @ inner @ shares).clamp_min(0).sqrt())
        # Where the gradients cancel, the reference is rounding noise.
        if not length > 1e-6 * float((shares * norms).norm()):
            return
        reference = combine(rows, shares / length)
        if self._correlation is None:
            self._correlation = torch.zeros_like(network.rotation, dtype=torch.float32)
        tasks = list(network.tasks)
        sizes = [t.numel() for t in border.tensors()]
        parts = list(zip(border.tensors(), reference.split(sizes), strict=True))
        for i, entry in enumerate(step.entries):
            if not bool(alive[i]):
                continue
            task = tasks.index(entry.partition("/")[0])
            self._turned.add(task)
            for m, ((tensor, wanted), row) in enumerate(
                zip(parts, rows[i].split(sizes), strict=True)
            ):
                axis, size = channel_axis(border, m), network.latent_size
                gradient = _channels(row.view(tensor.shape), axis, size) / float(norms[i])
                target = _channels(wanted.view(tensor.shape), axis, size)
                turn = network.rotation[task, m].float()
                self._correlation[task, m] += turn @ (gradient @ target.t())

    def finish(self, module: Balanceable, losses: Tensor, step: Step) -> None:
        """Average gradients over ranks, then turn the rotations of the tasks present."""
        super().finish(module, losses, step)
        norms, self._norms = self._norms, {}
        found, self._correlation = self._correlation, None
        turned, self._turned = sorted(self._turned), set()
        for at, norm in norms.items():
            if bool(self._initial[at].isnan()) or float(self._count[at]) == self.burn_in:
                self._initial[at] = norm
            self._count[at] += 1
        if found is None or self._network is None:
            return
        self._turn(self._network, sum_over_ranks(found), torch.tensor(turned))

    def _turn(self, network: Rotated, correlation: Tensor, at: Tensor) -> None:
        """One step of Adam (0.9, 0.999) of the angles of tasks (P,)."""
        angles = network.angles.float().clone()
        self._undo = network.angles.clone() if self.has_scaler() else None
        if not self._moments:
            self._moments = [torch.zeros_like(angles), torch.zeros_like(angles)]
            self._steps = torch.zeros(len(angles), dtype=torch.float64)
        self._moments = [m.to(angles.device) for m in self._moments]
        self._steps[at] += 1
        where = at.to(angles.device)
        gradient = rotation_gradient(angles[where], correlation[where])
        first = self._moments[0][where] * 0.9 + gradient * 0.1
        second = self._moments[1][where] * 0.999 + gradient.square() * 0.001
        self._moments[0][where], self._moments[1][where] = first, second
        count = self._steps[at].to(angles)[:, None, None]
        unbiased, spread = first / (1 - 0.9**count), (second / (1 - 0.999**count)).sqrt()
        angles[where] -= self.lr * unbiased / (spread + 1e-8)
        network.turn(angles)

    def settle(self) -> None:
        """Turn back too if the loss scaler dropped the step."""
        before = self._before
        super().settle()
        dropped = before is not None and self.loss_scale() < before[0]
        if dropped and self._undo is not None and self._network is not None:
            self._network.turn(self._undo)
        self._undo = None

    def method_state(self) -> dict[str, Any]:
        """Lengths of reference, counts, and moments of the rotations."""
        return {
            "initial": self._initial,
            "count": self._count,
            "moments": list(self._moments),
            "steps": self._steps,
        }

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self._initial, self._count = state["initial"].clone(), state["count"].clone()
        self._moments = [m.clone() for m in state["moments"]]
        self._steps = state["steps"].clone()


def _channels(tensor: Tensor, axis: int, size: int) -> Tensor:
    """The first channels as rows (k, everything else), float32."""
    return tensor.movedim(axis, 0)[:size].flatten(1).float()
