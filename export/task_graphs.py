"""The graphs of a build: which there are, of which modules, with experts in which form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from export.batching import repeat
from export.calibration import draw_calibration
from export.graph import ExportNetwork
from export.moe import MoESettings, convert, moe_layers, pick_form
from export.onnx import EXAMPLE_BATCH, GraphReport, write_graph
from export.parity import Array
from export.prune import prepare
from export.samples import InputSpec, pixels
from export.settings import BuildSettings
from export.source import Source
from mtl_core.errors import ArgumentError
from mtl_core.moe import Router
from mtl_core.nn import MultiTaskNetwork
from mtl_core.types import Inputs, TaskName


@dataclass
class TaskGraph:
    """A graph that was written.

    Args:
        file: its name.
        module: what it was written from.
        exact: whether `module` computes what the full network does.
        layers: what became of its layers of experts, see `export.moe.Converted`.
        report: of the writing.
    """

    file: str
    module: ExportNetwork
    exact: bool
    layers: list[dict[str, Any]]
    report: GraphReport


def export_module(
    network: MultiTaskNetwork,
    names: Sequence[TaskName],
    spec: InputSpec,
    *,
    pixels: bool = False,
) -> ExportNetwork:
    """The network between the inputs of a graph and activated predictions.

    Args:
        network: in evaluation mode.
        names: of the tasks, in the order of the outputs.
        spec: of the inputs.
        pixels: take images as bytes, see `export.graph.ExportNetwork`.
    """
    return ExportNetwork(
        network, names, inputs=spec.names, mean=spec.mean, std=spec.std, pixels=pixels
    )


def write_graphs(
    source: Source,
    names: Sequence[TaskName],
    spec: InputSpec,
    samples: Mapping[str, Array],
    folder: Path,
    settings: BuildSettings,
) -> dict[TaskName, TaskGraph]:
    """Write a graph a task, or one of all under the key ``*``, each with its weights inside.

    Args:
        source: with the network.
        names: of the tasks.
        spec: of the inputs.
        samples: as graphs take them.
        folder: to write to.
        settings: of the build.

    Raises:
        ArgumentError: one graph of all tasks is asked for where every task has tokens of its own.
    """
    network = source.network
    routed = any(isinstance(module, Router) for module in network.modules())
    if settings.layout == "all" and routed:
        raise ArgumentError(
            "layout",
            "be per-task for a network with experts: from the first such layer on every task has "
            "tokens of its own, so one graph of all tasks would hold the encoder once a task",
            settings.layout,
        )
    example = repeat(samples, settings.batch or EXAMPLE_BATCH)
    if settings.bake_preprocess:
        example = pixels(example)
    tensors = {name: torch.from_numpy(value) for name, value in example.items()}
    batches = _calibration(source, spec, samples, settings)
    wanted = {name: [name] for name in names} if settings.layout == "per-task" else {"*": names}
    graphs: dict[TaskName, TaskGraph] = {}
    for key, held in wanted.items():
        layers: list[dict[str, Any]] = []
        converted = network
        if key != "*":
            converted, layers = _of_one_task(network, key, settings.experts, batches)
        module = export_module(converted, held, spec)
        file = "model.onnx" if key == "*" else f"{key}.onnx"
        report = write_graph(
            export_module(converted, held, spec, pixels=settings.bake_preprocess),
            tensors,
            list(held),
            folder / file,
            opset=settings.opset,
            static_batch=settings.batch,
            profile=settings.profile,
        )
        exact = all(_is_exact(layer) for layer in layers)
        graphs[key] = TaskGraph(file, module, exact, layers, report)
    return graphs


def _of_one_task(
    network: MultiTaskNetwork, task: TaskName, experts: MoESettings, batches: Sequence[Inputs]
) -> tuple[MultiTaskNetwork, list[dict[str, Any]]]:
    """The network with its experts in the form of a graph, and a note a layer."""
    notes: list[dict[str, Any]] = []
    if batches:
        experts, notes = prepare(network, task, experts, batches)
    found = convert(network, task, experts)
    measured = {note["layer"]: note for note in notes}
    layers = [{**layer, **measured.get(layer["layer"], {})} for layer in found.layers]
    return found.network, layers


def _is_exact(layer: Mapping[str, Any]) -> bool:
    """Whether a layer computes what it does in training, on any data."""
    if not layer["exact"] or layer["form"] in ("nonzero", "dense"):
        return bool(layer["exact"])
    if layer["capacity"] is None and layer["capacity_factor"] is None:
        return True  # as many places as tokens
    places, tokens = layer["capacity"] or 0, layer.get("tokens")
    return tokens is not None and places >= tokens


def _calibration(
    source: Source, spec: InputSpec, samples: Mapping[str, Array], settings: BuildSettings
) -> list[Inputs]:
    """Inputs on which queues and usage are measured; empty where nothing is to be measured."""
    counts = [layer.router.num_experts for layer in moe_layers(source.network).values()]
    forms = {pick_form(settings.experts, count) for count in counts}
    lossy = settings.keep_experts is not None
    if not counts or not (lossy or forms & {"capacity", "sorted"}):
        return []
    if source.data is None:
        return [spec.tensors(samples)]
    drawn = draw_calibration(source, settings.calibration)
    return [spec.tensors(batch) for batch in drawn.batches]
