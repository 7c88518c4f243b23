"""From a dense network to experts that compute the same: group-tied sparse upcycling.

Sparse upcycling (Komatsuzaki et al., ICLR 2023) makes every expert a copy of the dense MLP. Here an
expert is a slice of it, so that K experts together cost what the MLP costs: its hidden units are
cut into K slices, and E / K copies of all slices are the experts, copy by copy. The router's
columns are equal within a copy, hence the K best experts of a token are one whole copy.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mtl_core.errors import ArgumentError
from mtl_core.hub import from_pretrained
from mtl_core.moe import GateNorm, TaskWindows


class Experts(NamedTuple):
    """Weights of E experts of h hidden units on tokens of D numbers.

    Args:
        w1: (E, D, h).
        b1: (E, h).
        w2: (E, h, D).
        b2: (E, D).
    """

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor


def split_mlp(
    weights: Mapping[str, Tensor], *, num_experts: int, top_k: int, gate_norm: GateNorm = "topk"
) -> Experts:
    """The experts whose best K compute ``fc2(gelu(fc1(x)))``.

    With gates that add up to one (`gate_norm` ``topk``) a tied router gives 1/K each and the result
    is the dense one exactly. With the plain softmax over all E experts it is so where all E
    probabilities are equal.

    Args:
        weights: ``fc1.weight`` (H, D), ``fc2.weight`` (D, H), and their ``bias`` where they have
            one.
        num_experts: E, a multiple of K.
        top_k: K, a divisor of H.
        gate_norm: what the router does to the gates of the chosen experts.

    Raises:
        ArgumentError: the MLP cannot be cut into these experts.
    """
    into, back = weights["fc1.weight"], weights["fc2.weight"]
    hidden, dim = into.shape
    if num_experts % top_k:
        rule = f"be a multiple of top_k = {top_k} for upcycling"
        raise ArgumentError("num_experts", rule, num_experts)
    if hidden % top_k:
        rule = f"divide the {hidden} hidden units of the dense MLP"
        raise ArgumentError("top_k", rule, top_k)
    copies = num_experts // top_k
    scale = top_k if gate_norm == "topk" else num_experts
    b1 = weights.get("fc1.bias", into.new_zeros(hidden))
    b2 = weights.get("fc2.bias", back.new_zeros(dim))
    return Experts(
        into.reshape(top_k, -1, dim).transpose(1, 2).repeat(copies, 1, 1),
        b1.reshape(top_k, -1).repeat(copies, 1),
        scale * back.t().reshape(top_k, -1, dim).repeat(copies, 1, 1),
        scale / top_k * b2.expand(num_experts, dim),
    )


def tie_columns(columns: Tensor, top_k: int) -> Tensor:
    """Router weights whose columns are equal within each group of K experts.

    Args:
        columns: (..., E); the first column of a group stands for all of it.
        top_k: K.
    """
    return columns[..., ::top_k].repeat_interleave(top_k, -1)


def check_windows(windows: TaskWindows, *, top_k: int, gate_norm: GateNorm) -> None:
    """Refuse windows in which the best K experts would not be the dense MLP.

    Args:
        windows: experts by task.
        top_k: K.
        gate_norm: what the router does to the gates of the chosen experts.

    Raises:
        ArgumentError: a window cuts a copy of the MLP, or gates do not add up to one.
    """
    if windows and gate_norm != "topk":
        raise ArgumentError("gate_norm", "be topk for windows of upcycled experts", gate_norm)
    for name, window in windows.items():
        if {e - e % top_k + i for e in window for i in range(top_k)} != set(window):
            rule = f"hold whole copies of the MLP, {top_k} experts each"
            raise ArgumentError(f"task_windows of {name}", rule, list(window))


def dense_weights(source: str | Path) -> dict[str, Tensor]:
    """Weights of a trained dense network by name, on the CPU.

    Args:
        source: checkpoint of a run (read without running code from it), or a folder or repository
            that `mtl_core.hub.save_pretrained` wrote.

    Raises:
        ArgumentError: the file holds no weights of a network.
        HubError: the folder or the repository cannot be read.
    """
    path = Path(source)
    if not path.is_file():
        return dict(from_pretrained(source).state_dict())
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        state: dict[str, Tensor] = checkpoint["state_dict"]
    except Exception as error:  # damaged files fail in many ways
        rule = f"be a checkpoint of a run that can be read ({type(error).__name__}: {error})"
        raise ArgumentError("start_from", rule, str(source)) from error
    prefix = "network."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
