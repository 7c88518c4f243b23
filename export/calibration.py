"""What int8 is fitted to: samples of every task, and the ranges that tensors take on them."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from export.evaluate import Array, batches
from export.parity import graph_inputs
from export.recipes import Range
from export.samples import input_spec
from export.source import Source
from mtl_core.errors import ArgumentError

BATCH = 16
"""Samples that go through a graph at once."""


@dataclass(frozen=True)
class Calibration:
    """Samples that ranges are measured on.

    Args:
        batches: inputs of graphs, by name.
        note: how many, of which split, with which seed, and a hash of their numbers.
    """

    batches: list[dict[str, Array]]
    note: dict[str, Any]


def draw_calibration(source: Source, count: int, seed: int = 0) -> Calibration:
    """Training samples without augmentation, as many of every source of data.

    Args:
        source: with data.
        count: how many; fewer where there are not so many.
        seed: of the choice.

    Raises:
        ArgumentError: there is no data, `count` is below 1, or a task has no labels among the
            samples, so that they may be none of its kind.
    """
    if source.data is None:
        raise ArgumentError("source", "come with its data module to be calibrated", None)
    if count < 1:
        raise ArgumentError("calibration", "be at least 1", count)
    train = source.data.prepared("train")
    plain = dataclasses.replace(train, split="val", transform=source.data.transform("val"))
    rng = np.random.default_rng(seed)
    chosen = _apportioned(train.runs, count, rng)
    labels: Counter[str] = Counter()
    spec = input_spec(source)
    found = []
    for batch in batches(plain, chosen, BATCH):
        labels.update(batch["targets"].keys())
        found.append(spec.arrays(batch["inputs"]))
    absent = [name for name in source.tasks if not labels[name]]
    if absent:
        rule = (
            f"hold samples of every task: none of {len(chosen)} training samples is labelled for "
            f"{', '.join(absent)}; take more"
        )
        raise ArgumentError("calibration", rule, count)
    digest = hashlib.sha256(np.array(chosen, dtype="<i8").tobytes()).hexdigest()
    note = {"samples": len(chosen), "seed": seed, "split": "train", "sha256": digest}
    return Calibration(found, note)


def _apportioned(runs: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
    """Indices, the same number of each run as far as it goes; small runs give what they have."""
    shares = [0] * len(runs)
    left = min(count, sum(runs))
    for rank, i in enumerate(sorted(range(len(runs)), key=lambda i: runs[i])):
        shares[i] = min(runs[i], -(-left // (len(runs) - rank)))
        left -= shares[i]
    starts = np.cumsum([0, *runs])
    parts = [
        starts[i] + np.sort(rng.choice(size, share, replace=False))
        for i, (size, share) in enumerate(zip(runs, shares, strict=True))
    ]
    return [int(i) for i in np.concatenate(parts)]


def measure_ranges(
    model: onnx.ModelProto, tensors: Sequence[str], calibration: Sequence[Mapping[str, Array]]
) -> dict[str, Range]:
    """Smallest and largest value of some tensors; without those that are always empty.

    Args:
        model: with its weights.
        tensors: names.
        calibration: inputs of the graph by name; those that it lacks are ignored.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    given = {value.name for value in watched.graph.input}
    inner = [n for n in dict.fromkeys(tensors) if n not in given]
    own = {value.name for value in watched.graph.output}
    for name in inner:
        if name not in own:
            value = onnx.helper.make_empty_tensor_value_info(name)
            watched.graph.output.append(value)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found: dict[str, Range] = {}
    for batch in calibration:
        fed = graph_inputs(session, batch)
        values = dict(zip(inner, session.run(inner, fed), strict=True))
        values |= {name: fed[name] for name in tensors if name in given}
        for name, array in values.items():
            if array.size:
                low, high = found.get(name, (np.inf, -np.inf))
                found[name] = (min(low, float(array.min())), max(high, float(array.max())))
    return found
