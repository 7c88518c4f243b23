"""One layer of experts as a design of its own, for measuring and testing formats."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from export.fpga import vit as floats
from export.fpga.design import Quantizer, Widths
from export.fpga.emit import Geometry, engine
from export.fpga.formats import Floats, Format, Ints
from export.fpga.integer.moe import Mixture, Routed, moe


@dataclass(frozen=True)
class Layer:
    """A layer of experts in integers with its reference.

    Args:
        source: in floats.
        mixture: in integers.
        given: format of tokens.
        out: format of outputs.
        formats: of all its tensors.
        geometry: constants of its kernel.
    """

    source: floats.Mixture
    mixture: Mixture
    given: Format
    out: Format
    formats: dict[str, dict[str, Any]]
    geometry: Geometry

    def run(self, tokens: Floats, task: str, order: list[int] | None = None) -> tuple[Ints, Routed]:
        """Integers out of float tokens (N, D), nothing added."""
        x = self.given.round(tokens)
        return moe(x, np.zeros_like(x), self.mixture, task, self.given.bits, order=order)


def random_mixture(
    tokens: int, dim: int, hidden: int, experts: int, top_k: int, seed: int, tasks: int = 1
) -> tuple[floats.Mixture, Floats]:
    """Experts drawn as `torch.nn.Linear` draws, and normal tokens (N, D)."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int, inputs: int) -> Floats:
        return np.asarray(rng.uniform(-(inputs**-0.5), inputs**-0.5, shape), dtype=np.float64)

    layer = floats.Mixture(
        gates={
            f"task{t}": floats.Dense(draw(experts, dim, inputs=dim), np.zeros(experts))
            for t in range(tasks)
        },
        top_k=top_k,
        renormalised=False,
        ahead=False,
        first=floats.Dense(
            draw(experts, hidden, dim, inputs=dim), draw(experts, hidden, inputs=dim)
        ),
        second=floats.Dense(
            draw(experts, dim, hidden, inputs=hidden), draw(experts, dim, inputs=hidden)
        ),
    )
    return layer, rng.standard_normal((tokens, dim))


def design_layer(layer: floats.Mixture, tokens: Floats, widths: Widths, macs: int = 256) -> Layer:
    """A layer in integers, calibrated on tokens (N, D) of every task."""
    ranges = floats.Ranges()
    ranges.see("tokens", tokens)
    for task in layer.gates:
        y, _ = floats.mixture(tokens, tokens, layer, task, lambda n, t: ranges.see(f"layer.{n}", t))
        ranges.see("out", y)
    q = Quantizer(widths, ranges.largest)
    given, out = q.activation("tokens"), q.activation("out")
    made = q.mixture("layer", layer, given, given, out, out)
    block_out, block_in = engine(macs)
    geometry = Geometry(
        act_bits=widths.activations,
        weight_bits=widths.weights,
        stored_bits=widths.stored,
        sum_bits=min(q.sums, 64),
        tokens=len(tokens),
        prefix=1,
        patch_inputs=1,
        dim=tokens.shape[1],
        heads=1,
        depth=0,
        mlp_hidden=1,
        experts=layer.experts,
        top_k=layer.top_k,
        expert_hidden=layer.first.weight.shape[1],
        renormalised=layer.renormalised,
        ahead=False,
        attention_factor=1,
        gate_factor=made.factor,
        block_in=block_in,
        block_out=block_out,
    )
    return Layer(layer, made, given, out, q.formats, geometry)
