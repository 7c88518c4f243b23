import csv
import io
from dataclasses import replace

import pytest

from export.fpga.layers import EDGE_MOE, analytic_macs, as_csv, layer_table


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"patches": 128, "patch_inputs": 768},
        {"routed": (), "tokens": 50},
        {"depth": 3, "routed": (0, 1, 2), "experts": 5, "top_k": 3, "dim": 40},
    ],
)
def test_products_of_the_table_are_those_of_the_formula(changes):
    shape = replace(EDGE_MOE, **changes)
    assert sum(row.macs for row in layer_table(shape)) == analytic_macs(shape)


def test_all_experts_cost_three_times_as_much():
    assert analytic_macs(EDGE_MOE) == 763_845_120
    assert analytic_macs(replace(EDGE_MOE, top_k=16)) / 1e9 == pytest.approx(2.36, abs=5e-3)


def test_csv_has_a_row_a_layer():
    rows = list(csv.DictReader(io.StringIO(as_csv(layer_table(EDGE_MOE)))))
    assert len(rows) == len(layer_table(EDGE_MOE))
    experts = next(row for row in rows if row["kind"] == "experts")
    assert int(experts["weight_bytes"]) == 16 * 2 * 192 * 384 * 2
