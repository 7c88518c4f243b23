import numpy as np
import pytest

from mtl_core.stats import digits
from mtl_core.stats.records import Chances, Interval


@pytest.mark.parametrize("size", 10.0 ** np.arange(-5, 4))
@pytest.mark.parametrize("first", [1.04, 1.9, 2.0, 5.5, 9.4])
def test_the_last_digit_shown_is_one_that_the_interval_supports(size, first):
    """A unit of the last place is between a twentieth of the half width and all of it."""
    half = first * size
    unit = 10.0 ** -digits.decimals(half)
    if digits.decimals(half) < digits.MOST:
        assert half / 20 <= unit <= half * (1 + 1e-9)


def test_values_with_intervals():
    def around(value, half):
        return digits.estimate(value, Interval(value, value - half, value + half, 0.95))

    assert around(0.912345, 0.0043) == "0.912 ± 0.004"
    assert around(0.912345, 0.0143) == "0.912 ± 0.014"
    assert around(0.912345, 0.143) == "0.91 ± 0.14"
    assert around(1234.5, 320) == "1200 ± 300"
    assert around(-0.2, 3.1) == "0 ± 3"
    assert around(-7.24, 3.1) == "−7 ± 3"
    assert around(0.5, 0.0) == "0.5 ± 0"
    assert digits.estimate(0.2, Interval(0.2, 0.19, 0.21, 0.95), plus=True) == "+0.200 ± 0.010"


def test_intervals_that_are_not_symmetric_show_both_bounds():
    assert digits.estimate(0.98, Interval(0.98, 0.9123, 0.9961, 0.95)) == "0.98 [0.91, 1.00]"


def test_without_an_interval_two_digits_with_a_caution():
    assert digits.estimate(0.91234, None) == "≈ 0.91"
    assert digits.estimate(-3.27, None, plus=True) == "≈ −3.3"
    assert digits.estimate(3.27, None, plus=True) == "≈ +3.3"


def test_chances():
    assert digits.chances(None) == "–"
    assert digits.chances(Chances(0.001, 0.029, 0.97)) == "< 0.01 / 0.03 / **0.97**"
    assert digits.chances(Chances(0.3, 0.3, 0.4)) == "0.30 / 0.30 / 0.40"
    assert digits.chance(1.0) == "> 0.99"


@pytest.mark.parametrize(
    ("value", "text"),
    [(812, "812"), (1966656, "1.97 M"), (45.31e6, "45.3 M"), (452e9, "452 G"), (2e12, "2.00 T")],
)
def test_large_numbers_in_short(value, text):
    assert digits.count(value) == text
