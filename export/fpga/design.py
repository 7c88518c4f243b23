"""From a ViT in floats and the ranges of its tensors to an encoder in integers."""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from export.fpga import vit as floats
from export.fpga.formats import Floats, Format, FormatError, Ints, fit, literal, sum_bits
from export.fpga.integer import norm as norms
from export.fpga.integer import softmax as softmaxes
from export.fpga.integer.attention import Attention
from export.fpga.integer.encoder import Block, Encoder, Perceptron
from export.fpga.integer.linear import Linear
from export.fpga.integer.moe import Gelu, Mixture, combine_point
from export.fpga.integer.norm import Norm
from export.fpga.tables import GELU_STEPS
from mtl_core.errors import ArgumentError

Rounding: TypeAlias = Literal["nearest", "truncate"]
FACTOR = Format(21, softmaxes.FACTOR_POINT, signed=False)
PIXEL = Format(8, 0, signed=False)


@dataclass(frozen=True)
class Widths:
    """Bits of a design.

    Args:
        activations: W of tensors, biases, norms.
        weights: W of matrices, at most 16.
        activation_integer: I of all tensors; None: by each one's range.
        weight_integer: likewise of matrices.
        margin: how much larger than seen a tensor may become.
        rounding: of matrices and biases; ``truncate`` shows what ``ap_fixed`` does by default.

    Raises:
        ArgumentError: a width that the kernels do not take.
    """

    activations: int = 18
    weights: int = 12
    activation_integer: int | None = None
    weight_integer: int | None = None
    margin: float = 2.0
    rounding: Rounding = "nearest"

    def __post_init__(self) -> None:
        """Check them."""
        if not 8 <= self.activations <= 32:
            raise ArgumentError("activations", "have 8 to 32 bits", self.activations)
        if not 4 <= self.weights <= 16:
            raise ArgumentError("weights", "have 4 to 16 bits", self.weights)

    @property
    def router(self) -> int:
        """W of routers: up to 16, which narrower engines take as two halves of each weight."""
        return min(16, 2 * self.weights - 1) if self.weights < 16 else self.weights

    @property
    def stored(self) -> int:
        """Bits of a weight in memory: 8 or 16."""
        return 8 if self.weights <= 8 else 16


@dataclass
class Quantizer:
    """Finds formats and rounds; keeps a record of each.

    Args:
        widths: bits.
        largest: of every activation by name.
    """

    widths: Widths
    largest: dict[str, float]
    formats: dict[str, dict[str, Any]] = field(default_factory=dict)
    sums: int = 32

    def activation(self, name: str) -> Format:
        """Format of a tensor, by its observed range times the margin."""
        w, seen = self.widths, self.largest[name]
        if w.activation_integer is not None:
            held = Format(w.activations, w.activations - w.activation_integer)
            if held.round(seen) >= held.limits[1]:
                raise FormatError(f"{name} reaches {seen:g} and overflows {held}: give it auto.")
        else:
            held = fit(seen, w.activations, w.margin)
        self._note(name, "activation", held, seen)
        return held

    def matrix(self, name: str, values: Floats, router: bool = False) -> tuple[Ints, Format]:
        """Mantissas of a weight matrix; those of routers are wider, as choices hang on them."""
        w, seen = self.widths, float(np.abs(values).max(initial=0.0))
        bits = w.router if router else w.weights
        if w.weight_integer is not None:
            held = Format(bits, bits - w.weight_integer)
            if seen > held.limits[1] * 2.0**-held.point + 2.0**-held.point:
                raise FormatError(f"{name} reaches {seen:g} and overflows {held}: give it auto.")
        else:
            held = fit(seen, bits)
        self._note(name, "weight", held, seen)
        return self._rounded(values, held), held

    def vector(self, name: str, values: Floats, top: int | None = None) -> tuple[Ints, Format]:
        """Mantissas of biases and of norms, as wide as activations."""
        seen = float(np.abs(values).max(initial=0.0))
        held = fit(seen, self.widths.activations, top=top)
        self._note(name, "vector", held, seen)
        return self._rounded(values, held), held

    def linear(
        self,
        name: str,
        layer: floats.Dense,
        given: Format,
        wanted: Format | int,
        router: bool = False,
    ) -> tuple[Linear, int]:
        """A layer in integers and the point of its sums.

        Args:
            name: of the layer.
            layer: in floats.
            given: format of its inputs.
            wanted: format of its outputs, or the point at which its sums are read.
            router: takes wider weights.
        """
        weight, held = self.matrix(f"{name}.weight", layer.weight, router)
        point = given.point + held.point
        bias, own = self.vector(f"{name}.bias", layer.bias, top=point)
        bits = sum_bits(name, given.bits, held.bits, layer.weight.shape[-1], most=60) + 2
        if not router:  # routers add their halves and biases behind the engine
            self.sums = max(self.sums, bits, own.bits + point - own.point + 1)
        out = wanted if isinstance(wanted, int) else wanted.point
        return Linear(weight, bias, point - own.point, point - out), point

    def residual(self, name: str, held: Format, point: int) -> int:
        """Left shift that brings a residual to sums at `point`."""
        align = point - held.point
        sum_bits(f"{name}'s residual", held.bits, max(align, 0), 1, most=60)
        self.sums = max(self.sums, min(held.bits + max(align, 0) + 2, 64))
        return align

    def norm(self, name: str, layer: floats.LayerNorm, given: Format, wanted: Format) -> Norm:
        """A layer norm; √D is part of its weight."""
        dim = len(layer.weight)
        norms.check(dim, given.bits)
        gamma, held = self.vector(f"{name}.weight", layer.weight * math.sqrt(dim))
        point = norms.UNIT_POINT + held.point
        sum_bits(f"{name}'s output", norms.UNIT_POINT + 2, held.bits, 2)
        beta, own = self.vector(f"{name}.bias", layer.bias, top=point)
        sum_bits(f"{name}'s bias", own.bits, point - own.point, 2)
        square = 2 * (given.point + norms.GUARD - norms.cut(given.bits))
        epsilon = max(1, round(layer.eps * dim * 2.0**square))
        if epsilon.bit_length() > 60:
            raise FormatError(f"eps of {name} does not fit at {square} fraction bits.")
        return Norm(gamma, beta, epsilon, point - own.point, point - wanted.point)

    def gelu(self, name: str, given: Format, wanted: Format) -> Gelu:
        """Points of a GELU; its table wants 5 fraction bits at least."""
        if given.point < GELU_STEPS:
            raise FormatError(
                f"{name} is {given}: the GELU table needs {GELU_STEPS} fraction bits at least, "
                "take wider activations."
            )
        return Gelu(given.point, wanted.point)

    def mixture(
        self,
        name: str,
        layer: floats.Mixture,
        given: Format,
        seen: Format,
        out: Format,
        old: Format,
    ) -> Mixture:
        """Experts and routers of a layer.

        Args:
            name: of the layer's tensors.
            layer: in floats.
            given: format of normalised tokens.
            seen: of what the router sees.
            out: of the result.
            old: of what it is added to.
        """
        shape = (layer.first.weight.shape[1], layer.second.weight.shape[1])
        hidden, active, expert = (
            self.activation(f"{name}.{key}") for key in ("hidden", "active", "expert")
        )
        first, _ = self.linear(f"{name}.experts.first", layer.first, given, hidden)
        second, _ = self.linear(f"{name}.experts.second", layer.second, active, expert)
        tasks = list(layer.gates)
        stacked = floats.Dense(
            np.stack([layer.gates[t].weight for t in tasks]),
            np.stack([layer.gates[t].bias for t in tasks]),
        )
        gate, _ = self.linear(f"{name}.gates", stacked, seen, softmaxes.SCORE_POINT, router=True)
        point = combine_point(expert.point)
        sum_bits(f"{name}'s gated sum", expert.bits, softmaxes.PROBABILITY_POINT + 1, shape[1] + 1)
        align = self.residual(name, old, point)
        return Mixture(
            gates={t: gate.expert(i) for i, t in enumerate(tasks)},
            score=gate.shift,
            factor=factor("log2(e)", math.log2(math.e)),
            top_k=layer.top_k,
            renormalised=layer.renormalised,
            ahead=layer.ahead,
            first=first,
            gelu=self.gelu(f"{name}.hidden", hidden, active),
            second=second,
            shift=point - out.point,
            align=align,
        )

    def _rounded(self, values: Floats, held: Format) -> Ints:
        return held.round(values) if self.widths.rounding == "nearest" else held.truncate(values)

    def _note(self, name: str, kind: str, held: Format, seen: float) -> None:
        reach = held.limits[1] * 2.0**-held.point
        self.formats[name] = {
            "kind": kind,
            "format": str(held),
            "W": held.bits,
            "I": held.integer,
            "largest": seen,
            "headroom": round(reach / seen, 4) if seen else None,
        }


def factor(name: str, value: float) -> int:
    """A softmax's factor as a literal of its type."""
    return literal(name, value, FACTOR)


@dataclass(frozen=True)
class Design:
    """An encoder in integers with everything that the generator writes about it.

    Args:
        source: in floats.
        widths: bits.
        encoder: in integers.
        formats: of every tensor, by name.
        sums: bits of the widest sum of the linear engine.
        output: format of the final tokens.
        ranges: what calibration saw.
        tasks: whose routers are in it, in order.
    """

    source: floats.ViT
    widths: Widths
    encoder: Encoder
    formats: dict[str, dict[str, Any]]
    sums: int
    output: Format
    ranges: floats.Ranges
    tasks: tuple[str, ...]


def calibrate(vit: floats.ViT, tasks: tuple[str, ...], images: NDArray[np.uint8]) -> floats.Ranges:
    """Ranges of every tensor over images (B, C, H, W) and tasks."""
    ranges = floats.Ranges()
    for pixels in floats.patches(images, vit.patch):
        for task in tasks:
            floats.forward(pixels, vit, task, ranges)
    return ranges


def design(
    vit: floats.ViT, tasks: tuple[str, ...], widths: Widths, images: NDArray[np.uint8]
) -> Design:
    """Formats by calibration, then all weights rounded.

    Args:
        vit: in floats.
        tasks: whose routers are kept.
        widths: bits.
        images: (B, C, H, W) for calibration.

    Raises:
        FormatError: a tensor, a sum or a constant does not fit.
    """
    vit = _for_tasks(vit, tasks)
    ranges = calibrate(vit, tasks, images)
    q = Quantizer(widths, ranges.largest)
    stream = q.activation("stream")
    patch, point = q.linear("patch", vit.embed, PIXEL, stream)
    position, held = q.vector("position", vit.position, top=point)
    align = q.residual("position", held, point)
    prefix = stream.round(vit.prefix)
    blocks = []
    for i, block in enumerate(vit.blocks):
        made, stream = _block(q, f"blocks.{i}", block, stream)
        blocks.append(made)
    output = q.activation("norm")
    final = q.norm("norm", vit.norm, stream, output)
    encoder = Encoder(widths.activations, patch, prefix, position, align, tuple(blocks), final)
    return Design(vit, widths, encoder, q.formats, min(q.sums, 64), output, ranges, tasks)


def _for_tasks(vit: floats.ViT, tasks: tuple[str, ...]) -> floats.ViT:
    """The same without the routers of other tasks; the rest in the order of `tasks`."""
    blocks = []
    for block in vit.blocks:
        feed = block.feed
        if isinstance(feed, floats.Mixture):
            feed = replace(feed, gates={task: feed.gates[task] for task in tasks})
        blocks.append(replace(block, feed=feed))
    return replace(vit, blocks=tuple(blocks))


def _block(q: Quantizer, name: str, block: floats.Block, stream: Format) -> tuple[Block, Format]:
    """A block in integers, and the format of what leaves it."""
    before = stream
    inner = q.activation(f"{name}.norm1")
    norm1 = q.norm(f"{name}.norm1", block.norm1, stream, inner)
    parts: dict[str, Linear] = {}
    points: dict[str, int] = {}
    for key, layer in (("query", block.query), ("key", block.key), ("value", block.value)):
        held = q.activation(f"{name}.{key}")
        points[key] = held.point
        parts[key], _ = q.linear(f"{name}.{key}", layer, inner, held)
    bits, width = q.widths.activations, len(block.query.bias) // block.heads
    sum_bits(f"{name}'s scores", bits, bits, width)
    context = q.activation(f"{name}.context")
    attention = Attention(
        heads=block.heads,
        score=points["query"] + points["key"] - softmaxes.SCORE_POINT,
        factor=factor("log2(e) / sqrt(width)", math.log2(math.e) / math.sqrt(width)),
        shift=points["value"] + softmaxes.PROBABILITY_POINT - context.point,
        **parts,
    )
    attended = q.activation(f"{name}.attended")
    project, point = q.linear(f"{name}.project", block.project, context, attended)
    align = q.residual(f"{name}.project", stream, point)
    inner = q.activation(f"{name}.norm2")
    norm2 = q.norm(f"{name}.norm2", block.norm2, attended, inner)
    out = q.activation(f"{name}.stream")
    feed: Perceptron | Mixture
    if isinstance(block.feed, floats.MLP):
        hidden, active = q.activation(f"{name}.hidden"), q.activation(f"{name}.active")
        first, _ = q.linear(f"{name}.first", block.feed.first, inner, hidden)
        second, point = q.linear(f"{name}.second", block.feed.second, active, out)
        gelu = q.gelu(f"{name}.hidden", hidden, active)
        feed = Perceptron(first, gelu, second, q.residual(f"{name}.second", attended, point))
    else:
        seen = before if block.feed.ahead else inner
        feed = q.mixture(name, block.feed, inner, seen, out, attended)
    return Block(norm1, attention, project, align, norm2, feed), out
