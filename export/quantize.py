"""Variants of less precision beside fp32, which appear only if every task predicts as well."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import onnx

from export.calibration import Calibration, draw_calibration, measure_ranges
from export.clean import clean
from export.evaluate import Array, MetricTable, Predict, evaluate
from export.manifest import add_variant, read_manifest, verify
from export.parity import runner
from export.recipes import (
    Product,
    QuantizationError,
    Range,
    dynamic_int8,
    half,
    lend_ranges,
    products,
    static_int8,
)
from export.source import Source
from export.timing import race
from export.weights import share_weights
from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.types import TaskName

Mode: TypeAlias = Literal["int8-dynamic", "int8-static", "fp16"]
"""``int8-dynamic`` finds the ranges of activations anew for every batch, ``int8-static`` on
calibration samples before; ``fp16`` halves the weights and helps where the hardware has it."""

MAX_DROP = 0.005
"""Loss of a task's primary metric that is accepted: absolute, of errors relative."""

GROUPS = 12
"""Parts of a graph that the search for sensitive products tells apart."""

SNR = 20.0
"""Signal-to-noise ratio in dB below which a task's predictions are mentioned."""


@dataclass
class _Graph:
    """One graph while its variant is being made."""

    key: str
    model: onnx.ModelProto
    candidates: list[Product] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)
    """Products that stay in fp32."""
    ranges: dict[str, Range] = field(default_factory=dict)
    order: list[list[str]] | None = None
    """Groups of products, the most harmful first."""


def quantize(
    folder: Path | str,
    source: Source,
    *,
    mode: Mode = "int8-dynamic",
    calibration: int = 256,
    max_drop: float | Mapping[TaskName, float] = MAX_DROP,
    limit: int | None = None,
    steps: int = GROUPS,
    seed: int = 0,
) -> dict[str, Any]:
    """Add a variant to an artefact folder, or leave the folder as it is.

    Routers stay in fp32, and so do all products without constant weights. Where a task loses too
    much, the parts of its graph that disturb its predictions most go back to fp32, one after
    another.

    Args:
        folder: built from `source`.
        source: with data: training samples calibrate, the validation split is scored.
        mode: see `Mode`.
        calibration: number of training samples, for ``int8-static`` and for the order of the
            search.
        max_drop: loss of the primary metric that is accepted, for all or by task: absolute where
            more is better, relative for errors.
        limit: at most so many validation samples; None: all.
        steps: of the search, for every graph.
        seed: of the choice of samples.

    Returns:
        The variant's entry in the manifest.

    Raises:
        UnknownNameError: there is no such mode or task.
        ArgumentError: there is no data, or no samples of some task.
        QuantizationError: a task still loses too much, the graph does not run in this precision,
            or the folder holds trees.
        FolderError: the folder is damaged.
    """
    if mode not in get_args(Mode):
        raise UnknownNameError("mode", mode, get_args(Mode))
    verify(folder)
    manifest = read_manifest(folder)
    if manifest["kind"] == "trees":
        raise QuantizationError("trees compare numbers and have no products to round: keep fp32.")
    fp32 = next(v for v in manifest["variants"] if v["id"] == "fp32")
    drops = _bounds(manifest, max_drop)
    samples = draw_calibration(source, calibration, seed)
    size = fp32.get("static_batch")
    graphs = [_read(Path(folder), key, file, mode) for key, file in fp32["graphs"].items()]
    before_run = _sized(runner(_paths(Path(folder), fp32["graphs"])), size)
    before = evaluate(before_run, source, limit, batch=size or 8)
    _require_scores(manifest, before)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        files = {graph.key: work / f"{graph.key.replace('*', 'model')}.onnx" for graph in graphs}
        for graph in graphs:
            _make(graph, mode, samples, files[graph.key])
        run = _sized(_runnable(files, mode), size)
        after = _score(run, source, limit, size, mode)
        for _ in range(steps):
            failing = _failing(manifest, before, after, drops)
            worse = [g for g in graphs if g.key in failing or (g.key == "*" and failing)]
            if not [g for g in worse if _retreat(g, mode, samples, work)]:
                break
            for graph in worse:
                _make(graph, mode, samples, files[graph.key])
            some = {graph.key: files[graph.key] for graph in worse}
            after |= _score(_sized(runner(some), size), source, limit, size, mode)
        lost = {name: loss(manifest, name, before, after) for name in before}
        if _failing(manifest, before, after, drops):
            raise QuantizationError(_refusal(manifest, mode, before, after, drops))
        noise = _noise(before_run, _sized(runner(files), size), samples.batches[0])
        single = all(not _external(Path(folder) / f) for f in fp32["graphs"].values())
        extra = {f"{mode}/{path.name}": path for path in files.values()}
        if not single and share_weights(list(files.values())):
            extra[f"{mode}/weights.bin"] = work / "weights.bin"
        times = race(
            {"fp32": Path(folder) / fp32["graphs"][graphs[0].key], mode: files[graphs[0].key]},
            {k: v[: size or 1] for k, v in samples.batches[0].items()},
        )
        entry = {
            "id": mode,
            "precision": mode,
            "graphs": {key: f"{mode}/{path.name}" for key, path in files.items()},
            "static_batch": size,
            "moe": fp32.get("moe"),
            "parity": noise,
            "metrics": after,
            "drop": lost,
            "calibration": samples.note if mode == "int8-static" else None,
            "kept_in_fp32": {g.key: len(g.kept) for g in graphs},
            "rounded": {g.key: len(g.candidates) - len(g.kept) for g in graphs},
            "remarks": remarks(mode, times, noise),
        }
        report = work / "report.json"
        content = {"before": before, "after": after, "drop": lost, "max_drop": drops}
        content |= {"cpu_ms_min": times, "remarks": entry["remarks"], "parity": noise}
        report.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        extra[f"report/{mode}.json"] = report
        written = add_variant(folder, entry, extra)
    return next(v for v in written["variants"] if v["id"] == mode)


def loss(
    manifest: Mapping[str, Any], task: TaskName, before: MetricTable, after: MetricTable
) -> float:
    """How much worse a task's primary metric is: absolute, of errors relative to before.

    Args:
        manifest: whose tasks have ``primary`` and ``higher_is_better``.
        task: its name.
        before: metrics of fp32.
        after: metrics of the variant.
    """
    entry = next(t for t in manifest["tasks"] if t["name"] == task)
    old, new = before[task][entry["primary"]], after.get(task, {}).get(entry["primary"], np.nan)
    if entry["higher_is_better"]:
        return float(old - new)
    return float((new - old) / max(abs(old), 1e-12))


def remarks(
    mode: str, times: Mapping[str, float], noise: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """What a user should know of a variant before choosing it."""
    found = []
    ratio = times[mode] / max(times["fp32"], 1e-9)
    if ratio >= 1:
        found.append(
            f"{mode} is not faster here: {times[mode]:.2f} against {times['fp32']:.2f} ms a sample "
            "(one thread, CPU time); it saves disk only."
        )
    found += [
        f"predictions of {task} are {entry['snr_db']:.0f} dB above the rounding noise; look at them"
        for task, entry in noise.items()
        if entry["snr_db"] < SNR
    ]
    return found


def _bounds(
    manifest: Mapping[str, Any], max_drop: float | Mapping[TaskName, float]
) -> dict[TaskName, float]:
    names = [task["name"] for task in manifest["tasks"]]
    given = dict(max_drop) if isinstance(max_drop, Mapping) else dict.fromkeys(names, max_drop)
    for name, value in given.items():
        if name not in names:
            raise UnknownNameError("max_drop", name, names)
        if not value >= 0:
            raise ArgumentError("max_drop", "not be negative", value)
    return {name: float(given.get(name, MAX_DROP)) for name in names}


def _read(folder: Path, key: str, file: str, mode: Mode) -> _Graph:
    model = onnx.load(folder / file)
    found = [] if mode == "fp16" else products(model, convolutions=mode == "int8-static")
    return _Graph(key, model, found)


def _make(graph: _Graph, mode: Mode, samples: Calibration, path: Path) -> None:
    """Write a graph in the precision asked for, with its weights inside."""
    model = _rounded(graph, mode, samples, graph.kept)
    clean(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise QuantizationError(f"{mode} is no valid graph here: {error}") from error
    path.write_bytes(model.SerializeToString(deterministic=True))


def _rounded(graph: _Graph, mode: Mode, samples: Calibration, kept: set[str]) -> onnx.ModelProto:
    if mode == "fp16":
        return half(graph.model)
    chosen = [p for p in graph.candidates if p.node not in kept]
    if not chosen:
        raise QuantizationError(f"graph {graph.key!r} has no products left to be rounded.")
    if mode == "int8-dynamic":
        return dynamic_int8(graph.model, chosen)
    if not graph.ranges:
        tensors = [p.source for p in graph.candidates]
        tensors += [p.result for p in graph.candidates if p.kind == "Conv"]
        measured = measure_ranges(graph.model, tensors, samples.batches)
        graph.ranges = lend_ranges(graph.model, graph.candidates, measured)
    return static_int8(graph.model, chosen, graph.ranges)


def _retreat(graph: _Graph, mode: Mode, samples: Calibration, work: Path) -> bool:
    """Take the most harmful group of products back to fp32; False if there is none to take."""
    if mode == "fp16":
        return False
    if graph.order is None:
        graph.order = _by_harm(graph, mode, samples, work)
    if len(graph.order) <= 1:
        return False
    graph.kept |= set(graph.order.pop(0))
    return True


def _by_harm(graph: _Graph, mode: Mode, samples: Calibration, work: Path) -> list[list[str]]:
    """Neighbouring products in groups, those first that alone disturb predictions most."""
    names = [product.node for product in graph.candidates]
    parts = [list(part) for part in np.array_split(names, min(GROUPS, len(names)))]
    batch = {name: value[:4] for name, value in samples.batches[0].items()}
    full, trial = work / "search_fp32.onnx", work / "search.onnx"
    full.write_bytes(graph.model.SerializeToString())
    wanted = runner({graph.key: full})(batch)
    quality = []
    for part in parts:
        model = _rounded(graph, mode, samples, set(names) - set(part))
        trial.write_bytes(model.SerializeToString())
        found = runner({graph.key: trial})(batch)
        quality.append(min(snr(found[task], wanted[task]) for task in wanted))
    return [parts[i] for i in np.argsort(quality)]


def snr(found: Array, wanted: Array) -> float:
    """Signal-to-noise ratio in dB, at most 200."""
    signal = float(np.square(wanted, dtype=np.float64).mean())
    noise = float(np.square(found.astype(np.float64) - wanted).mean())
    return float(min(200.0, 10 * np.log10(max(signal, 1e-300) / max(noise, 1e-300))))


def _noise(full: Predict, run: Predict, batch: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    wanted, found = full(batch), run(batch)
    return {
        task: {
            "max_abs": float(np.abs(found[task] - wanted[task]).max()),
            "snr_db": snr(found[task], wanted[task]),
            "samples": len(wanted[task]),
        }
        for task in wanted
    }


def _failing(
    manifest: Mapping[str, Any],
    before: MetricTable,
    after: MetricTable,
    drops: Mapping[TaskName, float],
) -> list[TaskName]:
    return [n for n in before if not loss(manifest, n, before, after) <= drops[n]]


def _refusal(
    manifest: Mapping[str, Any],
    mode: str,
    before: MetricTable,
    after: MetricTable,
    drops: Mapping[TaskName, float],
) -> str:
    lines = []
    for name in _failing(manifest, before, after, drops):
        primary = next(t["primary"] for t in manifest["tasks"] if t["name"] == name)
        old, new = before[name][primary], after.get(name, {}).get(primary, float("nan"))
        drop = loss(manifest, name, before, after)
        lines.append(f"{name} {primary} {old:.4g} → {new:.4g} (loss {drop:.3g} > {drops[name]:g})")
    return f"{mode} must not lose more than max_drop; the folder is as it was: {'; '.join(lines)}."


def _require_scores(manifest: Mapping[str, Any], scores: MetricTable) -> None:
    for task in manifest["tasks"]:
        if task["primary"] not in scores.get(task["name"], {}):
            rule = "have labelled validation samples, or its loss cannot be measured; take more"
            raise ArgumentError(f"task {task['name']}", rule, scores.get(task["name"], {}))


def _runnable(files: Mapping[str, Path], mode: Mode) -> Predict:
    """A runner, refused with the reason of the runtime."""
    try:
        return runner(files)
    except Exception as error:  # onnxruntime raises classes of its own, not derived from one
        raise QuantizationError(f"{mode} does not load here: {_first(error)}") from error


def _score(
    run: Predict, source: Source, limit: int | None, size: int | None, mode: Mode
) -> MetricTable:
    try:
        return evaluate(run, source, limit, batch=size or 8)
    except Exception as error:
        if type(error).__module__.startswith("onnxruntime"):
            raise QuantizationError(f"{mode} does not run here: {_first(error)}") from error
        raise


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300]


def _paths(folder: Path, graphs: Mapping[str, str]) -> dict[str, Path | str]:
    return {key: folder / file for key, file in graphs.items()}


def _external(path: Path) -> bool:
    model = onnx.load(path, load_external_data=False)
    return any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer)


def _sized(run: Predict, size: int | None) -> Predict:
    """The same for graphs of a fixed batch: short batches are filled up, and cut again."""
    if size is None:
        return run

    def filled(arrays: Mapping[str, Array]) -> dict[TaskName, Array]:
        count = len(next(iter(arrays.values())))
        found: list[Mapping[TaskName, Array]] = []
        for start in range(0, count, size):
            order = np.minimum(np.arange(start, start + size), count - 1)
            found.append(run({name: value[order] for name, value in arrays.items()}))
        return {k: np.concatenate([part[k] for part in found])[:count] for k in found[0]}

    return filled
