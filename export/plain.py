"""Operations rewritten, while a graph is traced, into ones that every runtime has."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class PlainOperations(TorchFunctionMode):
    """While it is active, `torch.einsum` of two tensors is a matrix product between reshapes.

    ONNX has Einsum, but many runtimes do not, and tools for int8 pass over it. Pooling a whole map
    is its mean, which torch's exporter writes with a Range in it.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.einsum and len(args) == 3 and not kwargs:
            found = product(*args)
            if found is not None:
                return found
        if func is F.adaptive_avg_pool2d and args[1:] in ((1,), ((1, 1),)) and not kwargs:
            return args[0].mean((-2, -1), keepdim=True)
        return func(*args, **(kwargs or {}))


def product(equation: str, left: Tensor, right: Tensor) -> Tensor | None:
    """``torch.einsum(equation, left, right)`` by permutations, reshapes and one `torch.matmul`.

    Args:
        equation: with an arrow; letters only.
        left: first operand.
        right: second one.

    Returns:
        None where the equation is of another form (ellipses, diagonals, sums within one operand).

    >>> a, b = torch.rand(2, 3), torch.rand(4, 3, 5)
    >>> torch.allclose(product("bi,eio->beo", a, b), torch.einsum("bi,eio->beo", a, b))
    True
    """
    terms, arrow, out = equation.replace(" ", "").partition("->")
    first, comma, second = terms.partition(",")
    words = (first, second, out)
    if not arrow or not comma or not all(w.isalpha() and len(set(w)) == len(w) for w in words):
        return None
    shared = [letter for letter in first if letter in second]
    batch = [letter for letter in shared if letter in out]
    summed = [letter for letter in shared if letter not in out]
    rows = [letter for letter in first if letter not in second]
    columns = [letter for letter in second if letter not in first]
    if set(rows + columns + batch) != set(out):
        return None
    size = dict(zip(first + second, (*left.shape, *right.shape), strict=True))

    def arranged(tensor: Tensor, letters: str, *groups: list[str]) -> Tensor:
        order = [letters.index(letter) for letter in [*batch, *groups[0], *groups[1]]]
        wanted = [size[letter] for letter in batch]
        return tensor.permute(order).reshape(
            *wanted, *(math.prod(size[letter] for letter in group) for group in groups)
        )

    found = arranged(left, first, rows, summed) @ arranged(right, second, summed, columns)
    letters = [*batch, *rows, *columns]
    found = found.reshape([size[letter] for letter in letters])
    return found.permute([letters.index(letter) for letter in out])
