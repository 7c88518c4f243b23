"""Multiply-accumulates of products that torch's counter does not know."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

Shape = Sequence[int]


def _matrix_vector(a: Shape, _: Shape, **__: Any) -> int:
    return 2 * math.prod(a)


def _added_matrix_vector(_: Shape, a: Shape, __: Shape, **___: Any) -> int:
    return 2 * math.prod(a)


def _added_products(_: Shape, a: Shape, b: Shape, **__: Any) -> int:
    return 2 * math.prod(a) * b[-1]


def _grouped_product(a: Shape, b: Shape, *_: Any, out_shape: Shape, **__: Any) -> int:
    # Rows of each group by its matrix, a matrix of each group by its columns, or one product each.
    if len(a) == 2 and len(b) == 2:
        return 2 * a[0] * a[1] * b[1]
    return 2 * math.prod(out_shape) * a[-1]


def _distances(a: Shape, b: Shape, *_: Any, **__: Any) -> int:
    return 2 * math.prod(a) * b[-2]


def _trilinear(
    a: Shape,
    b: Shape,
    c: Shape,
    expand_a: Sequence[int],
    expand_b: Sequence[int],
    expand_c: Sequence[int],
    *_: Any,
    **__: Any,
) -> int:
    """The sum over all axes of the three expanded factors' product: two products an element."""
    shapes = []
    for shape, places in ((a, expand_a), (b, expand_b), (c, expand_c)):
        full = list(shape)
        for place in sorted(places):
            full.insert(place, 1)
        shapes.append(full)
    return 4 * math.prod(int(max(sizes)) for sizes in zip(*shapes, strict=True))


def _found(*names: str) -> list[Any]:
    """Operators of this release of torch by name; others are left out."""
    held = [(torch.ops.aten, name) for name in names]
    return [getattr(space, name) for space, name in held if hasattr(space, name)]


def formulas() -> dict[Any, Callable[..., int]]:
    """Floating point operations, twice the multiply-accumulates, by operator.

    For ``custom_mapping`` of `torch.utils.flop_counter.FlopCounterMode`, which gives each function
    shapes in the place of tensors. torch itself counts products of matrices, convolutions of all
    kinds and attention.
    """
    groups: tuple[tuple[tuple[str, ...], Callable[..., int]], ...] = (
        (("mv", "dot", "vdot"), _matrix_vector),
        (("addmv",), _added_matrix_vector),
        (("addbmm", "_addmm_activation"), _added_products),
        (("_grouped_mm",), _grouped_product),
        (("_cdist_forward", "_euclidean_dist"), _distances),
        (("_trilinear",), _trilinear),
    )
    return {op: count for names, count in groups for op in _found(*names)}
