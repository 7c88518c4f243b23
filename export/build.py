"""From a trained network to a sealed artefact folder, with every number in it checked."""

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.batching import check_batching, near_ties, repeat
from export.describe import model_entry, producer, refuse_leaks, task_entries, today
from export.evaluate import MetricTable, evaluate
from export.graph import ExportNetwork
from export.manifest import read_manifest, seal, staged, verify
from export.parity import NEAR_TIE, TOLERANCE, Array, Parity, compare, runner
from export.prune import check_loss
from export.quantize import quantize
from export.samples import InputSpec, draw, input_spec, pixels, snapped
from export.settings import SINGLE_FILE_BYTES, BuildSettings
from export.source import Source, load_source
from export.task_graphs import TaskGraph, export_module, write_graphs
from export.weights import share_weights
from mtl_core.errors import ArgumentError, MTLError
from mtl_core.types import TaskName

BATCHES = (1, 2, 3, 7)
"""Sizes at which graphs are compared with the network."""

GOLDEN = 4
"""Samples whose inputs and outputs a folder carries."""

DEFAULT = BuildSettings()


class ParityError(MTLError, ArithmeticError):
    """Graphs and network disagree; no folder is left.

    Args:
        drift: one sentence a comparison that failed.
    """

    def __init__(self, drift: Sequence[str]) -> None:
        super().__init__(
            f"graphs must compute what the network computes: {'; '.join(drift)}. --allow-drift "
            "records it in the manifest instead."
        )
        self.drift = list(drift)


@dataclass
class _Checked:
    """What comparisons found, by task."""

    report: dict[TaskName, dict[str, Any]] = field(default_factory=dict)
    drift: list[str] = field(default_factory=list)
    parity: dict[TaskName, Parity] = field(default_factory=dict)


def build(
    source: Source | Path | str, out: Path | str, settings: BuildSettings = DEFAULT
) -> dict[str, Any]:
    """Export a network; the folder appears complete and checked, or not at all.

    Args:
        source: checkpoint, run folder or hub folder (see `export.source.load_source`), or what was
            loaded from one.
        out: the folder, new or empty.
        settings: options.

    Returns:
        The manifest.

    Raises:
        ArgumentError: the folder is taken, or options contradict the network.
        UnknownNameError: there is no such task.
        SourceError: the source cannot be read.
        BatchDependenceError: samples of a batch see each other.
        TracingError: the network cannot be written as a graph; likewise `OperatorError`.
        ParityError: graphs and network disagree.
    """
    with staged(out) as work:
        if not isinstance(source, Source):
            source = load_source(source, settings.config)
        _fill(source, work, settings)
        refuse_leaks(work, [Path(out).absolute().parent, work.parent])
        verify(work)
        return read_manifest(work)


def _fill(source: Source, work: Path, settings: BuildSettings) -> None:
    network = source.network
    names = network.select(settings.tasks)
    if not names:
        raise ArgumentError("tasks", "name at least one task", settings.tasks)
    spec = input_spec(source, settings.size)
    samples, origin = draw(source, spec, max(BATCHES))
    shipped = spec
    if settings.bake_preprocess:
        shipped, samples = spec.baked(), snapped(samples)
    whole = export_module(network, names, spec)
    if not settings.allow_batch_dependence:
        check_batching(whole, spec, samples)
    graphs = write_graphs(source, names, spec, samples, work, settings)
    paths = {key: work / graph.file for key, graph in graphs.items()}
    weight_bytes = sum(graph.report.weight_bytes for graph in graphs.values())
    single = settings.single_file
    if single is None:
        single = len(graphs) == 1 and weight_bytes < SINGLE_FILE_BYTES
    if not single:
        share_weights(list(paths.values()))
    checked = _compare(graphs, paths, whole, spec, samples, settings)
    if checked.drift and not settings.allow_drift:
        raise ParityError(checked.drift)
    golden = repeat(samples, settings.batch or GOLDEN)
    (work / "golden").mkdir()
    if settings.bake_preprocess:
        golden = pixels(golden)
    arrays: dict[str, Any] = {"inputs": golden, "outputs": runner(paths)(golden)}
    for name, held in arrays.items():
        np.savez_compressed(work / "golden" / f"{name}.npz", **held)
    metrics = _metrics(source, paths, settings)
    drop = _lost(source, whole, metrics, settings)
    reports = {
        "parity": {"samples": origin, "tolerance": TOLERANCE, "tasks": checked.report},
        "ops": [asdict(graph.report) for graph in graphs.values()],
        "metrics": {"fp32": metrics},
    }
    write_json(work / "preprocess.json", shipped.preprocess)
    write_json(work / "labels.json", {name: network.tasks[name].readout() for name in names})
    for name, content in reports.items():
        write_json(work / "report" / f"{name}.json", content)
    shapes = {n: s for graph in graphs.values() for n, s in graph.report.outputs.items()}
    first = next(iter(graphs.values())).report
    layers = {key: graph.layers for key, graph in graphs.items() if graph.layers}
    variant = {
        "id": "fp32",
        "precision": "fp32",
        "graphs": {key: graph.file for key, graph in graphs.items()},
        "static_batch": settings.batch,
        "moe": layers or None,
        "parity": {name: parity.as_dict() for name, parity in checked.parity.items()},
        "metrics": metrics,
        "drop": drop,
    }
    manifest: dict[str, Any] = {
        "producer": producer(opset=first.opset, ir=first.ir),
        "kind": spec.kind,
        "model": model_entry(source),
        "profile": settings.profile,
        "layout": settings.layout,
        "inputs": _inputs(shipped, settings.batch),
        "tasks": task_entries(network, {name: shapes[name] for name in names}),
        "variants": [variant],
        "preprocess": "preprocess.json",
        "labels": "labels.json",
        "calibration": None,
        "golden": {
            "inputs": "golden/inputs.npz",
            "outputs": "golden/outputs.npz",
            "tolerance": TOLERANCE,
        },
        "drift": checked.drift,
        "created": today(),
    }
    seal(work, manifest)
    _quantize(source, work, settings)


def _compare(
    graphs: Mapping[TaskName, TaskGraph],
    paths: Mapping[TaskName, Path],
    whole: ExportNetwork,
    spec: InputSpec,
    samples: Mapping[str, Array],
    settings: BuildSettings,
) -> _Checked:
    """Graphs against their own modules at several batch sizes, and against the full network."""
    sizes = (settings.batch,) if settings.batch else BATCHES
    batches = [repeat(samples, size) for size in sizes]
    found = _Checked()
    full = _outputs(whole)(batches[-1])
    for key, graph in graphs.items():
        run = runner({key: paths[key]})
        names = graph.module.names
        ties = partial(
            near_ties, whole.network, spec, names, NEAR_TIE, converted=graph.module.network
        )
        own = partial(_precise, graph.module)
        parities = compare(run, _outputs(graph.module), batches, near_ties=ties, precise=own)
        isolated = compare(
            run,
            lambda _, names=graph.module.names: {name: full[name] for name in names},  # type: ignore[misc]
            batches[-1:],
            near_ties=ties,
            precise=own,
        )
        for name, parity in parities.items():
            apart = isolated[name]
            found.parity[name] = parity
            found.report[name] = {
                "graph": parity.as_dict(),
                "full_network": apart.as_dict(),
                "exact_form": graph.exact,
            }
            found.drift += _drift(name, "its own module", parity)
            if graph.exact:
                found.drift += _drift(name, "the full network", apart)
    return found


def _drift(name: TaskName, what: str, parity: Parity) -> list[str]:
    if parity.ok:
        return []
    shapes = f", shapes {parity.shapes[0]}" if parity.shapes else ""
    return [
        f"task {name!r} differs from {what} by {parity.max_abs:.3g} "
        f"({parity.max_rel:.3g} relative, {parity.tolerance:g} allowed{shapes})"
    ]


def _outputs(module: ExportNetwork) -> Any:
    """A module as a function of arrays."""

    def run(batch: Mapping[str, Array]) -> dict[TaskName, Array]:
        found = module.outputs({name: torch.from_numpy(batch[name]) for name in module.inputs})
        return {name: value.numpy() for name, value in found.items()}

    return run


def _precise(module: ExportNetwork, batch: Mapping[str, Array]) -> dict[TaskName, Array]:
    """What a module gives in float64."""
    wide = copy.deepcopy(module).double()
    cast = {
        name: value.astype(np.float64) if value.dtype == np.float32 else value
        for name, value in batch.items()
    }
    found: dict[TaskName, Array] = _outputs(wide)(cast)
    return found


def _inputs(spec: InputSpec, batch: int | None) -> list[dict[str, Any]]:
    if batch is None:
        return spec.entries
    return [{**entry, "shape": [batch, *entry["shape"][1:]]} for entry in spec.entries]


def _metrics(
    source: Source, paths: Mapping[TaskName, Path], settings: BuildSettings
) -> MetricTable | None:
    """Task metrics of the graphs over the validation split; None where there is none."""
    if source.data is None or not settings.metrics:
        return None
    run = runner(paths)
    size = settings.batch

    def padded(batch: Mapping[str, Array]) -> dict[TaskName, Array]:
        count = len(next(iter(batch.values())))
        whole = run(repeat(batch, size) if size else batch)
        return {name: value[:count] for name, value in whole.items()}

    found = evaluate(padded, source, limit=settings.metric_samples, batch=size or 8)
    return {
        task: {name: value for name, value in scores.items() if math.isfinite(value)}
        for task, scores in found.items()
    }


def _lost(
    source: Source,
    whole: ExportNetwork,
    metrics: MetricTable | None,
    settings: BuildSettings,
) -> dict[TaskName, float] | None:
    """What removing experts costs in primary metrics; None where none was removed inexactly."""
    if not isinstance(settings.keep_experts, int):
        return None
    if metrics is None:
        raise ArgumentError(
            "--keep-experts",
            "be 'window' where nothing is scored: removing used experts needs the data module of "
            "the run and its metrics",
            settings.keep_experts,
        )
    before = evaluate(_outputs(whole), source, limit=settings.metric_samples)
    return check_loss(source.tasks, before, metrics, settings.max_drop)


def _quantize(source: Source, work: Path, settings: BuildSettings) -> None:
    if settings.precision == "fp32":
        return
    quantize(
        work,
        source,
        mode=settings.precision,
        calibration=settings.calibration,
        max_drop=settings.max_drop,
        limit=settings.metric_samples,
    )


def write_json(path: Path, content: Any) -> None:
    """Write JSON for people: indented, with letters as they are, without NaN."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")
