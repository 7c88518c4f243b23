import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate

from mtl_core.errors import ArgumentError
from mtl_core.stats import (
    BoundedProcess,
    SignProcess,
    TwoDirections,
    TwoSampleProcess,
    reject,
)
from mtl_core.stats.eprocess import sign_log_e

ROOT = Path(__file__).parents[3]
spec = importlib.util.spec_from_file_location("eprocesses", ROOT / "benchmarks/eprocesses.py")
pilot = sys.modules["eprocesses"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pilot)

RUNS = 4000
LIMIT = 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)


@pytest.mark.parametrize(("wins", "value"), [(6, 18.1), (7, 31.9)])
def test_straight_wins(wins, value):
    """With no losses, E = 2^(W+1) (1 - 2^-(W+1)) / (W+1): seven decide at 0.05."""
    process = SignProcess()
    found = process.update(np.ones(wins))
    exact = 2 ** (wins + 1) * (1 - 2 ** -(wins + 1)) / (wins + 1)
    assert found == pytest.approx(exact)
    assert found == pytest.approx(value, abs=0.05)
    assert process.rejected == (wins == 7)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (0, 4), (3, 1), (12, 30), (60, 40)])
def test_sign_process_is_the_mixture(wins, losses):
    def ratio(theta):
        return 2 * (2 * theta) ** wins * (2 * (1 - theta)) ** losses

    mixture, _ = integrate.quad(ratio, 0.5, 1, epsabs=0)
    assert float(np.exp(sign_log_e(wins, losses))) == pytest.approx(mixture, rel=1e-6)


def test_sign_process_is_fair():
    """At one half, the mean of what follows is what is there: a martingale."""
    w, n = np.meshgrid(np.arange(60), np.arange(60), indexing="ij")
    now, won, lost = (np.exp(sign_log_e(*c)) for c in ((w, n), (w + 1, n), (w, n + 1)))
    assert (won + lost) / 2 == pytest.approx(now)


def test_lopsided_counts_stay_finite():
    losses = np.array([500, 980, 1100, 5000, 10**6])
    found = sign_log_e(np.zeros(5), losses)
    assert found == pytest.approx(-np.log(losses + 1) + np.log1p(-(2.0 ** -(losses + 1))), abs=1e-9)
    mixed = sign_log_e(np.full(400, 5), np.arange(900, 1300))
    assert (np.diff(mixed) < 0).all()
    assert np.abs(np.diff(mixed, 2)).max() < 1e-4
    assert np.isfinite(sign_log_e(10**6, 3))
    assert SignProcess().update(np.ones(5000)) > 1e300


def test_only_signs_count():
    a, b = SignProcess(), SignProcess()
    first, second = np.array([0.9, 0.4, 0.5, 0.7]), np.array([0.1, 0.5, 0.5, 0.69])
    a.update(first, second)
    for value in np.sign(first - second):
        b.update(value)
    assert a.e_value == b.e_value
    assert (a.wins, a.losses, a.items) == (2, 1, 4)


@pytest.mark.parametrize("kind", [SignProcess, TwoSampleProcess, BoundedProcess])
def test_one_by_one_or_at_once(kind):
    rng = np.random.default_rng(0)
    first, second = (rng.random((2, 80)) < [[0.7], [0.5]]).astype(float)
    once, slowly = kind(), kind()
    once.update(first, second)
    slowly.update(first[:7], second[:7])
    for a, b in zip(first[7:], second[7:], strict=True):
        slowly.update(a, b)
    assert slowly.e_value == pytest.approx(once.e_value)
    assert slowly.log_peak == pytest.approx(once.log_peak)
    assert once.p_value == pytest.approx(math.exp(-once.log_peak))


@pytest.mark.parametrize("rates", [(0.1, 0.1), (0.5, 0.5), (0.3, 0.8)])
def test_unpaired_factor_is_an_e_variable(rates):
    """Its mean over the next pair is at most 1 for every truth in the null hypothesis."""
    from mtl_core.stats.eprocess import two_sample_log_factors

    pairs = np.array([[[0, 0, 1, 1]], [[0, 1, 0, 1]]], dtype=bool)  # (2, 1, 4)
    estimates = np.random.default_rng(0).random((2, 500, 1)) * np.ones(4)
    factors = np.exp(two_sample_log_factors(np.broadcast_to(pairs, estimates.shape), estimates))
    first, second = rates
    chance = np.outer([1 - first, first], [1 - second, second]).ravel()
    assert (factors @ chance).max() <= 1 + 1e-12
    against = np.outer([0.1, 0.9], [0.8, 0.2]).ravel()
    assert (factors @ against).max() > 1


def test_evidence_once_found_stays():
    process = SignProcess()
    process.update(np.ones(8))
    process.update(-np.ones(50))
    assert process.e_value < 1
    assert process.rejected


def test_several_comparisons_raise_the_threshold():
    process = SignProcess(comparisons=3)
    assert process.threshold == pytest.approx(60)
    process.update(np.ones(7))
    assert not process.rejected
    process.update(np.ones(2))
    assert process.rejected
    assert reject([61.0, 59.0, np.inf], 0.05).tolist() == [True, False, True]


def test_two_directions():
    race = TwoDirections(SignProcess)
    assert race.update(np.ones(7)) == "undecided"
    assert race.update(1.0) == "better"
    assert TwoDirections(SignProcess, sides=1).update(np.ones(7)) == "better"
    assert TwoDirections(TwoSampleProcess).update([0] * 20, [1] * 20) == "worse"
    ranged = TwoDirections(lambda alpha: BoundedProcess(alpha, width=100.0))
    assert ranged.update([40.0] * 60, [70.0] * 60) == "worse"
    assert race.worse.alpha == 0.025


@pytest.mark.parametrize("kind", [SignProcess, TwoSampleProcess, BoundedProcess])
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1, 0], [1, 0, 1], "second must have as many entries as first"),
        ([1, 0], 1, "second must have as many entries as first"),
        (1, [1, 0], "second must have as many entries as first"),
        ([], [], "first must not be empty"),
        ([1, np.nan], [0, 0], "first must be finite"),
        ([[1, 0]], [[1, 0]], "first must have 1 axis"),
        (["won"], [0], "first must hold numbers"),
    ],
)
def test_bad_results_are_refused_and_change_nothing(kind, first, second, message):
    process = kind()
    process.update([1, 0, 1], [0, 0, 1])
    before = (process.e_value, process.items)
    with pytest.raises(ArgumentError, match=message):
        process.update(first, second)
    assert (process.e_value, process.items) == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SignProcess(0.0), "alpha must lie between"),
        (lambda: SignProcess(comparisons=0), "comparisons must be a whole number"),
        (lambda: TwoSampleProcess(prior=0), "prior must be finite and above 0"),
        (lambda: TwoSampleProcess().update([0.5], [1]), "first must hold 0 and 1 only"),
        (lambda: TwoSampleProcess().update([0, 1]), "second must be given"),
        (lambda: TwoDirections(SignProcess, sides=3), "sides must be 1 or 2"),
        (lambda: reject([]), "e_values must be a row"),
        (lambda: reject([1.0, np.nan]), "e_values must be at least 0"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_error_control(rate, correlation):
    """Looking after each of 200 items: at most α, where peeking at a z-test is far off."""
    old, new = pilot.successes((rate, rate), correlation, (RUNS, 200), seed=7)
    assert pilot.decided(pilot.sign_paths(old, new))[0] <= LIMIT
    assert pilot.decided(pilot.two_sample_paths(old, new))[0] <= LIMIT
    sign, two = SignProcess(), TwoSampleProcess()  # what the paths are made of
    sign.update(new[0], old[0])
    two.update(new[0], old[0])
    assert sign.log_e == pytest.approx(pilot.sign_paths(old[:1], new[:1])[0, -1])
    assert two.log_e == pytest.approx(pilot.two_sample_paths(old[:1], new[:1])[0, -1])


@pytest.mark.slow
def test_error_control_in_two_directions():
    old, new = pilot.successes((0.5, 0.5), 0.0, (RUNS, 200), seed=8)
    sides = [pilot.sign_paths(*pair).max(1) >= math.log(40) for pair in ((old, new), (new, old))]
    assert np.mean(sides[0] | sides[1]) <= LIMIT


@pytest.mark.slow
def test_power():
    old, new = pilot.successes((0.5, 0.7), 0.0, (RUNS, 200), seed=9)
    rejects, items = pilot.decided(pilot.sign_paths(old, new))
    assert rejects >= 0.90
    assert items <= 95
    old, new = pilot.successes((0.5, 0.7), 0.8, (RUNS, 200), seed=9)
    rejects, items = pilot.decided(pilot.sign_paths(old, new))
    assert rejects >= 0.99
    assert items <= 50


@pytest.mark.slow
def test_table_of_the_docs():
    """The figures in docs/statistics.md are what the benchmark prints."""
    assert pilot.table(RUNS) in (ROOT / "docs/statistics.md").read_text()
