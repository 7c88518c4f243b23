"""Trees of landmine as a graph against XGBoost and our own predictions, in time and on disk.

The model is that of the table in the docs: 29 tasks, 100 shared trees, 50 a group, 20 a task, of
depth 4, so 780 trees, with two of a hundred values missing. Times are microseconds
of one thread in interleaved rounds; compare them within one table only.

    python benchmarks/export_trees.py [--data FOLDER] [--rounds 30] [--small]
"""

import argparse
import os
import platform
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import xgboost as xgb
from onnx import helper
from rmtgb_sets import DATA, read
from sklearn.metrics import log_loss

from export.trees import IR, OPSET, tree_graph
from mtl_tabular.boosting import RMTGBClassifier
from mtl_tabular.boosting.exported import boosted

SHORTEST = 0.02
"""Seconds that are timed at once, at least."""


def parse():
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of landmine_*.csv.gz")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--small", action="store_true", help="a tenth of the trees, to try it out")
    return parser.parse_args()


def opened(model):
    """ONNX Runtime on a graph, one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def nothing(width):
    """A graph that gives what it takes: what calling ONNX Runtime costs."""
    kind, shape = onnx.TensorProto.FLOAT, ["batch", width]
    value, result = (helper.make_tensor_value_info(n, kind, shape) for n in ("features", "out"))
    node = helper.make_node("Identity", ["features"], ["out"])
    graph = helper.make_graph([node], "nothing", [value], [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)


def race(calls, rounds):
    """Microseconds of each call in interleaved rounds: median wall, median and least CPU."""
    counts = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        counts[name] = max(1, round(SHORTEST / (time.perf_counter() - start)))
    taken = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = np.array([time.perf_counter(), time.thread_time()])
            for _ in range(counts[name]):
                call()
            end = np.array([time.perf_counter(), time.thread_time()])
            taken[name].append((end - start) * 1e6 / counts[name])
    held = {name: np.array(rounds) for name, rounds in taken.items()}
    return {name: (*np.median(times, 0), times[:, 1].min()) for name, times in held.items()}


def native(model, rows):
    """XGBoost's own margins of the shared block and the groups; the task blocks are ours."""
    matrix = xgb.DMatrix(rows)
    blocks = [model.model_.shared, *model.model_.groups]
    return [block.booster.predict(matrix, output_margin=True) for block in blocks]


def main():
    """Train, write the graphs, time them."""
    options = parse()
    table = read(options.data, "landmine", classes=True)
    rng = np.random.default_rng(0)
    rows = table.x.copy()
    rows[rng.random(rows.shape) < 0.02] = np.nan
    tasks = table.task.astype(np.int64)
    cut = 10 if options.small else 1
    model = RMTGBClassifier(
        shared_rounds=100 // cut,
        group_rounds=50 // cut,
        task_rounds=20 // cut,
        max_depth=4,
        early_stopping=False,
        random_state=0,
    )
    model.fit(rows, table.y, task=tasks)
    held = boosted(model)
    tables = held.tables["*"]
    shared, own = len(tables.shared.roots), len(tables.own.roots)
    print(f"{platform.machine()}, XGBoost {xgb.__version__}, ONNX Runtime {ort.__version__}, load "
          f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")  # fmt: skip
    loss = log_loss(table.y, model.predict_proba(rows, tasks))
    print(f"{len(rows)} rows, {len(tables.tasks)} tasks, {shared} shared and {own} own trees, "
          f"{tables.nodes} nodes, log-loss {loss:.4f}")  # fmt: skip
    # The path XGBoost itself would take for one task: shared, two groups, and the task's own.
    single = xgb.train(
        {"objective": "binary:logistic", "max_depth": 4, "nthread": 1, "eta": 0.1},
        xgb.DMatrix(rows, label=table.y),
        220 // cut,
    )
    graphs = {
        "dispatch, ml 3": tree_graph(tables),
        "dispatch, ml 5": tree_graph(tables, ml=5),
        "one task, ml 3": tree_graph(tables, layout="folded", task=tables.tasks[0]),
    }
    sessions = {name: opened(graph) for name, graph in graphs.items()}
    floor = opened(nothing(rows.shape[1]))
    want = held.answer(rows, tasks)
    for name, session in sessions.items():
        kilobytes = len(graphs[name].SerializeToString()) / 1e3
        fed = {"features": rows, "task": tasks}
        named = {value.name for value in session.get_inputs()}
        chosen = np.flatnonzero(tasks == 0) if "task" not in named else np.arange(len(rows))
        found = session.run(None, {k: v[chosen] for k, v in fed.items() if k in named})[0]
        print(f"{name:32s} {kilobytes:8.0f} kB, largest error of the probability "
              f"{np.abs(found - want[chosen]).max():.1e}")  # fmt: skip
    for size in (1, 100, len(rows)):
        part = slice(0, size)
        x, r = np.ascontiguousarray(rows[part]), np.ascontiguousarray(tasks[part])
        calls = {}
        for name, session in sessions.items():
            names = {value.name for value in session.get_inputs()}
            fed = {k: v for k, v in {"features": x, "task": r}.items() if k in names}
            calls[name] = lambda session=session, fed=fed: session.run(None, fed)
        calls["a graph that does nothing"] = lambda x=x: floor.run(None, {"features": x})
        calls["XGBoost, 220 trees, from an array"] = lambda x=x: single.inplace_predict(x)
        calls["XGBoost, 220 trees, DMatrix"] = lambda x=x: single.predict(xgb.DMatrix(x))
        calls["R-MTGB, blocks of XGBoost"] = lambda x=x: native(model, x)
        calls["R-MTGB, predict_proba"] = lambda x=x, r=r: model.predict_proba(x, r)
        print(f"\nbatch {size}: us, median wall, median CPU, least CPU")
        found = race(calls, options.rounds if size < 1000 else 5)
        for name, (wall, median, least) in found.items():
            print(f"{name:36s} {wall:12.1f} {median:12.1f} {least:12.1f}")


if __name__ == "__main__":
    main()
