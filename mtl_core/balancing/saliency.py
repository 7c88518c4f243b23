"""What Rep-MTL penalises: entropy of task saliencies, and affinities far from their anchors.

Saliencies are gradients of losses by the shared features, S (T, B, C, N): T tasks, N positions.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_LARGEST = 1 << 26
"""Elements of a stack of Gramians above which it is computed in blocks, and again in backward."""
_NEVER = -1e30


def saliency_entropy(saliency: Tensor) -> Tensor:
    r"""Task-specific saliency regulation: mean entropy of the tasks' shares in a position.

    :math:`P_{t,i} = |\hat S_{t,i}| / \sum_k |\hat S_{k,i}|` for every sample and position i, with
    :math:`\hat S` the mean over channels (Wang et al. 2025). Positions without any saliency do not
    count.

    Args:
        saliency: (T, B, C, N).

    Returns:
        Scalar in [0, log T]; zero if no position counts.
    """
    sizes = saliency.mean(2).abs()
    total = sizes.sum(0)
    shares = sizes / (total + 1e-12)
    # The logarithm's slope at zero is infinite: a share of zero gets a finite gradient.
    entropy = -(shares * shares.clamp_min(1e-8).log()).sum(0)
    counts = (total > 0).to(entropy.dtype)
    return (entropy * counts).sum() / counts.sum().clamp_min(1)


def affinity_contrast(
    saliency: Tensor,
    *,
    temperature: float = 0.1,
    reduce: Literal["sum", "mean"] = "sum",
    max_anchors: int = 64,
) -> Tensor:
    r"""Cross-task saliency alignment: pulls a task's affinity to its sample's anchor.

    With the affinity :math:`M_t = S_t S_t^\top` of a sample, the anchor :math:`A A^\top` of a
    sample (A: positions' mean of the saliencies of all tasks, C by T) and the cosine of their
    entries as similarity, the mean over samples b of

    .. math:: -\log \frac{\sum_t \exp(\operatorname{sim}(a_b, m_b^t) / \tau)}
        {\sum_{k \ne b} \exp(\operatorname{sim}(a_b, a_k) / \tau)}

    (Wang et al. 2025). No C by C matrix is built: :math:`\langle S S^\top, A A^\top \rangle =
    \lVert A^\top S \rVert_F^2`. A task without saliency in a sample has no affinity there, a sample
    without any neither anchors nor counts.

    Args:
        saliency: (T, B, C, N).
        temperature: :math:`\tau`, positive.
        reduce: ``sum`` inside of the logarithm, or the ``mean`` of T logarithms.
        max_anchors: of a larger batch so many evenly spaced samples serve as negatives, and their
            sum is scaled up.

    Returns:
        Scalar; zero for one task or one sample.
    """
    tasks, samples = saliency.shape[:2]
    if tasks == 1 or samples == 1:
        return saliency.new_zeros(())
    # Cosines do not depend on the scale of either matrix, so each is first brought to order one.
    own, active = _unit(saliency, (2, 3))
    anchors, anchored = _unit(saliency.mean(3).permute(1, 2, 0), (1, 2))
    task_length = _lengths(own, active)
    length = _lengths(anchors, anchored)
    inner = torch.einsum("bcs,tbcn->tbsn", anchors, own).square().sum((2, 3))
    similar = inner / (task_length * length) / temperature
    known = active & anchored
    other, other_known = _negatives(anchors, length, anchored, temperature, max_anchors)
    counts = anchored & known.any(0) & other_known
    if reduce == "sum":
        pulled = similar.masked_fill(~known, _NEVER).logsumexp(0)
    else:
        pulled = (similar * known).sum(0) / known.sum(0).clamp_min(1)
    each = torch.where(counts, other - pulled, 0.0)
    return each.sum() / counts.sum().clamp_min(1)


def _unit(values: Tensor, dims: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Each matrix over its largest entry, and whether that is not zero."""
    largest = values.detach().abs().amax(dims, keepdim=True)
    some = largest > 0
    return values / torch.where(some, largest, 1.0), some.squeeze(dims)


def _lengths(values: Tensor, some: Tensor) -> Tensor:
    r"""Frobenius norms of :math:`X X^\top` for X (..., C, N); one where X is zero."""
    squares = _gram_squares(values)
    return torch.where(some, squares, 1.0).sqrt()


def _gram_squares(values: Tensor) -> Tensor:
    """Sums of squares of the smaller Gramian, in blocks where all are too large to be kept."""
    rows = values if values.shape[-2] <= values.shape[-1] else values.mT
    size = rows.shape[-2]
    if size == 1:
        return rows.square().sum((-2, -1)).square()
    stack = rows.numel() // max(1, rows.shape[-1]) * size
    if stack <= _LARGEST:
        return _block_squares(rows, rows)
    total = rows.new_zeros(rows.shape[:-2])
    for part in rows.split(max(1, size * _LARGEST // stack), dim=-2):
        block = checkpoint(
            _block_squares, part, rows, use_reentrant=False, preserve_rng_state=False
        )
        assert isinstance(block, Tensor)
        total = total + block
    return total


def _block_squares(part: Tensor, rows: Tensor) -> Tensor:
    return (part @ rows.mT).square().sum((-2, -1))


def _negatives(
    anchors: Tensor, length: Tensor, anchored: Tensor, temperature: float, most: int
) -> tuple[Tensor, Tensor]:
    """Log sum over other samples' anchors (B,), and which samples have such."""
    samples, channels, tasks = anchors.shape
    picked = torch.arange(samples, device=anchors.device)
    if samples > most:
        picked = torch.linspace(0, samples - 1, most, device=anchors.device).long()
    flat = anchors.mT.reshape(samples * tasks, channels)
    chosen = anchors[picked].mT.reshape(len(picked) * tasks, channels)
    inner = (flat @ chosen.t()).square().view(samples, tasks, len(picked), tasks).sum((1, 3))
    similar = inner / (length[:, None] * length[picked]) / temperature
    others = picked != torch.arange(samples, device=anchors.device)[:, None]
    usable = others & anchored[picked]
    used = usable.sum(1)
    total = anchored.sum() - anchored.long()
    scale = (total.clamp_min(1) / used.clamp_min(1)).to(similar.dtype).log()
    return similar.masked_fill(~usable, _NEVER).logsumexp(1) + scale, used > 0
