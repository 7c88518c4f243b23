import io
import runpy
from pathlib import Path

import pytest
from rich.console import Console

from mtl_core.balancing import Balancer
from mtl_core.balancing.catalogue import (
    HEADER,
    catalogue,
    kept,
    markdown,
    method_classes,
    terminal,
)

ROOT = Path(__file__).parents[3]
ROWS = {row.name: row for row in catalogue()}


def test_every_exported_method_has_a_row():
    assert list(ROWS) == [cls.__name__ for cls in method_classes()]
    assert {"Equal", "MGDA", "PCGrad", "MoCo", "SAM", "UW", "RepMTL"} <= set(ROWS)
    assert not {"Balanced", "Stages", "GradientBalancer"} & set(ROWS)
    for row in ROWS.values():
        assert all(row), row.name
        assert "|" not in "".join(row)


@pytest.mark.parametrize(
    ("name", "family", "needs", "walks", "keeps"),
    [
        ("Equal", "LossBalancer", "losses", "1", "–"),
        ("UW", "LossBalancer", "losses", "1", "4T numbers"),
        ("MGDA", "GradientBalancer", "Gramian", "T", "–"),
        ("MGDAUB", "GradientBalancer", "features", "1", "–"),
        ("GradVac", "GradientBalancer", "Gramian", "T", "T² numbers"),
        ("MoCo", "JacobianBalancer", "rows", "T", "T rows, 2T numbers"),
        ("AdaTask", "JacobianBalancer", "rows", "T", "2T rows, T numbers"),
        ("RotoGrad", "FeatureBalancer", "features", "1", ROWS["RotoGrad"].keeps),
        ("SAM", "Balancer", "moved weights", "2T", "what `inner` keeps"),
    ],
)
def test_rows(name, family, needs, walks, keeps):
    row = ROWS[name]
    assert (row.family, row.needs, row.walks, row.keeps) == (family, needs, walks, keeps)


def test_sizes_are_counted():
    class Keeps(Balancer):
        """Something."""

        def reset(self, entries):
            self.table = [[0.0] * entries] * entries

        def method_state(self):
            import torch

            return {"table": torch.tensor(self.table), "more": [torch.zeros(3)], "name": "x"}

        def collect(self, *_):
            pass

        def finish(self, *_):
            pass

    assert kept(Keeps) == "T² + 3 numbers"


def test_printed_as_markdown_into_a_pipe(capsys):
    runpy.run_module("mtl_core.balancing", run_name="__main__")
    assert capsys.readouterr().out == markdown(catalogue()) + "\n"


def test_table_for_the_terminal():
    console = Console(file=io.StringIO(), width=160)
    console.print(terminal(catalogue()))
    assert all(name in console.file.getvalue() for name in (*ROWS, HEADER[-1]))


def test_the_docs_hold_this_table():
    """To renew it, put the output of ``python -m mtl_core.balancing`` between the markers."""
    text = (ROOT / "docs" / "balancing.md").read_text()
    table = text.split("<!-- catalogue -->\n")[1].split("\n<!-- end of catalogue -->")[0]
    assert table == markdown(catalogue())


def test_the_readme_counts_them():
    assert f"{len(ROWS)} methods" in (ROOT / "README.md").read_text()
