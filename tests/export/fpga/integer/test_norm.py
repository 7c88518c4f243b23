import math

import numpy as np
import pytest

from export.fpga import vit as floats
from export.fpga.design import Quantizer, Widths
from export.fpga.formats import FormatError
from export.fpga.integer.norm import check, layer_norm


@pytest.mark.parametrize("scale", [1e-2, 1.0, 30.0])
@pytest.mark.parametrize(("bits", "bound"), [(24, 80.0), (18, 70.0), (12, 40.0)])
def test_close_to_floats_whatever_the_scale_and_the_mean(scale, bits, bound):
    rng = np.random.default_rng(0)
    x = scale * (rng.standard_normal((9, 48)) + 3)  # E[x²] - E[x]² would cancel
    layer = floats.LayerNorm(rng.uniform(0.5, 2, 48), rng.standard_normal(48), 1e-6)
    exact = layer(x)
    largest = {"x": float(np.abs(x).max()), "y": float(np.abs(exact).max())}
    q = Quantizer(Widths(bits, 12), largest)
    given, wanted = q.activation("x"), q.activation("y")
    made = q.norm("n", layer, given, wanted)
    found = wanted.value(layer_norm(given.round(x), made, bits))
    noise = ((found - layer(given.value(given.round(x)))) ** 2).sum()
    assert 10 * math.log10((exact**2).sum() / noise) > bound


def test_a_constant_token_gives_the_bias():
    layer = floats.LayerNorm(np.ones(8), np.linspace(-1, 1, 8), 1e-6)
    q = Quantizer(Widths(16, 8), {"x": 4.0, "y": 2.0})
    given, wanted = q.activation("x"), q.activation("y")
    made = q.norm("n", layer, given, wanted)
    for value in (0.0, 2.5, -4.0):
        found = layer_norm(given.round(np.full((1, 8), value)), made, 16)
        assert np.abs(wanted.value(found)[0] - layer.bias).max() <= 2.0**-wanted.point


def test_sizes_whose_sums_are_not_exact_are_refused():
    check(1024, 24)
    with pytest.raises(FormatError, match="layer norm"):
        check(1024, 32)
