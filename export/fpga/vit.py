"""A routed ViT as plain arrays, and its forward pass in float64 with the range of every tensor."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from export.fpga.formats import Floats, Ints


@dataclass(frozen=True)
class Dense:
    """A linear layer, weight (out, in), bias (out,); a bank of experts (E, out, in), (E, out)."""

    weight: Floats
    bias: Floats

    def __call__(self, x: Floats) -> Floats:
        """Outputs x W' + b."""
        return np.asarray(x @ self.weight.T + self.bias, dtype=np.float64)


@dataclass(frozen=True)
class LayerNorm:
    """Weight (D,), bias (D,), eps."""

    weight: Floats
    bias: Floats
    eps: float

    def __call__(self, x: Floats) -> Floats:
        """Over the last axis."""
        centred = x - x.mean(-1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self.eps)
        return np.asarray(unit * self.weight + self.bias, dtype=np.float64)


@dataclass(frozen=True)
class MLP:
    """Two layers with GELU between."""

    first: Dense
    second: Dense


@dataclass(frozen=True)
class Mixture:
    """A layer of experts.

    Args:
        gates: a router by task, D to E.
        top_k: K experts a token.
        renormalised: gates are a softmax over the chosen experts, not over all.
        ahead: routers see the block's input.
        first: D to hidden, of all experts.
        second: hidden to D, of all experts.
    """

    gates: dict[str, Dense]
    top_k: int
    renormalised: bool
    ahead: bool
    first: Dense
    second: Dense

    @property
    def experts(self) -> int:
        """E."""
        return len(self.first.weight)


@dataclass(frozen=True)
class Block:
    """A pre-norm transformer block; scales of its residuals are part of its weights."""

    norm1: LayerNorm
    heads: int
    query: Dense
    key: Dense
    value: Dense
    project: Dense
    norm2: LayerNorm
    feed: MLP | Mixture


@dataclass(frozen=True)
class ViT:
    """A plain ViT without heads.

    Args:
        image: (channels, height, width).
        patch: (height, width) of a patch.
        embed: pixels 0..255 of a patch, channels first, to D; mean, standard deviation inside.
        prefix: (P, D) class and register tokens, with their position embedding.
        position: (patches, D).
        blocks: in order.
        norm: the final one.
    """

    image: tuple[int, int, int]
    patch: tuple[int, int]
    embed: Dense
    prefix: Floats
    position: Floats
    blocks: tuple[Block, ...]
    norm: LayerNorm

    @property
    def dim(self) -> int:
        """D."""
        return int(self.position.shape[1])

    @property
    def tokens(self) -> int:
        """N, prefix tokens included."""
        return len(self.prefix) + len(self.position)

    @property
    def mixtures(self) -> list[Mixture]:
        """Layers of experts, in order."""
        return [b.feed for b in self.blocks if isinstance(b.feed, Mixture)]


@dataclass
class Ranges:
    """Greatest absolute value of every tensor that has been seen, and queues of experts."""

    largest: dict[str, float] = field(default_factory=dict)
    queues: dict[str, list[NDArray[np.int64]]] = field(default_factory=dict)

    def see_part(self, layer: str, name: str, x: Floats) -> Floats:
        """A tensor of a layer."""
        return self.see(f"{layer}.{name}", x)

    def see(self, name: str, x: Floats) -> Floats:
        """Take note of a tensor and hand it back."""
        self.largest[name] = max(self.largest.get(name, 0.0), float(np.abs(x).max(initial=0.0)))
        return x


def patches(images: NDArray[Any], patch: tuple[int, int]) -> Ints:
    """Pixels (B, patches, C · h · w) of uint8 images (B, C, H, W), patches row by row."""
    b, c, height, width = images.shape
    h, w = patch
    cut = images.reshape(b, c, height // h, h, width // w, w).transpose(0, 2, 4, 1, 3, 5)
    return cut.reshape(b, -1, c * h * w).astype(np.int64)


def gelu(x: Floats) -> Floats:
    """The exact GELU, x Φ(x)."""
    return np.asarray(0.5 * x * (1 + erf(x / np.sqrt(2))), dtype=np.float64)


def softmax(x: Floats) -> Floats:
    """Over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True), dtype=np.float64)


def route(x: Floats, layer: Mixture, task: str) -> tuple[Ints, Floats]:
    """Experts (N, K) of tokens, best first, and their gates."""
    logits = layer.gates[task](x)
    chosen = np.argsort(-logits, axis=-1, kind="stable")[:, : layer.top_k]
    best = np.take_along_axis(logits, chosen, -1)
    gates = softmax(best) if layer.renormalised else np.take_along_axis(softmax(logits), chosen, -1)
    return chosen.astype(np.int64), gates


def mixture(
    x: Floats, seen: Floats, layer: Mixture, task: str, see: Callable[[str, Floats], Floats]
) -> tuple[Floats, Ints]:
    """Sum of gates times experts, and the experts (N, K) of each token."""
    chosen, gates = route(seen, layer, task)
    out = np.zeros_like(x)
    for e in range(layer.experts):
        token, slot = np.nonzero(chosen == e)
        if len(token):
            hidden = see("hidden", x[token] @ layer.first.weight[e].T + layer.first.bias[e])
            active = see("active", gelu(hidden))
            y = see("expert", active @ layer.second.weight[e].T + layer.second.bias[e])
            out[token] += gates[token, slot][:, None] * y
    return out, chosen


def forward(
    pixels: Ints, vit: ViT, task: str, ranges: Ranges | None = None
) -> tuple[Floats, list[Ints]]:
    """Final tokens (N, D) of one image (patches, C · h · w), and the routing of its layers."""
    noted = Ranges() if ranges is None else ranges
    see = noted.see
    embedded = vit.embed(pixels.astype(np.float64)) + vit.position
    x = see("stream", np.concatenate([vit.prefix, embedded]))
    routes: list[Ints] = []
    for i, block in enumerate(vit.blocks):
        name = f"blocks.{i}"
        before = x
        inner = see(f"{name}.norm1", block.norm1(x))
        context = see(f"{name}.context", _attend(inner, block, name, see))
        x = see(f"{name}.attended", x + block.project(context))
        inner = see(f"{name}.norm2", block.norm2(x))
        if isinstance(block.feed, MLP):
            hidden = see(f"{name}.hidden", block.feed.first(inner))
            active = see(f"{name}.active", gelu(hidden))
            x = x + block.feed.second(active)
        else:
            seen = before if block.feed.ahead else inner
            y, chosen = mixture(inner, seen, block.feed, task, partial(noted.see_part, name))
            x = x + y
            routes.append(chosen)
            count = np.bincount(chosen.ravel(), minlength=block.feed.experts)
            noted.queues.setdefault(f"{name}.{task}", []).append(count)
        x = see(f"{name}.stream", x)
    return see("norm", vit.norm(x)), routes


def _attend(x: Floats, block: Block, name: str, see: Callable[[str, Floats], Floats]) -> Floats:
    parts = []
    for key, layer in (("query", block.query), ("key", block.key), ("value", block.value)):
        y = see(f"{name}.{key}", layer(x))
        parts.append(y.reshape(len(x), block.heads, -1).transpose(1, 0, 2))
    q, k, v = parts
    p = softmax(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]))
    return np.asarray((p @ v).transpose(1, 0, 2).reshape(x.shape), dtype=np.float64)
