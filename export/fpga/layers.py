"""The layer table: what every layer computes, and what it reads."""

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from export.fpga.design import Design
from export.fpga.emit import Geometry
from export.fpga.integer.moe import Mixture

Kind: TypeAlias = Literal["linear", "attention", "norm", "gate", "experts"]


@dataclass(frozen=True)
class Shape:
    """Sizes of an encoder for one task.

    Args:
        tokens: N.
        dim: D.
        depth: blocks.
        heads: of attention.
        mlp_hidden: of perceptrons.
        routed: blocks with experts.
        experts: E.
        top_k: K.
        expert_hidden: H.
        patches: tokens that are patches.
        patch_inputs: numbers of a patch; 0 leaves the patch embedding out.
        weight_bits: w, of a weight in memory.
        act_bits: of activations.
        gate_halves: parts in which the engine takes a router's weights.
    """

    tokens: int
    dim: int
    depth: int
    heads: int
    mlp_hidden: int
    routed: tuple[int, ...]
    experts: int
    top_k: int
    expert_hidden: int
    patches: int = 0
    patch_inputs: int = 0
    weight_bits: int = 16
    act_bits: int = 24
    gate_halves: int = 1


EDGE_MOE = Shape(
    tokens=129,
    dim=192,
    depth=12,
    heads=3,
    mlp_hidden=768,
    routed=(1, 3, 5, 7, 9, 11),
    experts=16,
    top_k=2,
    expert_hidden=384,
)
"""The encoder of Edge-MoE (Sarkar et al., ICCAD 2023), patch embedding left out."""


@dataclass(frozen=True)
class Layer:
    """A row of the table.

    Args:
        name: place in the network.
        kind: what it is.
        tokens: N.
        inputs: width.
        outputs: width.
        macs: multiplications for one image and task.
        weight_bytes: that are read for one image and task; of experts, all of them once.
        activation_bytes: read and written.
        format: of weights, where a design is at hand.
    """

    name: str
    kind: Kind
    tokens: int
    inputs: int
    outputs: int
    macs: int
    weight_bytes: int
    activation_bytes: int
    format: str = ""


def shape_of(design: Design, geometry: Geometry) -> Shape:
    """Sizes of a design."""
    blocks = design.encoder.blocks
    return Shape(
        tokens=geometry.tokens,
        dim=geometry.dim,
        depth=geometry.depth,
        heads=geometry.heads,
        mlp_hidden=geometry.mlp_hidden,
        routed=tuple(i for i, b in enumerate(blocks) if isinstance(b.feed, Mixture)),
        experts=geometry.experts,
        top_k=geometry.top_k,
        expert_hidden=geometry.expert_hidden,
        patches=geometry.tokens - geometry.prefix,
        patch_inputs=geometry.patch_inputs,
        weight_bits=geometry.stored_bits,
        act_bits=geometry.act_bits,
        gate_halves=1 if geometry.weight_bits >= 16 else 2,
    )


def layer_table(s: Shape, formats: Mapping[str, Mapping[str, object]] | None = None) -> list[Layer]:
    """Every layer that computes, in order.

    Args:
        s: sizes.
        formats: of a design, by tensor.
    """
    act, known = -(-s.act_bits // 8), formats or {}

    def dense(name: str, tokens: int, inputs: int, outputs: int, kind: Kind = "linear") -> Layer:
        weights = inputs * outputs * s.weight_bits // 8
        if kind == "gate":
            weights *= s.gate_halves
        moved = tokens * (inputs + outputs) * act
        held = known.get(f"{name}.weight", {}).get("format", "")
        return Layer(
            name,
            kind,
            tokens,
            inputs,
            outputs,
            tokens * inputs * outputs,
            weights,
            moved,
            str(held),
        )

    def norm(name: str) -> Layer:
        moved = 2 * s.tokens * s.dim * act
        return Layer(name, "norm", s.tokens, s.dim, s.dim, 0, 8 * s.dim, moved)

    rows = [dense("patch", s.patches, s.patch_inputs, s.dim)] if s.patch_inputs else []
    for i in range(s.depth):
        at = f"blocks.{i}"
        rows.append(norm(f"{at}.norm1"))
        rows += [dense(f"{at}.{key}", s.tokens, s.dim, s.dim) for key in ("query", "key", "value")]
        moved = 4 * s.tokens * s.dim * act
        macs = 2 * s.tokens**2 * s.dim
        rows.append(Layer(f"{at}.attention", "attention", s.tokens, s.dim, s.dim, macs, 0, moved))
        rows += [dense(f"{at}.project", s.tokens, s.dim, s.dim), norm(f"{at}.norm2")]
        if i not in s.routed:
            rows.append(dense(f"{at}.first", s.tokens, s.dim, s.mlp_hidden))
            rows.append(dense(f"{at}.second", s.tokens, s.mlp_hidden, s.dim))
            continue
        rows.append(dense(f"{at}.gates", s.tokens, s.dim, s.experts, "gate"))
        numbers = 2 * s.dim * s.expert_hidden
        rows.append(
            Layer(
                f"{at}.experts",
                "experts",
                s.tokens,
                s.dim,
                s.dim,
                s.tokens * s.top_k * numbers,
                s.experts * numbers * s.weight_bits // 8,
                s.tokens * s.top_k * 2 * s.dim * act,
                str(known.get(f"{at}.experts.first.weight", {}).get("format", "")),
            )
        )
    return [*rows, norm("norm")]


def analytic_macs(s: Shape) -> int:
    """The same sum as one formula, as a check of the table."""
    n, d = s.tokens, s.dim
    every = s.depth * (4 * n * d * d + 2 * n * n * d)
    dense = (s.depth - len(s.routed)) * 2 * n * d * s.mlp_hidden
    routed = len(s.routed) * (n * d * s.experts + n * s.top_k * 2 * d * s.expert_hidden)
    return every + dense + routed + s.patches * s.patch_inputs * d


def as_csv(rows: list[Layer]) -> str:
    """``layers.csv``."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(asdict(rows[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return stream.getvalue()
