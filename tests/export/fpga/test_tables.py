import numpy as np

from export.fpga import tables
from export.fpga.integer.gelu import gelu
from export.fpga.integer.norm import inverse_root
from export.fpga.integer.softmax import power
from export.fpga.vit import gelu as exact_gelu


def test_tables_have_at_most_256_entries_of_their_type():
    for made, held in (
        (tables.gelu_table, tables.GELU),
        (tables.power_table, tables.POWER),
        (tables.root_table, tables.ROOT),
    ):
        values = made()
        assert len(values) <= 256
        assert held.limits[0] <= values.min() <= values.max() <= held.limits[1]


def test_lines_between_entries_are_close_to_the_functions():
    x = np.linspace(-9, 9, 40_001)
    found = gelu(np.floor(x * 2**20 + 0.5).astype(np.int64), 20, 20, 28) / 2**20
    assert np.abs(found - exact_gelu(x)).max() < 8e-5
    d = np.linspace(0, 20, 5001)
    powers = power(np.floor(d * 2**16).astype(np.int64)) / 2**tables.POWER_POINT
    assert np.abs(powers - 2.0 ** -(np.floor(d * 2**16) / 2**16)).max() < 2e-6


def test_inverse_root_has_twice_the_bits_of_its_table():
    totals = np.unique(np.geomspace(1, 2**60, 4001).astype(np.int64))
    root, exponent = inverse_root(totals)
    found = root / 2.0**tables.ROOT_POINT * 2.0 ** (-(exponent + 22) / 2)
    assert np.abs(found * np.sqrt(totals.astype(np.float64)) - 1).max() < 3e-5
