r"""Gaussian posterior of a last linear layer, and what it makes of a loss's gradient.

Inputs are extended by a one where the layer has a bias: :math:`\tilde h` of E numbers. Outputs are
independent of each other, each with its own precision matrix :math:`\Lambda_c`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mtl_core.errors import BalancerError
from mtl_core.nn.parts import SharedNetwork

Losses = Callable[[Tensor], Tensor]
"""Loss of every element (K B, ...) from logits (K B, C) of the batch's samples K times over, zero
where there is no label."""

_CHUNK = 1 << 21


def extended(inputs: Tensor, *, bias: bool) -> Tensor:
    """Inputs (B, D), with a column of ones behind them where there is a bias."""
    wide = inputs.detach().float()
    return torch.cat([wide, torch.ones_like(wide[:, :1])], 1) if bias else wide


def curvature(losses: Losses, logits: Tensor) -> Tensor:
    """Second derivatives (B, C) of the summed loss by every logit alone, not negative."""
    with torch.enable_grad():
        wanted = logits.detach().float().requires_grad_()
        (slope,) = torch.autograd.grad(losses(wanted).sum(), wanted, create_graph=True)
        columns = []
        for c in range(wanted.shape[1]):
            if slope.requires_grad:
                (second,) = torch.autograd.grad(slope[:, c].sum(), wanted, retain_graph=True)
                columns.append(second[:, c])
            else:
                columns.append(torch.zeros_like(wanted[:, c]))
    return torch.stack(columns, 1).clamp_min(0)


def weighted_squares(inputs: Tensor, weights: Tensor) -> Tensor:
    r"""Sums :math:`\sum_b w_{bc} \tilde h_b \tilde h_b^\top`.

    Args:
        inputs: (B, E).
        weights: (B, C).

    Returns:
        (C, E, E).
    """
    return torch.stack([(inputs * w[:, None]).t() @ inputs for w in weights.unbind(1)])


def covariance_roots(precision: Tensor, prior: float) -> Tensor:
    r"""Roots :math:`U_c` with :math:`U_c U_c^\top = (\Lambda_c + \text{prior} \, I)^{-1}`.

    Args:
        precision: (C, E, E) positive semi-definite.
        prior: positive precision of the prior.

    Returns:
        (C, E, E) in the precision's type.
    """
    wide = precision.double()
    eye = torch.eye(wide.shape[-1], dtype=wide.dtype, device=wide.device)
    lower = torch.linalg.cholesky(wide + prior * eye)
    root = torch.linalg.solve_triangular(lower, eye.expand_as(lower), upper=False)
    found: Tensor = root.mT.to(precision.dtype)
    return found


def squared_error_moments(
    inputs: Tensor, targets: Tensor, known: Tensor, mean: Tensor, root: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    r"""Mean and variance of the gradient of squared errors by the layer's input, in closed form.

    With :math:`a = \tilde w \cdot \tilde h - y` and a weight :math:`w_d`, both Gaussian, the
    gradient :math:`2 a w_d` has mean :math:`2 (\bar a \mu_d + k_d)` and variance :math:`4 (\bar a^2
    \Sigma_{dd} + \mu_d^2 s + 2 \bar a \mu_d k_d + s \Sigma_{dd} + k_d^2)`, with :math:`s` the
    variance of a and :math:`k_d` its covariance with :math:`w_d` (Isserlis 1918).

    Args:
        inputs: (B, E).
        targets: (B, C).
        known: bool (B, C).
        mean: (C, E) of the weights.
        root: (C, E, E) see `covariance_roots`.
        size: D, without the bias.

    Returns:
        Two (B, D), summed over outputs.
    """
    along = torch.einsum("cef,be->bcf", root, inputs)
    spread = along.square().sum(-1)[..., None]
    cross = torch.einsum("cef,bcf->bce", root, along)[..., :size]
    variance = root.square().sum(-1)[:, :size]
    error = (inputs @ mean.t() - targets)[..., None]
    middle = mean[:, :size]
    first = 2 * (error * middle + cross)
    second = error.square() * variance + middle.square() * spread
    second = second + 2 * error * middle * cross + spread * variance + cross.square()
    mask = known[..., None].to(inputs.dtype)
    return (first * mask).sum(1), (4 * second * mask).sum(1)


def sampled_moments(
    inputs: Tensor,
    losses: Losses,
    mean: Tensor,
    root: Tensor,
    size: int,
    *,
    samples: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Mean and variance of the gradient of any loss by the layer's input, from sampled weights.

    Args:
        inputs: (B, E).
        losses: of the logits.
        mean: (C, E) of the weights.
        root: (C, E, E) see `covariance_roots`.
        size: D, without the bias.
        samples: at least 2.
        generator: on the inputs' device.

    Returns:
        Two (B, D).
    """
    first = torch.zeros(len(inputs), size, dtype=torch.float64, device=inputs.device)
    second = torch.zeros_like(first)
    drawn = torch.randn(samples, *mean.shape, generator=generator, device=mean.device)
    chunk = max(1, _CHUNK // (len(inputs) * max(size, len(mean))))
    for part in drawn.split(chunk):
        weights = mean + torch.einsum("cef,scf->sce", root, part)
        with torch.enable_grad():
            logits = (inputs @ weights.mT).flatten(0, 1).requires_grad_()
            (slope,) = torch.autograd.grad(losses(logits).sum(), logits)
        gradient = (slope.view(len(part), len(inputs), -1) @ weights[..., :size]).double()
        first += gradient.sum(0)
        second += gradient.square().sum(0)
    middle = first / samples
    spread = (second / samples - middle.square()).clamp_min(0)
    return middle.to(inputs.dtype), spread.to(inputs.dtype)


def precision_shares(variances: Tensor, known: Tensor, power: float) -> Tensor:
    """Shares of tasks in a precision-weighted mean, by sample and dimension.

    Args:
        variances: (T, B, D) not negative. Those below 1e-8 of the tasks' mean count as that much.
        known: bool (T, B), which samples are labelled.
        power: exponent of the variances, not negative.

    Returns:
        (T, B, D), sums of one over the tasks that know a sample.
    """
    mask = known[..., None].to(variances.dtype)
    mean = (variances * mask).sum(0) / mask.sum(0).clamp_min(1)
    relative = variances / torch.where(mean > 0, mean, 1.0)
    precision = relative.clamp_min(1e-8).pow(-power) * mask
    return precision / precision.sum(0).clamp_min(torch.finfo(precision.dtype).tiny)


def last_layers(network: SharedNetwork) -> dict[str, nn.Linear]:
    """Every task's decoder as the one linear layer that it is.

    Raises:
        BalancerError: a decoder holds anything else.
    """
    split, found = network.split_parameters(), {}
    modules = {id(p): m for _, m in network.named_modules() for p in m.parameters(recurse=False)}
    for task, parameters in split.own.items():
        owners = list({id(modules[id(p)]): modules[id(p)] for p in parameters}.values())
        if len(owners) != 1 or not isinstance(owners[0], nn.Linear):
            names = ", ".join(type(m).__name__ for m in owners) or "nothing that is trainable"
            raise BalancerError(
                f"BayesAgg needs decoders that are one linear layer; that of {task} holds {names}."
            )
        found[task] = owners[0]
    return found


def extended_weights(layer: nn.Linear) -> Tensor:
    """Weights (C, E), the bias behind them."""
    weight = layer.weight.detach().float()
    return weight if layer.bias is None else torch.cat([weight, layer.bias[:, None].detach()], 1)
