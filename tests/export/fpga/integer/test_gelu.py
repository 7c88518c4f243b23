import numpy as np

from export.fpga.integer.gelu import gelu


def test_gelu_is_relu_far_out_and_one_rounding_off_zero():
    x = np.array([-(1 << 17), -(9 << 10), 0, 9 << 10, (1 << 17) - 1])
    assert gelu(x, 10, 10, 18).tolist() == [0, 0, 0, 9 << 10, (1 << 17) - 1]


def test_gelu_minus_its_mirror_is_the_identity():
    x = np.arange(-4000, 4001, 7)
    difference = gelu(x, 9, 12, 24) - gelu(-x, 9, 12, 24)
    assert np.abs(difference - 8 * x).max() <= 1
