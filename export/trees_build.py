"""From a trained model of boosted trees to a sealed artefact folder."""

import hashlib
import json
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from export.build import ParityError, write_json
from export.describe import producer, refuse_leaks, today
from export.manifest import digest, read_manifest, seal, staged, verify
from export.parity import TOLERANCE
from export.trees import IR, OPSET, Tables, tree_graph
from export.trees_check import leaf_mismatches
from mtl_core.errors import ArgumentError, UnknownNameError

Answer = Callable[[NDArray[np.float32], NDArray[np.int64]], NDArray[np.float64]]

LOADER = "mtl_tabular.boosting.exported"
"""Module that reads trained models; export itself knows no tables."""
EVERY = "*"
BATCHES = (1, 3, 257)
"""Sizes at which graph and model are compared."""
ROWS = 2048
"""Rows drawn for the comparison, values on thresholds and beside them among them."""
GOLDEN = 8


def build_trees(
    source: Path | str,
    out: Path | str,
    *,
    tasks: Sequence[str] | None = None,
    layout: Literal["dispatch", "folded"] = "dispatch",
    ml: Literal[3, 5] = 3,
) -> dict[str, Any]:
    """Export R-MTGB or plain XGBoost; the folder appears complete and checked, or not at all.

    One graph serves all tasks: it takes the row's task beside its features. Tasks of different
    kinds get a graph each, and so do the chosen ones in the layout ``folded``.

    Args:
        source: ``model.json`` of ``python -m mtl_tabular boost fit``, a folder that holds it, or a
            file that `BoostedTrees.save` or an estimator's `save` wrote.
        out: the folder, new or empty.
        tasks: of the layout ``folded``, None for all.
        layout: see `export.trees.tree_graph`.
        ml: opset of ``ai.onnx.ml``, 3 or 5.

    Returns:
        The manifest.

    Raises:
        ArgumentError: the folder is taken, or the file is no model.
        UnknownNameError: there is no such task.
        ParityError: graph and model disagree.
    """
    path = Path(source)
    path = path / "model.json" if path.is_dir() else path
    model = import_module(LOADER).load_boosted(path)
    names = list(model.readouts)
    for name in tasks or ():
        if name not in names:
            raise UnknownNameError("tasks", name, names)
    if tasks and layout == "dispatch" and EVERY in model.tables:
        rule = "be left out of the layout dispatch, whose graph serves all tasks"
        raise ArgumentError("tasks", rule, list(tasks))
    with staged(out) as work:
        _fill(model, path, work, list(tasks or names), layout, ml)
        refuse_leaks(work, [Path(out).absolute().parent, work.parent])
        verify(work)
        return read_manifest(work)


def _fill(
    model: Any, path: Path, work: Path, chosen: list[str], layout: str, ml: Literal[3, 5]
) -> None:
    names = list(model.readouts)
    together = EVERY in model.tables and layout == "dispatch"
    wanted: dict[str, list[str]] = {EVERY: names} if together else {name: [name] for name in chosen}
    parity: dict[str, Any] = {}
    drift: list[str] = []
    shapes: dict[str, list[Any]] = {}
    (work / "golden").mkdir()
    golden_in: dict[str, NDArray[Any]] = {}
    golden_out: dict[str, NDArray[Any]] = {}
    leaves: dict[str, Any] = {}
    for key, held in wanted.items():
        tables = model.tables.get(EVERY) or model.tables[key]
        output = output_name(names) if together else key
        rows, ids = drawn_rows(tables, ROWS, seed=0)
        options: dict[str, Any] = {"output": output, "ml": ml}
        if not together:
            options |= {"layout": "folded", "task": key}
        graph = tree_graph(tables, **options)
        onnx.save_model(graph, work / ("trees.onnx" if together else f"{key}.onnx"))
        run = _runner(graph)
        asked = ids if together else np.full(len(rows), names.index(key))
        found = compare_rows(run, model.answer, rows, asked)
        for name in held:
            own = found if not together else _of_task(run, model.answer, rows, names.index(name))
            parity[name] = own
            shapes[name] = ["batch", len(tables.mixing)]
        if found["mismatches"]:
            drift.append(f"{key}: {found['mismatches']} of {found['rows']} rows differ")
        places = ids if together else np.full(len(rows), tables.tasks.index(key))
        wrong = leaf_mismatches(tables, rows, places, _run, **options)
        leaves[key] = {"rows": len(rows), "mismatches": wrong}
        if wrong:
            drift.append(f"{key}: {wrong} of {len(rows)} rows reach another leaf")
        some = golden_in.setdefault("features", rows[:GOLDEN])
        named = asked[:GOLDEN]
        if together:
            golden_in["task"] = named
        golden_out[output] = run(some, named)
    if drift:
        raise ParityError(drift)
    np.savez_compressed(work / "golden/inputs.npz", **golden_in)  # type: ignore[arg-type]
    np.savez_compressed(work / "golden/outputs.npz", **golden_out)  # type: ignore[arg-type]
    write_json(work / "preprocess.json", model.preprocess)
    write_json(work / "labels.json", {name: model.readouts[name] for name in shapes})
    report = {"tolerance": TOLERANCE, "tasks": parity, "leaves": leaves}
    write_json(work / "report/parity.json", report)
    seal(work, _manifest(model, path, wanted, shapes, parity, together=together))


def _manifest(
    model: Any,
    path: Path,
    wanted: dict[str, list[str]],
    shapes: dict[str, list[Any]],
    parity: dict[str, Any],
    *,
    together: bool,
) -> dict[str, Any]:
    names = list(model.readouts)
    width = next(iter(model.tables.values())).width
    held = json.loads(path.read_text(encoding="utf-8")).get("config")
    config = None
    if held is not None:
        config = hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()
    inputs = [{"name": "features", "dtype": "float32", "shape": ["batch", width]}]
    if together:
        inputs.append({"name": "task", "dtype": "int64", "shape": ["batch"]})
    tasks = []
    for name, shape in shapes.items():
        readout = model.readouts[name]
        primary, higher = model.scores.get(name, (None, None))
        output = {
            "name": name,
            "shape": shape,
            "activation": readout.get("activation"),
            "unit": readout.get("unit"),
        }
        tasks.append(
            {
                "name": name,
                "kind": readout["kind"],
                "index": names.index(name),
                "dense": False,
                "outputs": [output],
                "primary": primary,
                "higher_is_better": higher,
            }
        )
    variant = {
        "id": "fp32",
        "precision": "fp32",
        "graphs": {key: "trees.onnx" if key == EVERY else f"{key}.onnx" for key in wanted},
        "static_batch": None,
        "moe": None,
        "parity": parity,
        "metrics": None,
        "drop": None,
    }
    return {
        "producer": {**producer(opset=OPSET, ir=IR)},
        "kind": "trees",
        "model": {
            "class": model.class_path,
            "parameters": sum(tables.nodes for tables in model.tables.values()),
            "config_sha256": config,
            "checkpoint_sha256": digest(path),
            "licence": None,
        },
        "layout": "dispatch" if together else "per-task",
        "inputs": inputs,
        "tasks": tasks,
        "variants": [variant],
        "preprocess": "preprocess.json",
        "labels": "labels.json",
        "calibration": None,
        "golden": {
            "inputs": "golden/inputs.npz",
            "outputs": "golden/outputs.npz",
            "tolerance": TOLERANCE,
        },
        "drift": [],
        "created": today(),
    }


def output_name(tasks: Sequence[str]) -> str:
    """Name of an output of all tasks, which none of them has.

    Args:
        tasks: their names.
    """
    name = "prediction"
    while name in tasks:
        name += "_"
    return name


def drawn_rows(
    tables: Tables, count: int, *, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows on which a wrong comparison shows: thresholds, their neighbours, codes, missing values.

    Args:
        tables: whose splits are read.
        count: n.
        seed: of the draw.

    Returns:
        Features (n, F) and task ids (n,), -1 (a task that training did not have) among them where
        the model has predictions for it.
    """
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, tables.width)).astype(np.float32)
    for f in range(tables.width):
        thresholds, top = [], -1
        for trees in (tables.shared, tables.own):
            here = (trees.left >= 0) & (trees.feature == f)
            thresholds.append(trees.threshold[here & (trees.members < 0)])
            for held in np.unique(trees.members[here & (trees.members >= 0)]):
                top = max(top, *trees.sets[held])
        edges = np.unique(np.concatenate(thresholds))
        if top >= 0:
            rows[:, f] = rng.integers(0, top + 3, count)
        elif len(edges):
            exact = rng.choice(edges, count)
            moved = rng.integers(-1, 2, count)
            ways = np.where(moved < 0, -np.inf, np.inf).astype(np.float32)
            with np.errstate(over="ignore"):  # a split of missing values alone has a huge threshold
                beside = np.where(moved == 0, exact, np.nextafter(exact, ways))
            beside = np.where(np.isfinite(beside), beside, exact)
            rows[:, f] = np.where(rng.random(count) < 0.7, beside, rows[:, f])
    rows[rng.random(rows.shape) < 0.08] = np.nan
    rows[0] = np.nan
    lowest = -1 if np.isfinite(tables.scale[-1]) else 0
    return rows, rng.integers(lowest, len(tables.tasks), count)


def compare_rows(
    run: Answer, answer: Answer, rows: NDArray[np.float32], ids: NDArray[np.int64]
) -> dict[str, Any]:
    """Largest differences of graph and model, and rows that differ by more than rounding.

    Args:
        run: the graph.
        answer: the model.
        rows: features (n, F).
        ids: tasks (n,).
    """
    wanted = answer(rows.copy(), ids)
    scale = max(1.0, float(np.nanmax(np.abs(wanted), initial=0.0)))
    largest, bad = 0.0, np.zeros(len(rows), dtype=bool)
    for size in (*BATCHES, len(rows)):
        part = slice(0, size)
        apart = np.abs(run(rows[part], ids[part]) - wanted[part]).max(1, initial=0.0)
        apart = np.where(np.isnan(apart), np.inf, apart)
        largest = max(largest, float(apart.max(initial=0.0)))
        bad[part] |= apart > TOLERANCE * scale
    return {
        "max_abs": largest,
        "max_rel": largest / scale,
        "samples": len(rows),
        "rows": len(rows),
        "mismatches": int(bad.sum()),
    }


def _of_task(run: Answer, answer: Answer, rows: NDArray[np.float32], index: int) -> dict[str, Any]:
    few = rows[: max(BATCHES)]
    return compare_rows(run, answer, few, np.full(len(few), index))


def _runner(graph: onnx.ModelProto) -> Answer:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    named = {value.name for value in session.get_inputs()}

    def run(rows: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[Any]:
        fed = {"features": rows, "task": ids.astype(np.int64)}
        found: NDArray[Any] = session.run(None, {k: v for k, v in fed.items() if k in named})[0]
        return found

    return run


def _run(graph: onnx.ModelProto, rows: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[Any]:
    return _runner(graph)(rows, ids)
