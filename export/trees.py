"""Boosted trees of all tasks as one graph of ``ai.onnx.ml``, written from plain arrays.

The *dispatch* layout: the task id is a further column, and every round of the task blocks is one
tree whose upper levels are a binary search on that column and whose lower parts are the tasks' own
trees. A row passes log2 T + depth nodes of it, however many tasks there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.tree_nodes import (
    TASK,
    Nodes,
    Trees,
    copy_tree,
    ensemble,
    joined,
    regressor,
    search_tree,
)
from mtl_core.errors import ArgumentError, UnknownNameError

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.floating[Any]]

OPSET, IR = 20, 10
ML = {3: "TreeEnsembleRegressor", 5: "TreeEnsemble"}
"""Operator by opset of ``ai.onnx.ml``."""


class Tables(Protocol):
    """A model as arrays, see `mtl_tabular.boosting.tables.BoostedTables`."""

    tasks: tuple[str, ...]
    width: int
    outputs: int
    shared: Any
    own: Any
    shares: NDArray[np.float64]
    base: NDArray[np.float64]
    mixing: NDArray[np.float64]
    offset: NDArray[np.float64]
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    link: str
    task_feature: str
    codes: Ints
    seen: int


@dataclass
class _Graph:
    """Nodes and constants of a graph while it is being written."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """A named array; its name."""
        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """A node with one output; the output's name."""
        domain = "ai.onnx.ml" if op in ML.values() else ""
        node = helper.make_node(
            op, list(inputs), [output], name=output, domain=domain, **attributes
        )
        self.nodes.append(node)
        return output


def tree_graph(
    tables: Tables,
    *,
    output: str = "prediction",
    layout: Literal["dispatch", "folded"] = "dispatch",
    task: str | None = None,
    ml: Literal[3, 5] = 3,
    less: str = "BRANCH_LT",
) -> onnx.ModelProto:
    """The graph of a model.

    Inputs are ``features`` (B, F) float32, NaN where missing, and, in the dispatch layout, ``task``
    (B,) int64: the place in `Tables.tasks`; any other number is a task that training did not have.
    The output (B, C) float32 is activated: probabilities, or numbers in their own unit.

    Args:
        tables: the model.
        output: name of the output.
        layout: ``dispatch`` for all tasks; ``folded`` for one, its shares multiplied into the
            leaves, without trees that do not count.
        task: of the folded layout.
        ml: opset of ``ai.onnx.ml``: 3, which runs everywhere, or 5, whose files are smaller.
        less: how a split compares, for tests of what another comparison would do.

    Raises:
        UnknownNameError: there is no such task.
        ArgumentError: a layout or opset that does not exist.
    """
    if layout not in ("dispatch", "folded"):
        raise UnknownNameError("layout", layout, ("dispatch", "folded"))
    if ml not in ML:
        raise ArgumentError("ml", "be 3 or 5", ml)
    graph, T = _Graph(), len(tables.tasks)
    if layout == "folded":
        if task not in tables.tasks:
            raise UnknownNameError("task", str(task), tables.tasks)
        slot: str | int = tables.tasks.index(task)
    else:
        slot = _slot(graph, T)
    columns, places = _columns(graph, tables, slot)
    shared, own = _ensembles(tables, slot, places)
    K, G = tables.outputs, tables.shares.shape[1]
    every = joined([*shared, *own])
    if isinstance(slot, int):
        total = _scores(graph, every, columns, K, "trees", ml, less)
    else:
        # The tasks' own trees add to the scores of the block that enters fully.
        blocks = _scores(graph, every, columns, K * (1 + G), "blocks", ml, less)
        total = _mixed(graph, tables, blocks, slot) if G else blocks
    total = graph.add("Add", [total, _base(graph, tables, slot)], "scores")
    _finish(graph, tables, total, slot, output)
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", tables.width])]
    if layout == "dispatch":
        inputs.append(helper.make_tensor_value_info("task", TensorProto.INT64, ["batch"]))
    shape: list[str | int | None] = ["batch", len(tables.mixing)]
    found = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "trees",
            inputs,
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ml)],
        ir_version=IR,
        producer_name="mtl-suite",
    )
    onnx.checker.check_model(found, full_check=True)
    return found


# Columns.


def _slot(graph: _Graph, count: int) -> str:
    """Place (B,) in tables of `count` + 1 rows: the task id, the last one where it is unknown.

    A place of -1 is the last row to ``Gather``, so one operation on the ids is enough.
    """
    first = graph.constant("none", np.array(-1, np.int64))
    last = graph.constant("unknown", np.array(count, np.int64))
    return graph.add("Clip", ["task", first, last], "slot")


def _columns(graph: _Graph, tables: Tables, slot: str | int) -> tuple[str, dict[Any, int]]:
    """All columns that splits look at, and the place of those behind the features.

    The key ``task`` is the task's place; a key (feature, set) is 1 where the feature's code is in
    the set, 0 elsewhere, missing where the code is.
    """
    width, T = tables.width, len(tables.tasks)
    parts = ["features"]
    if tables.task_feature == "categorical":
        codes = np.where(tables.codes < 0, np.nan, tables.codes).astype(np.float32)[:, None]
        parts.append(_by_task(graph, "task_codes", codes, slot))
        width += 1
    elif tables.task_feature == "one-hot":
        hot = (tables.codes[:, None] == np.arange(tables.seen)).astype(np.float32)
        parts.append(_by_task(graph, "task_hot", hot, slot))
        width += tables.seen
    seen = parts[0] if len(parts) == 1 else graph.add("Concat", parts, "seen", axis=1)
    places: dict[Any, int] = {}
    added = [seen]
    for feature, sets in _sets(tables).items():
        for held in sets:
            places[feature, held] = width
            width += 1
        added.append(_members(graph, seen, feature, sets))
    if not isinstance(slot, int):
        places[TASK] = width
        ids = np.arange(T + 1, dtype=np.float32)[:, None]
        added.append(_by_task(graph, "task_place", ids, slot))
    if len(added) == 1:
        return seen, places
    return graph.add("Concat", added, "columns", axis=1), places


def _by_task(graph: _Graph, name: str, table: Floats, slot: str | int) -> str:
    """Rows of a table (T + 1, n) by the rows' tasks; a constant row for one task."""
    if isinstance(slot, int):
        row = graph.constant(f"{name}_row", table[[slot]])
        size = graph.add("Shape", ["features"], f"{name}_size", start=0, end=1)
        one = graph.constant(f"{name}_one", np.array([table.shape[1]], np.int64))
        shape = graph.add("Concat", [size, one], f"{name}_shape", axis=0)
        return graph.add("Expand", [row, shape], name)
    return graph.add("Gather", [graph.constant(f"{name}_table", table), slot], name, axis=0)


def _sets(tables: Tables) -> dict[int, list[tuple[int, ...]]]:
    """Different sets of categories by feature."""
    found: dict[int, dict[tuple[int, ...], None]] = {}
    for trees in (tables.shared, tables.own):
        for node in np.flatnonzero(trees.members >= 0):
            held = tuple(sorted(trees.sets[trees.members[node]]))
            found.setdefault(int(trees.feature[node]), {})[held] = None
    return {feature: list(found[feature]) for feature in sorted(found)}


def _members(graph: _Graph, columns: str, feature: int, sets: list[tuple[int, ...]]) -> str:
    """Columns (B, S) of 0 and 1: whether the code of a feature is in each of S sets."""
    name = f"members_{feature}"
    top = max(code for held in sets for code in held) + 1
    table = np.zeros((top + 1, len(sets)), np.float32)
    for s, held in enumerate(sets):
        table[list(held), s] = 1.0
    place = graph.constant(f"{name}_place", np.array(feature, np.int64))
    code = graph.add("Gather", [columns, place], f"{name}_code", axis=1)
    nan = graph.add("IsNaN", [code], f"{name}_missing")
    limit = graph.constant(f"{name}_top", np.array(top, np.float32))
    none = graph.add("Where", [nan, limit, code], f"{name}_filled")
    # A code beyond the table, or a negative one, is in no set.
    zero = graph.constant(f"{name}_zero", np.array(0, np.float32))
    below = graph.add("Less", [none, zero], f"{name}_below")
    known = graph.add("Where", [below, limit, none], f"{name}_known")
    cut = graph.add("Min", [known, limit], f"{name}_cut")
    index = graph.add("Cast", [cut], f"{name}_index", to=TensorProto.INT64)
    found = graph.add("Gather", [graph.constant(f"{name}_table", table), index], f"{name}_in")
    axis = graph.constant(f"{name}_axis", np.array([1], np.int64))
    wide = graph.add("Unsqueeze", [nan, axis], f"{name}_holes")
    missing = graph.constant(f"{name}_nan", np.array(np.nan, np.float32))
    return graph.add("Where", [wide, missing, found], name)


# Trees.


def _ensembles(
    tables: Tables, slot: str | int, places: dict[Any, int]
) -> tuple[list[Nodes], list[Nodes]]:
    """Nodes of the blocks that all tasks share, and of the tasks' own."""
    shared, own = Nodes(), Nodes()
    trees: Trees = tables.shared
    K = tables.outputs
    for root, target in zip(trees.roots, trees.targets, strict=True):
        g = int(target) // K - 1
        if isinstance(slot, int):
            factor = 1.0 if g < 0 else float(tables.shares[slot, g])
            if factor:
                shared.begin()
                copy_tree(shared, trees, int(root), places, int(target) % K, factor)
        else:
            shared.begin()
            copy_tree(shared, trees, int(root), places, int(target), 1.0)
    trees = tables.own
    if isinstance(slot, int):
        for i in np.flatnonzero(trees.tasks == slot):
            own.begin()
            copy_tree(own, trees, int(trees.roots[i]), places, int(trees.targets[i]), 1.0)
    else:
        known = [int(i) for i in np.lexsort((trees.tasks, trees.targets, trees.rounds))]
        known = [i for i in known if trees.tasks[i] >= 0]
        for (_, target), held in groupby(
            known, key=lambda i: (int(trees.rounds[i]), int(trees.targets[i]))
        ):
            own.begin()
            roots = {int(trees.tasks[i]): int(trees.roots[i]) for i in held}
            search_tree(own, trees, roots, places, target, len(tables.tasks))
    return ([shared] if shared.trees else []), ([own] if own.trees else [])


def _scores(
    graph: _Graph, nodes: Nodes, columns: str, targets: int, name: str, ml: int, less: str
) -> str:
    """Sums (B, targets) of an ensemble; zeros without trees."""
    if not nodes.trees:
        size = graph.add("Shape", ["features"], f"{name}_size", start=0, end=1)
        wide = graph.constant(f"{name}_targets", np.array([targets], np.int64))
        shape = graph.add("Concat", [size, wide], f"{name}_shape", axis=0)
        zero = helper.make_tensor(f"{name}_zero", TensorProto.FLOAT, [1], [0.0])
        return graph.add("ConstantOfShape", [shape], name, value=zero)
    if ml == 5:
        return graph.add(ML[5], [columns], name, **ensemble(nodes, targets))
    return graph.add(ML[3], [columns], name, **regressor(nodes, targets, less))


# Behind the trees.


def _mixed(graph: _Graph, tables: Tables, blocks: str, slot: str) -> str:
    """Sum a + d_r + Σ_g π_rg f_g, (B, K)."""
    K, G = tables.outputs, tables.shares.shape[1]
    weights = np.concatenate([np.ones((len(tables.shares), 1)), tables.shares], 1)
    weights = weights.astype(np.float32)
    axis = graph.constant("blocks_axis", np.array([1], np.int64))
    if K == 1:
        by_task = _by_task(graph, "shares", weights, slot)
        weighted = graph.add("Mul", [blocks, by_task], "blocks_weighted")
        return graph.add("ReduceSum", [weighted, axis], "blocks_sum", keepdims=1)
    by_task = _by_task(graph, "shares", weights[:, :, None], slot)
    shape = graph.constant("blocks_parts", np.array([0, 1 + G, K], np.int64))
    apart = graph.add("Reshape", [blocks, shape], "blocks_apart", allowzero=0)
    weighted = graph.add("Mul", [apart, by_task], "blocks_weighted")
    return graph.add("ReduceSum", [weighted, axis], "blocks_sum", keepdims=0)


def _base(graph: _Graph, tables: Tables, slot: str | int) -> str:
    """Where scores start, (B, K), or (1, K) where that is the same for all rows."""
    table = tables.base.astype(np.float32)
    if isinstance(slot, int):
        return graph.constant("base", table[[slot]])
    if (table == table[0]).all():
        return graph.constant("base", table[:1])
    return _by_task(graph, "base", table, slot)


def _finish(graph: _Graph, tables: Tables, total: str, slot: str | int, output: str) -> None:
    """Logits of all classes and their probabilities, or a number in its own unit."""
    if not (
        tables.mixing.shape[0] == tables.mixing.shape[1]
        and np.allclose(tables.mixing, np.eye(len(tables.mixing)))
    ):
        matrix = graph.constant("mixing", tables.mixing.T.astype(np.float32))
        total = graph.add("MatMul", [total, matrix], "logits")
    if tables.offset.any():
        offset = graph.constant("offset", tables.offset.astype(np.float32))
        total = graph.add("Add", [total, offset], "logits_all")
    plain = (tables.scale == 1).all() and (tables.shift == 0).all()
    if not plain:
        # In float64: the mean may be large beside the spread.
        wide = graph.add("Cast", [total], "scores_wide", to=TensorProto.DOUBLE)
        scale = _by_task(graph, "scale", tables.scale[:, None], slot)
        shift = _by_task(graph, "shift", tables.shift[:, None], slot)
        scaled = graph.add("Mul", [wide, scale], "scores_scaled")
        moved = graph.add("Add", [scaled, shift], "scores_moved")
        total = graph.add("Cast", [moved], "numbers", to=TensorProto.FLOAT)
    match tables.link:
        case "sigmoid":
            graph.add("Sigmoid", [total], output)
        case "softmax":
            graph.add("Softmax", [total], output, axis=1)
        case _:
            graph.nodes[-1].output[0] = output
