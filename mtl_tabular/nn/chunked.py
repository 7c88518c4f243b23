"""Two operations on many short rows, computed on a CPU in pieces that stay in its cache.

A table's batch is thousands of rows of a few dozen narrow tokens. The intermediate results,
attention scores and hidden activations, are then many times larger than inputs and outputs, and
plain operations spend their time on writing them to memory and reading them back. Here they are
made piece by piece, used while they are in the cache, and made again in the backward pass (which
also keeps peak memory low). Results equal the plain operations up to rounding.

Elsewhere (other devices and types, autocast, compilation, export, `torch.func`) the plain
operations run: fused kernels exist there, or are made by the compiler.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_FLOATS = 1 << 19
"""Size of the largest piece: 2 MiB of float32, which a common core's caches hold."""

_SAFE_SCORE = 60.0
"""Up to it, sums of exponentials of scores neither overflow nor vanish in float32."""


def self_attention(
    x: Tensor,
    w_in: Tensor,
    b_in: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    *,
    heads: int,
    readers: int,
    blocked: Tensor | None = None,
) -> Tensor:
    """Multi-head attention among the tokens of every row, with its four projections.

    Args:
        x: (B, N, D) tokens.
        w_in: (3 D, D) weights of queries, keys and values, in this order.
        b_in: (3 D,).
        w_out: (D, D).
        b_out: (D,).
        heads: divides D; a head's entries are adjacent.
        readers: M, how many of the first tokens read; the others are only read.
        blocked: optional (M, N) bool, True where a token must not read another. Every reader has
            to read at least one.

    Returns:
        (B, M, D).
    """
    if _suits(x, w_in, b_in, w_out, b_out):
        out: Tensor = _Attention.apply(x, w_in, b_in, w_out, b_out, heads, readers, blocked)
        return out
    return plain_attention(x, w_in, b_in, w_out, b_out, heads, readers, blocked)


def feed_forward(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """``GELU(x w1ᵀ + b1) w2ᵀ + b2`` with the exact GELU.

    Args:
        x: (..., D).
        w1: (F, D).
        b1: (F,).
        w2: (C, F).
        b2: (C,).

    Returns:
        (..., C).
    """
    # Results narrower than the inputs are not what fills memory.
    if w1.shape[0] > w1.shape[1] and _suits(x, w1, b1, w2, b2):
        out: Tensor = _FeedForward.apply(x.reshape(-1, x.shape[-1]), w1, b1, w2, b2)
        return out.view(*x.shape[:-1], w2.shape[0])
    return plain_feed_forward(x, w1, b1, w2, b2)


def _suits(*tensors: Tensor) -> bool:
    """Whether the pieces are of use, and possible."""
    return (
        all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
    )


def plain_attention(
    x: Tensor,
    w_in: Tensor,
    b_in: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    heads: int,
    readers: int,
    blocked: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """What `self_attention` computes, by plain operations; `dropout` is that of the weights."""
    q, k, v = (
        part.unflatten(-1, (heads, -1)).transpose(1, 2)
        for part in F.linear(x, w_in, b_in).chunk(3, -1)
    )
    allowed = None if blocked is None else ~blocked
    out = F.scaled_dot_product_attention(q[:, :, :readers], k, v, allowed, dropout)
    return F.linear(out.transpose(1, 2).flatten(2), w_out, b_out)


def plain_feed_forward(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, dropout: float = 0.0
) -> Tensor:
    """What `feed_forward` computes, by plain operations; `dropout` is that of the hidden layer."""
    return F.linear(F.dropout(F.gelu(F.linear(x, w1, b1)), dropout), w2, b2)


class _Attention(torch.autograd.Function):
    """Softmax attention that saves its input, the heads' outputs O and the log of the normaliser.

    With L that logarithm and δ = (dO · O), a piece's backward is P = exp(q kᵀ − L),
    dV = Pᵀ dO, dS = P ∘ (dO Vᵀ − δ), dQ = dS k, dK = dSᵀ q (Dao et al. 2022, FlashAttention,
    appendix B). Here tokens are the last axis, so that everything runs along them, and scores are
    (keys, queries). What is added to a product rides along as one more row of its factors: the
    biases, −L, −δ; the normaliser is a product with a row of ones. Scores are so written once and
    passed over once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w_in: Tensor,
        b_in: Tensor,
        w_out: Tensor,
        b_out: Tensor,
        heads: int,
        readers: int,
        blocked: Tensor | None,
    ) -> Tensor:
        B, N, D = x.shape
        weight = _scaled(w_in, b_in, heads)
        # Keys come first here; the mask is (readers, keys).
        ctx.blocked = None if blocked is None else blocked.t()
        ctx.heads, ctx.readers = heads, readers
        out = x.new_empty(B, readers, D)
        mixed = x.new_empty(B, D, readers)
        log_sum = x.new_empty(B * heads, 1, readers)
        for rows in _pieces(B, heads * readers * N):
            q, k, v = _project(x[rows], weight, heads, readers)
            scores = _scores(q, k, ctx.blocked)
            shift = _shift(q, k, scores)
            weights = scores.exp_() if shift is None else scores.sub_(shift).exp_()
            summed = torch.bmm(_with_ones(v), weights)
            total = summed[:, -1:]
            mixed[rows] = (summed[:, :-1] / total).view(-1, D, readers)
            log_sum[rows.start * heads : rows.stop * heads] = (
                total.log() if shift is None else total.log() + shift
            )
            torch.matmul(mixed[rows].transpose(1, 2), w_out.t(), out=out[rows])
        ctx.save_for_backward(x, w_in, b_in, w_out, b_out, mixed, log_sum)
        return out.add_(b_out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, w_in, b_in, w_out, b_out, mixed, log_sum = ctx.saved_tensors
        heads, readers, grad = ctx.heads, ctx.readers, grads[0]
        if torch.is_grad_enabled():
            mask = None if ctx.blocked is None else ctx.blocked.t()
            inputs = (x, w_in, b_in, w_out, b_out)
            again = plain_attention(*inputs, heads, readers, mask)
            return (*_double(inputs, ctx, again, grad), None, None, None)
        B, N, D = x.shape
        weight = _scaled(w_in, b_in, heads)
        dx = torch.empty_like(x)
        dw, dw_out = torch.zeros_like(weight), torch.zeros_like(w_out)
        slopes_in = x.new_zeros(0)
        for rows in _pieces(B, heads * readers * N):
            q, k, v = _project(x[rows], weight, heads, readers)
            dw_out.addmm_(grad[rows].reshape(-1, D).t(), mixed[rows].transpose(1, 2).reshape(-1, D))
            outer = torch.matmul(w_out.t(), grad[rows].transpose(1, 2)).view_as(q)
            delta = (outer * mixed[rows].view_as(q)).sum(1, keepdim=True)
            minus = -log_sum[rows.start * heads : rows.stop * heads]
            weights = _scores(torch.cat([q, minus], 1), _with_ones(k), ctx.blocked).exp_()
            slopes = torch.bmm(_with_ones(v).transpose(1, 2), torch.cat([outer, -delta], 1))
            slopes.mul_(weights)
            slopes_in = _reuse(slopes_in, (q.shape[0] // heads, 3, heads, D // heads, N), x)
            into = slopes_in.unbind(1)
            _put(into[0][..., :readers], torch.bmm(k, slopes))
            _put(into[1], torch.bmm(q, slopes.transpose(1, 2)))
            _put(into[2], torch.bmm(outer, weights.transpose(1, 2)))
            back = slopes_in.view(-1, 3 * D, N)
            dw.add_(torch.bmm(back, _with_ones(x[rows], -1)).sum(0))
            torch.matmul(back.transpose(1, 2), weight[:, :-1], out=dx[rows])
        dw[:D].mul_((D // heads) ** -0.5)
        return dx, dw[:, :-1], dw[:, -1], dw_out, grad.sum((0, 1)), None, None, None


class _FeedForward(torch.autograd.Function):
    """Two linear maps with a GELU between that save their input only.

    A column of ones in the input stands for the first bias; buffers serve all pieces.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        out = x.new_empty(x.shape[0], w2.shape[0])
        weight = _with_bias(w1, b1)
        pieces = _pieces(x.shape[0], 2 * w1.shape[0])
        buffers = _Buffers(x, pieces, w1.shape, 1)
        for rows in pieces:
            ones, hidden = buffers.load(x[rows])
            torch.mm(ones, weight.t(), out=hidden)
            torch.mm(torch.ops.aten.gelu_(hidden), w2.t(), out=out[rows]).add_(b2)
        ctx.save_for_backward(x, w1, b1, w2, b2)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, b1, w2, b2 = ctx.saved_tensors
        grad = grads[0]
        if torch.is_grad_enabled():
            return _double((x, w1, b1, w2, b2), ctx, plain_feed_forward(x, w1, b1, w2, b2), grad)
        dx = torch.empty_like(x)
        weight = _with_bias(w1, b1)
        dw1, dw2 = torch.zeros_like(weight), torch.zeros_like(w2)
        pieces = _pieces(x.shape[0], 2 * w1.shape[0])
        buffers = _Buffers(x, pieces, w1.shape, 3)
        for rows in pieces:
            ones, hidden, active, slopes = buffers.load(x[rows])
            torch.mm(ones, weight.t(), out=hidden)
            torch.ops.aten.gelu.out(hidden, out=active)
            dw2.addmm_(grad[rows].t(), active)
            torch.mm(grad[rows], w2, out=active)
            torch.ops.aten.gelu_backward.grad_input(active, hidden, grad_input=slopes)
            dw1.addmm_(slopes.t(), ones)
            torch.mm(slopes, w1, out=dx[rows])
        return dx, dw1[:, :-1], dw1[:, -1], dw2, grad.sum(0)


class _Buffers:
    """Memory for a piece: its input beside a column of ones, and `count` hidden results."""

    def __init__(self, x: Tensor, pieces: list[slice], shape: torch.Size, count: int) -> None:
        hidden, width = shape
        rows = min(x.shape[0], pieces[0].stop) if pieces else 0
        self.ones = x.new_ones(rows, width + 1)
        self.hidden = [x.new_empty(rows, hidden) for _ in range(count)]

    def load(self, x: Tensor) -> list[Tensor]:
        """Views for a piece `x`, which is copied beside the ones."""
        rows = len(x)
        self.ones[:rows, :-1].copy_(x)
        return [self.ones[:rows], *(h[:rows] for h in self.hidden)]


def _with_bias(weight: Tensor, bias: Tensor) -> Tensor:
    return torch.cat([weight, bias[:, None]], 1)


def _pieces(rows: int, floats: int) -> list[slice]:
    """Ranges of rows whose intermediate result, `floats` numbers a row, fits the cache."""
    step = max(1, _FLOATS // max(1, floats))
    return [slice(start, start + step) for start in range(0, rows, step)]


def _scaled(w_in: Tensor, b_in: Tensor, heads: int) -> Tensor:
    """Weights and biases of the projections, (3 D, D + 1), queries by 1 / √(D / heads)."""
    weight = _with_bias(w_in, b_in)
    D = w_in.shape[1]
    weight[:D].mul_((D // heads) ** -0.5)
    return weight


def _project(x: Tensor, weight: Tensor, heads: int, readers: int) -> tuple[Tensor, ...]:
    """Queries (B · heads, D / heads, M), keys and values (B · heads, D / heads, N)."""
    B, N, D = x.shape
    along = _with_ones(x.transpose(1, 2))
    projected = torch.bmm(weight.expand(B, -1, -1), along).view(B, 3, heads, D // heads, N)
    q, k, v = projected.unbind(1)
    return q[..., :readers].flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)


def _scores(q: Tensor, k: Tensor, blocked: Tensor | None) -> Tensor:
    scores = torch.bmm(k.transpose(1, 2), q)
    return scores if blocked is None else scores.masked_fill_(blocked, -torch.inf)


def _shift(q: Tensor, k: Tensor, scores: Tensor) -> Tensor | None:
    """What to subtract before exponentials: nothing as long as large scores are ruled out."""
    if float(q.abs().max() * k.abs().max()) * q.shape[1] < _SAFE_SCORE:
        return None
    return scores.amax(1, keepdim=True)


def _with_ones(x: Tensor, axis: int = 1) -> Tensor:
    return torch.cat([x, torch.ones_like(x.narrow(axis, 0, 1))], axis)


def _put(target: Tensor, x: Tensor) -> None:
    """Write (B · heads, ...) into (B, heads, ...)."""
    target.copy_(x.view(target.shape))


def _reuse(buffer: Tensor, shape: tuple[int, ...], like: Tensor) -> Tensor:
    return buffer if buffer.shape == shape else like.new_zeros(shape)


def _double(
    inputs: tuple[Tensor, ...], ctx: Any, out: Tensor, grad: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients that can be differentiated again, through the plain operations."""
    wanted = [t for t, need in zip(inputs, ctx.needs_input_grad, strict=False) if need]
    found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
    return tuple(next(found) if need else None for need in ctx.needs_input_grad[: len(inputs)])
