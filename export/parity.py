"""Whether a graph computes what the network computes, batch by batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.samples import pixels
from mtl_core.moe import Router, RouterOut
from mtl_core.nn import MultiTaskNetwork
from mtl_core.types import Inputs, TaskName

TOLERANCE = 1e-5
"""Largest difference, relative to the largest value of the reference where that is above 1."""

ROUNDINGS = 3.0
"""What float32 rounding may add, in multiples of its effect on the network itself."""

NEAR_TIE = 5e-6
"""Margin between the last chosen and the first rejected expert below which rounding decides."""

Array = NDArray[Any]
Run = Callable[[Mapping[str, Array]], Mapping[TaskName, Array]]


@dataclass(frozen=True)
class Parity:
    """How far a graph and its reference are apart.

    Args:
        max_abs: largest absolute difference over the samples that count.
        max_rel: the same over the largest absolute value of the reference, or over 1.
        samples: how many were compared, over all batches.
        batches: their sizes.
        near_ties: samples that differ because rounding decided between two experts; they do not
            count.
        tolerance: bound on `max_rel`.
        rounding: how far the reference is from itself in float64, likewise relative; only looked at
            where `max_rel` is above the tolerance. Directions of short vectors and the like carry
            float32's rounding into every digit, in the graph as in the network.
        shapes: of outputs that have another shape than the reference.
    """

    max_abs: float
    max_rel: float
    samples: int
    batches: tuple[int, ...]
    near_ties: int = 0
    tolerance: float = TOLERANCE
    rounding: float | None = None
    shapes: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether all samples that count are within the bound, and all shapes agree."""
        bound = max(self.tolerance, ROUNDINGS * (self.rounding or 0.0))
        return not self.shapes and self.max_rel <= bound

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        held = {**asdict(self), "batches": list(self.batches), "ok": self.ok}
        held["shapes"] = list(self.shapes)
        return held


def session(path: Path | str, *, threads: int = 1) -> ort.InferenceSession:
    """ONNX Runtime on a graph, on the CPU.

    Args:
        path: of the graph; its weights file lies beside it.
        threads: of one operator.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def runner(graphs: Mapping[TaskName, Path | str], *, threads: int = 1) -> Run:
    """A function from inputs by name to predictions by task.

    Images go in as floats (B, 3, H, W) in [0, 1], or as the graphs take them.

    Args:
        graphs: one graph a task, or ``{"*": graph}`` where one has all tasks as outputs.
        threads: see `session`.
    """
    sessions = {path: session(path, threads=threads) for path in dict.fromkeys(graphs.values())}

    def run(inputs: Mapping[str, Array]) -> dict[TaskName, Array]:
        found: dict[TaskName, Array] = {}
        for key, path in graphs.items():
            opened = sessions[path]
            names = [value.name for value in opened.get_outputs()]
            wanted = names if key == "*" else [key]
            fed = graph_inputs(opened, inputs)
            found |= dict(zip(wanted, opened.run(wanted, fed), strict=True))
        return found

    return run


def graph_inputs(opened: ort.InferenceSession, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What a graph takes; one that takes images as bytes gets them so, whatever they come as.

    Args:
        opened: the graph.
        inputs: by name, at least those of the graph.
    """
    taken = {value.name: value.type for value in opened.get_inputs()}
    fed = {name: inputs[name] for name in taken}
    return pixels(fed) if taken.get("image") == "tensor(uint8)" else fed


def compare(
    graph: Run,
    reference: Run,
    batches: Sequence[Mapping[str, Array]],
    *,
    near_ties: Callable[[Mapping[str, Array]], NDArray[np.bool_]] | None = None,
    precise: Run | None = None,
    tolerance: float = TOLERANCE,
) -> dict[TaskName, Parity]:
    """Differences by task between a graph and its reference.

    Args:
        graph: from inputs (B, ...) by name to predictions (B, ...) by task.
        reference: likewise; its tasks are those that are compared.
        batches: inputs, of several sizes.
        near_ties: which samples (B,) of a batch hang on rounding; looked at only where a difference
            is above the bound.
        precise: the reference in float64; likewise only run where it is needed.
        tolerance: see `Parity`.
    """
    worst: dict[TaskName, tuple[float, float]] = {}
    excused: dict[TaskName, int] = {}
    shapes: dict[TaskName, list[str]] = {}
    rounding: dict[TaskName, float] = {}
    sizes = [len(next(iter(batch.values()))) for batch in batches]
    for batch in batches:
        found, expected = graph(batch), reference(batch)
        for task, right in expected.items():
            absolute, relative = worst.setdefault(task, (0.0, 0.0))
            excused.setdefault(task, 0)
            left = found[task]
            if left.shape != right.shape:
                shapes.setdefault(task, []).append(f"{left.shape} against {right.shape}")
                continue
            difference = _difference(left, right)
            scale = max(1.0, float(np.abs(right[np.isfinite(right)]).max(initial=0.0)))
            if near_ties is not None and difference.max(initial=0.0) > tolerance * scale:
                tied = near_ties(batch) & (difference > tolerance * scale)
                excused[task] += int(tied.sum())
                difference = difference[~tied]
            largest = float(difference.max(initial=0.0))
            if precise is not None and largest > tolerance * scale:
                noise = float(_difference(right, precise(batch)[task]).max(initial=0.0))
                rounding[task] = max(rounding.get(task, 0.0), noise / scale)
            worst[task] = (max(absolute, largest), max(relative, largest / scale))
    return {
        task: Parity(
            absolute,
            relative,
            sum(sizes),
            tuple(sizes),
            excused[task],
            tolerance,
            rounding.get(task),
            tuple(shapes.get(task, ())),
        )
        for task, (absolute, relative) in worst.items()
    }


def _difference(left: Array, right: Array) -> NDArray[np.float64]:
    """Largest difference of every sample (B,); infinite where only one side is finite."""
    a, b = (x.astype(np.float64).reshape(len(x), -1) for x in (left, right))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(a - b))
    result: NDArray[np.float64] = np.nan_to_num(gap, nan=np.inf, posinf=np.inf).max(1, initial=0.0)
    return result


def routing_margins(network: MultiTaskNetwork, inputs: Inputs, tasks: Sequence[TaskName]) -> Tensor:
    """Smallest margin between the K-th and the next expert over all routers, (B,).

    Args:
        network: with `mtl_core.moe.Router` modules; without any, margins are infinite.
        inputs: as the network takes them.
        tasks: to run.
    """
    first = inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()))
    size = len(first)
    margins = torch.full((size,), float("inf"))

    def watch(router: torch.nn.Module, _: object, out: object) -> None:
        nonlocal margins
        assert isinstance(router, Router)
        if isinstance(out, RouterOut) and router.top_k < out.probs.shape[-1]:
            best = out.probs.topk(router.top_k + 1, -1).values
            gap = (best[..., -2] - best[..., -1]).float()
            if gap.numel() % size == 0:
                margins = torch.minimum(margins, gap.reshape(size, -1).amin(1))

    hooks = [m.register_forward_hook(watch) for m in network.modules() if isinstance(m, Router)]
    try:
        with torch.no_grad():
            for task in tasks:
                network(inputs, tasks=[task])
    finally:
        for hook in hooks:
            hook.remove()
    return margins
