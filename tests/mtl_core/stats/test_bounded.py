import math

import numpy as np
import pytest

from mtl_core.errors import ArgumentError
from mtl_core.stats import BoundedProcess, confidence_sequence
from mtl_core.stats.bounded import BETS, log_capital

RNG = np.random.default_rng(0)
RUNS = 4000
LIMIT = 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)


def test_value_is_the_mean_over_bets():
    d = RNG.uniform(-0.5, 1, size=30)
    process = BoundedProcess()
    found = process.update(d)
    assert [round(float(b), 2) for b in BETS] == [round(0.05 * k, 2) for k in range(1, 19)]
    assert found == pytest.approx(np.mean([np.prod(1 + bet * d) for bet in BETS]))
    assert process.update(np.zeros(5)) == pytest.approx(found)


def test_pairs_and_range():
    first, second = RNG.random((2, 40))
    scores, percent = BoundedProcess(), BoundedProcess(width=100.0)
    assert scores.update(first, second) == pytest.approx(percent.update(100 * first, 100 * second))
    with pytest.raises(ArgumentError, match=r"first - second must stay within .* found '1\.2 wid"):
        percent.update([60.0], [-60.0])
    with pytest.raises(ArgumentError, match="width must be finite and above 0"):
        BoundedProcess(width=0)
    with pytest.raises(ArgumentError, match="bets must lie between"):
        BoundedProcess(bets=[0.5, 1.0])


def test_worst_values_are_survived():
    process = BoundedProcess()
    process.update(-np.ones(2000))
    assert process.e_value == pytest.approx(0, abs=1e-40)
    process = BoundedProcess()
    assert process.update(np.ones(5000)) > 1e300


def test_interval_agrees_with_the_process():
    """Zero lies outside of it exactly where one of the two directions has rejected."""
    for shift in (-0.3, -0.1, 0.0, 0.1, 0.3):
        d = np.clip(RNG.normal(shift, 0.3, size=120), -1, 1)
        better, worse = BoundedProcess(0.025), BoundedProcess(0.025)
        better.update(d)
        worse.update(-d)
        found = confidence_sequence(d)
        assert (found.low > 0) == better.rejected
        assert (found.high < 0) == worse.rejected


def test_interval_narrows_and_mirrors():
    d = np.clip(RNG.normal(0.1, 0.2, size=400), -1, 1)
    widths = [confidence_sequence(d[:n]).width for n in (1, 20, 100, 400)]
    assert (np.diff(widths) < 0).all()
    found, mirrored = confidence_sequence(d), confidence_sequence(-d)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    scaled = confidence_sequence(50 * d, width=50)
    assert (scaled.low, scaled.high) == pytest.approx((50 * found.low, 50 * found.high))


def test_small_bets_narrow_long_runs():
    coins = np.tile([1.0, -1.0], 10_000)
    fine = confidence_sequence(coins, bets=np.geomspace(0.005, 0.5, 12))
    assert fine.width < 0.9 * confidence_sequence(coins).width


@pytest.mark.parametrize("values", [[], [np.nan], [1.5], [[0.1, 0.2]]])
def test_bad_differences_are_refused(values):
    with pytest.raises(ArgumentError, match="differences must"):
        confidence_sequence(values)


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.8])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_error_control_on_rates(rate, correlation):
    rng = np.random.default_rng(3)
    z = rng.standard_normal((2, RUNS, 200))
    z[1] = correlation * z[0] + math.sqrt(1 - correlation**2) * z[1]
    old, new = z < np.quantile(rng.standard_normal(10**6), rate)
    assert ever_rejected(new.astype(float) - old) <= LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["beta", "rare"])
def test_error_control_on_scores(shape):
    """Graded scores; and rare large losses that many small gains make up for, mean zero."""
    rng = np.random.default_rng(4)
    if shape == "beta":
        d = rng.beta(2, 1, size=(RUNS, 200)) - rng.beta(2, 1, size=(RUNS, 200))
    else:
        d = np.where(rng.random((RUNS, 200)) < 0.05, -0.95, 0.05)
    assert ever_rejected(d) <= LIMIT


def ever_rejected(d):
    """Share of rows of `d` at which the process ever reaches 20."""
    peaks = np.full(len(d), -np.inf)
    capital = np.zeros((len(BETS), len(d)))
    for column in d.T:
        capital += np.log1p(np.outer(BETS, column))
        peaks = np.maximum(peaks, capital.max(0) + np.log(np.exp(capital - capital.max(0)).mean(0)))
    first = BoundedProcess()
    first.update(d[0])
    assert first.log_peak == pytest.approx(max(peaks[0], 0))
    assert log_capital(d[0], BETS)[:, -1] == pytest.approx(capital[:, 0])
    return np.mean(peaks >= math.log(20))


@pytest.mark.slow
def test_coverage_at_all_looks():
    """The interval after the last item holds what every look before it left."""
    rng = np.random.default_rng(5)
    hits = [2 / 3 - 0.4 in confidence_sequence(rng.beta(2, 1, 120) - 0.4) for _ in range(300)]
    assert np.mean(hits) >= 0.95
