import numpy as np
import pytest

from export.fpga.formats import Format, FormatError, fit, integer_bits, literal, sum_bits
from mtl_core.errors import ArgumentError


def test_integer_bits_come_from_the_range():
    found = [integer_bits(v) for v in (0.4, 0.5, 0.56, 1.0, 1.01, 4.0, 0.0)]
    assert found == [0, 0, 1, 1, 2, 3, 1]
    assert integer_bits(3.0, margin=2.0) == 4
    with pytest.raises(ArgumentError, match="finite"):
        integer_bits(float("nan"))


@pytest.mark.parametrize("largest", [1e-4, 0.3, 0.5, 1.0, 1.9999, 2.0, 77.0])
@pytest.mark.parametrize("bits", [8, 12, 24])
def test_what_was_seen_fits_and_is_rounded_to_half_a_step(largest, bits):
    held = fit(largest, bits)
    values = np.linspace(-largest, largest, 101)
    error = np.abs(held.value(held.round(values)) - values)
    assert error.max() <= 0.5 * 2.0**-held.point * (1 + 1e-9)
    finer = Format(bits, held.point + 2)
    assert largest > finer.limits[1] * 2.0**-finer.point  # two integer bits are never wasted


def test_rounding_is_unbiased_and_truncation_is_not():
    held = Format(8, 7)
    values = np.random.default_rng(0).uniform(-0.9, 0.9, 20_000)
    step = 2.0**-7
    assert abs((held.value(held.round(values)) - values).mean()) < 0.02 * step
    assert (held.value(held.truncate(values)) - values).mean() == pytest.approx(-step / 2, rel=0.05)


def test_constants_must_be_representable():
    assert literal("eight", 8.0, Format(12, 7)) == 1024
    with pytest.raises(FormatError, match=r"sixteen = 16.0 does not fit fixed<12,5>.*-16 to 15.99"):
        literal("sixteen", 16.0, Format(12, 7))
    with pytest.raises(FormatError, match="is zero in"):
        literal("tiny", 1e-6, Format(12, 7))
    with pytest.raises(FormatError, match="ufixed<8,0>"):
        literal("negative", -0.1, Format(8, 8, signed=False))


def test_exact_sums_have_a_limit():
    assert sum_bits("x", 24, 16, 192) == 48
    with pytest.raises(FormatError, match=r"exact sums of scores need 70 bits"):
        sum_bits("scores", 32, 32, 64)


def test_width_is_checked():
    with pytest.raises(ArgumentError, match=r"2\.\.32"):
        Format(33, 0)
