import numpy as np
from fpga_toys import images, random_vit

from export.fpga import vit as floats
from export.fpga.design import Widths, design
from export.fpga.integer.attention import attention


def test_contexts_are_close_to_floats():
    vit = random_vit(3)
    made = design(vit, ("left",), Widths(24, 16), images(2))
    rng = np.random.default_rng(0)
    largest = made.ranges.largest["blocks.0.norm1"]
    x = rng.uniform(-largest, largest, (7, 16))
    seen = {}
    floats._attend(x, vit.blocks[0], "b", lambda name, t: seen.setdefault(name, t))
    held = made.formats["blocks.0.norm1"]
    given = np.floor(x * 2.0 ** (held["W"] - held["I"]) + 0.5).astype(np.int64)
    out = made.formats["blocks.0.context"]
    found = attention(given, made.encoder.blocks[0].attention, 24)
    exact = floats._attend(x, vit.blocks[0], "b", lambda _, t: t)
    assert found.shape == exact.shape
    assert np.abs(found / 2.0 ** (out["W"] - out["I"]) - exact).max() < 1e-3
    assert {"b.query", "b.key", "b.value"} <= seen.keys()
