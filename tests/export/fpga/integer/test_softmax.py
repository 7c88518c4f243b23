import math

import numpy as np

from export.fpga.integer.softmax import (
    EXPONENT_POINT,
    FACTOR_POINT,
    PROBABILITY_POINT,
    SCORE_POINT,
    exponents,
    softmax,
)
from export.fpga.vit import softmax as exact

ONE = 1 << PROBABILITY_POINT


def mantissas(z):
    return np.floor(np.asarray(z) * 2**EXPONENT_POINT + 0.5).astype(np.int64)


def test_rows_are_probabilities():
    rng = np.random.default_rng(0)
    z = rng.normal(0, 6, (40, 129))
    p = softmax(mantissas(z)) / ONE
    assert np.abs(p - exact(z * math.log(2))).max() < 2e-5
    assert np.abs(p.sum(-1) - 1).max() < 129 * 2.0**-20
    assert (p >= 0).all()


def test_the_order_of_the_largest_does_not_matter_much_and_one_is_all():
    up = softmax(mantissas(np.linspace(-8, 8, 33)))
    down = softmax(mantissas(np.linspace(8, -8, 33)))
    assert np.abs(up - down[::-1]).max() <= 64
    assert softmax(mantissas([[3.0]])).tolist() == [[ONE]]


def test_equal_and_saturated_scores_are_shared_evenly():
    limits = exponents(np.full(4, 2**62 - 1), 0, 1 << FACTOR_POINT)
    assert (limits == limits[0]).all()
    assert (softmax(limits) == ONE // 4).all()
    lowest = np.full(4, -(1 << 31))
    assert (softmax(lowest) == ONE // 4).all()


def test_only_counted_numbers_make_up_the_sum():
    z = mantissas([2.0, 1.0, 0.0, -1.0])
    counted = np.array([True, False, True, False])
    p = softmax(z, counted) / ONE
    assert abs(p[0] + p[2] - 1) < 1e-5
    assert abs(p[0] / p[2] - 4) < 1e-4


def test_scores_become_exponents_of_two():
    x = np.array([-3.0, 0.5, 2.0])
    sums = np.floor(x * 2.0**30).astype(np.int64)
    factor = round(math.log2(math.e) * 2**FACTOR_POINT)
    found = exponents(sums, 30 - SCORE_POINT, factor) / 2.0**EXPONENT_POINT
    assert np.abs(found - x * math.log2(math.e)).max() < 3e-5
