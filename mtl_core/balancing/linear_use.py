"""Where a linear layer meets its inputs, read off the graph of a forward pass."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge


class LinearUse(NamedTuple):
    """One product with a layer's weight.

    Args:
        edge: its output in the graph, (M, d_out), for `torch.autograd.grad`.
        inputs: (M, d_in), without gradient.
        bias: whether one was added.
    """

    edge: GradientEdge
    inputs: Tensor
    bias: bool


def linear_use(outputs: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> LinearUse | None:
    """The one place at which these parameters, of a linear layer, were used.

    Args:
        outputs: of the forward pass, whose graph is still there.
        parameters: weight (d_out, d_in), and bias (d_out,) where there is one.

    Returns:
        None where they are something else, were used several times or not at all, or were
        converted before (autocast).
    """
    if [p.ndim for p in parameters] not in ([2], [2, 1]):
        return None
    users = _users(outputs)
    leaves = [get_gradient_edge(p).node for p in parameters]
    transposed = users[leaves[0]]
    if [node.name() for node in transposed] != ["TBackward0"]:
        return None
    products = users[transposed[0]]
    if len(products) != 1 or any(users[leaf] != products for leaf in leaves[1:]):
        return None
    product: Any = products[0]  # a node's saved tensors are attributes of its own kind
    sources = [node for node, _ in product.next_functions]
    if len(parameters) == 2:
        plain = product.name() == "AddmmBackward0" and sources[::2] == [leaves[1], *transposed]
        if plain and product._saved_alpha == product._saved_beta == 1:
            return LinearUse(GradientEdge(product, 0), product._saved_mat1.detach(), bias=True)
    elif product.name() == "MmBackward0" and sources[1:] == transposed:
        return LinearUse(GradientEdge(product, 0), product._saved_self.detach(), bias=False)
    return None


def _users(outputs: Sequence[Tensor]) -> dict[Node, list[Node]]:
    """For every node of the graph, those that work on what it gives, as often as they do."""
    users: dict[Node, list[Node]] = defaultdict(list)
    waiting = [output.grad_fn for output in outputs if output.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        for source, _ in node.next_functions:
            if source is not None:
                users[source].append(node)
                if source not in seen:
                    seen.add(source)
                    waiting.append(source)
    return users
