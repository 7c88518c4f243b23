import numpy as np

from export.fpga.integer.arithmetic import product, saturated, shifted, written


def test_shifts_round_halves_up_and_go_both_ways():
    x = np.arange(-17, 18)
    for right in range(4):
        expected = np.floor(x / 2**right + 0.5).astype(np.int64)
        assert (shifted(x, right) == expected).all()
        assert (shifted(x, np.full(x.shape, right)) == expected).all()
    assert (shifted(x, -3) == 8 * x).all()
    assert (shifted(x, np.full(x.shape, -3)) == 8 * x).all()


def test_write_back_saturates():
    assert saturated(np.array([-200, -128, 127, 128]), 8).tolist() == [-128, -128, 127, 127]
    assert written(np.array([511, 507]), 2, 8).tolist() == [127, 127]


def test_products_are_exact_whichever_way_they_are_taken():
    rng = np.random.default_rng(0)
    for bits in (12, 30):
        a = rng.integers(-(2**bits), 2**bits, (5, 7))
        b = rng.integers(-(2**28), 2**28, (7, 3))
        exact = a.astype(object) @ b.astype(object)
        assert (product(a, b).astype(object) == exact).all()
