"""Rows of a long table piece by piece: what they hold, whatever the pieces, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from mtl_core.errors import ArgumentError, EmptySplitError
from mtl_tabular.boosting.facts import Facts
from mtl_tabular.boosting.pieces import Piece, TablePieces
from mtl_tabular.data.columns import ColumnError


def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"y": rng.normal(5, 2, 50), "a": rng.normal(size=50), "b": np.arange(50),
         "site": rng.choice(["x", "y", "z"], 50), "w": rng.integers(0, 3, 50).astype(float)}
    )  # fmt: skip


@pytest.mark.parametrize("rows", [1, 7, 50, 1000])
def test_pieces_together_are_the_table(rows):
    table = frame()
    table.loc[3, "a"] = np.nan
    pieces = TablePieces(table, target="y", task="site", weight="w", rows=rows)
    assert pieces.names == ["a", "b"]
    assert [len(p) for p in pieces] == [len(p) for p in pieces]
    whole = Piece.join(list(pieces))
    np.testing.assert_array_equal(whole.values, table[["a", "b"]].to_numpy(np.float32))
    for name, found in (("y", whole.targets), ("site", whole.tasks), ("w", whole.weights)):
        np.testing.assert_array_equal(found, table[name])
    assert (whole.counted().weights > 0).all()


@pytest.mark.parametrize("rows", [1, 7, 50])
def test_facts_do_not_depend_on_the_pieces(rows):
    table = frame()
    pieces = TablePieces(table, target="y", task="site", weight="w", features=["a"], rows=rows)
    facts = Facts.join([Facts.of(piece, numeric=True) for piece in pieces])
    counted = table[table["w"] > 0]
    counts = dict(zip(facts.tasks, facts.rows, strict=True))
    assert counts == counted["site"].value_counts().to_dict()
    mean = np.average(counted["y"], weights=counted["w"])
    spread = np.average((counted["y"] - mean) ** 2, weights=counted["w"])
    answers, weights = facts.answers(numeric=True)
    assert np.average(answers, weights=weights) == pytest.approx(mean)
    assert np.var(answers) == pytest.approx(spread)
    kinds = Facts.join([Facts.of(p, numeric=False) for p in
                        TablePieces(table, target="site", features=["a"], rows=rows)])  # fmt: skip
    assert set(kinds.classes) == {"x", "y", "z"}


def test_mistakes_are_explained():
    table = frame()
    with pytest.raises(ColumnError, match="Did you mean site"):
        TablePieces(table, target="y", task="sit")
    with pytest.raises(ColumnError, match=r"one meaning, found several for .'y'."):
        TablePieces(table, target="y", features=["y", "a"])
    with pytest.raises(ColumnError, match="at least one feature"):
        TablePieces(table[["y", "site"]], target="y", task="site")
    with pytest.raises(EmptySplitError):
        TablePieces(table.iloc[:0], target="y")
    with pytest.raises(ArgumentError, match="rows must be at least 1"):
        TablePieces(table, target="y", rows=0)
    with pytest.raises(ColumnError, match="'site' must hold numbers"):
        list(TablePieces(table, target="y"))
    for wrong, message in (({"w": -1.0}, "weights must be finite and not negative"),
                           ({"w": np.nan}, "weights must be there for every row"),
                           ({"y": np.inf}, "targets must be finite")):  # fmt: skip
        with pytest.raises(ArgumentError, match=message):
            list(TablePieces(table.assign(**wrong), target="y", task="site", weight="w"))
    for beyond in (np.inf, 1e300):
        with pytest.raises(ColumnError, match="finite in float32"):
            list(TablePieces(table.assign(a=beyond), target="y", task="site"))
