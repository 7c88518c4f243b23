"""Mixture of experts, expert by expert with queues, or token by token for comparison."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.fpga.formats import Ints
from export.fpga.integer.arithmetic import shifted, written
from export.fpga.integer.gelu import gelu
from export.fpga.integer.linear import Linear, linear, sums
from export.fpga.integer.softmax import PROBABILITY_POINT, exponents, softmax


@dataclass(frozen=True)
class Gelu:
    """Points of a GELU's input and output."""

    point: int
    out_point: int


@dataclass(frozen=True)
class Mixture:
    """A layer of experts in integers.

    Args:
        gates: a router's linear layer by task.
        score: right shift from its sums to point 18.
        factor: log2(e) at point 19.
        top_k: experts a token.
        renormalised: gates are probabilities over the chosen experts, not over all.
        ahead: the router sees the block's input instead of the normalised tokens.
        first: D to hidden, all experts.
        gelu: points between the two.
        second: hidden to D, all experts.
        shift: right shift from gates times outputs, plus the residual, to the output.
        align: left shift that brings the residual there.
    """

    gates: dict[str, Linear]
    score: int
    factor: int
    top_k: int
    renormalised: bool
    ahead: bool
    first: Linear
    gelu: Gelu
    second: Linear
    shift: int
    align: int

    @property
    def experts(self) -> int:
        """E."""
        return len(self.first.weight)


@dataclass(frozen=True)
class Routed:
    """Who computed what.

    Args:
        experts: (N, K), best first.
        gates: (N, K) at point 20.
        loads: times that an expert's weights were fetched.
    """

    experts: Ints
    gates: Ints
    loads: int


def route(x: Ints, layer: Mixture, task: str) -> tuple[Ints, Ints]:
    """Experts (N, K), best first, the lower number among equals, and their gates."""
    z = exponents(sums(x, layer.gates[task]), layer.score, layer.factor)
    chosen = np.argsort(-z, axis=-1, kind="stable")[:, : layer.top_k]
    counted = None
    if layer.renormalised:
        counted = np.zeros(z.shape, dtype=np.bool_)
        np.put_along_axis(counted, chosen, True, axis=-1)
    gates = np.take_along_axis(softmax(z, counted), chosen, axis=-1)
    return chosen, gates


def moe(
    x: Ints,
    residual: Ints,
    layer: Mixture,
    task: str,
    bits: int,
    *,
    seen: Ints | None = None,
    order: Sequence[int] | None = None,
) -> tuple[Ints, Routed]:
    """The residual plus the experts' outputs, expert by expert.

    Args:
        x: (N, D) normalised tokens.
        residual: (N, D) what they are added to.
        layer: the experts.
        task: whose router.
        bits: of the result.
        seen: (N, D) what the router sees; None: `x`.
        order: all experts, in which they come; None: ascending. Nothing depends on it.
    """
    chosen, gates = route(x if seen is None else seen, layer, task)
    wide = np.zeros(x.shape, dtype=np.int64)
    loads = 0
    for e in range(layer.experts) if order is None else order:
        token, slot = np.nonzero(chosen == e)
        if not len(token):
            continue
        loads += 1
        wide[token] += gates[token, slot][:, None] * _expert(x[token], layer, int(e), bits)
    out = written(wide + shifted(residual, -layer.align), layer.shift, bits)
    return out, Routed(chosen, gates, loads)


def by_token(x: Ints, residual: Ints, layer: Mixture, task: str, bits: int) -> tuple[Ints, Routed]:
    """The same, token after token: what fetching weights without queues costs."""
    chosen, gates = route(x, layer, task)
    wide = np.zeros(x.shape, dtype=np.int64)
    held, loads = -1, 0
    for n, slot in np.ndindex(*chosen.shape):
        e = int(chosen[n, slot])
        loads += e != held
        held = e
        wide[n] += gates[n, slot] * _expert(x[n : n + 1], layer, e, bits)[0]
    out = written(wide + shifted(residual, -layer.align), layer.shift, bits)
    return out, Routed(chosen, gates, loads)


def _expert(x: Ints, layer: Mixture, number: int, bits: int) -> Ints:
    hidden = linear(x, layer.first.expert(number), bits)
    inner = gelu(hidden, layer.gelu.point, layer.gelu.out_point, bits)
    return linear(inner, layer.second.expert(number), bits)


def combine_point(out_point: int) -> int:
    """Point of gates times outputs."""
    return out_point + PROBABILITY_POINT
