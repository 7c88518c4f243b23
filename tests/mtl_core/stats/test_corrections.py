import numpy as np
import pytest
from scipy import stats

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.stats import (
    adjust_pairs,
    bonferroni,
    holm,
    paired_t,
    pairwise_p_values,
    separated,
    wilcoxon_or_t,
)

RNG = np.random.default_rng(0)


def test_holm_by_its_steps():
    """Restated from the paper: smallest first, at α/m, α/(m-1), ..., until one fails."""
    for _ in range(200):
        p = RNG.random(7) ** 3
        adjusted = holm(p)
        for alpha in (0.01, 0.05, 0.3):
            rejected = np.zeros(7, dtype=bool)
            for step, i in enumerate(np.argsort(p)):
                if p[i] > alpha / (7 - step):
                    break
                rejected[i] = True
            assert np.array_equal(adjusted <= alpha, rejected)


def test_order_of_the_corrections():
    p = RNG.random(20) ** 2
    assert (p <= holm(p)).all()
    assert (holm(p) <= bonferroni(p)).all()
    assert holm([0.03]).tolist() == [0.03]
    assert np.array_equal(holm(p)[::-1], holm(p[::-1]))


def test_pairs_count_once():
    p = np.ones((3, 3))
    p[0, 1] = p[1, 0] = 0.02
    assert adjust_pairs(p, "bonferroni")[0, 1] == pytest.approx(0.06)
    assert adjust_pairs(p)[0, 1] == pytest.approx(0.06)
    assert adjust_pairs(p, "none")[0, 1] == 0.02
    assert not separated(p).any()
    assert separated(p, correction="none").sum() == 2


def test_all_tasks_are_one_family():
    p = np.ones((2, 3, 3))
    p[0, 0, 1] = p[0, 1, 0] = 0.01
    assert adjust_pairs(p[0])[0, 1] == pytest.approx(0.03)
    assert adjust_pairs(p)[0, 0, 1] == pytest.approx(0.06)
    assert adjust_pairs(p).shape == p.shape


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: holm([]), "p_values must not be empty"),
        (lambda: holm([0.1, np.nan]), "p_values must be finite"),
        (lambda: bonferroni([1.2]), r"p_values must lie between 0 and 1, found 1\.2"),
        (lambda: adjust_pairs([0.1]), r"p_values must be \(K, K\)"),
        (lambda: adjust_pairs([[1, 0.1], [0.2, 1]]), "p_values must be symmetric"),
        (lambda: adjust_pairs([[1, np.nan], [np.nan, 1]]), "p_values must be finite"),
        (lambda: adjust_pairs(np.ones((2, 3))), r"p_values must be \(K, K\)"),
        (lambda: separated(np.ones((2, 2)), alpha=0), "alpha must lie between"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


def test_unknown_correction():
    with pytest.raises(UnknownNameError, match="Did you mean holm"):
        adjust_pairs(np.ones((2, 2)), "hollm")


def pairs_of(p_values):
    """(runs, 15) p-values as (runs, 6, 6) matrices."""
    i, j = np.triu_indices(6, 1)
    out = np.ones((len(p_values), 6, 6))
    out[:, i, j] = out[:, j, i] = p_values
    return out


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [False, True])
def test_family_wise_error(ranks):
    """Six equal methods, ten seeds: any false separation at 0.05 in at most 0.065 of the tables."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4000, 10, 6)) + rng.normal(size=(4000, 10, 1))
    i, j = np.triu_indices(6, 1)
    d = scores[:, :, i] - scores[:, :, j]
    p = pairs_of((stats.wilcoxon(d, axis=1) if ranks else stats.ttest_1samp(d, 0, axis=1)).pvalue)
    for k in range(20):  # SciPy here, for speed
        ours = pairwise_p_values(scores[k], wilcoxon_or_t if ranks else paired_t)
        assert np.allclose(ours, p[k])
    errors = np.mean([separated(q).any() for q in p])
    assert errors <= 0.065
    assert (p <= 0.05).any((1, 2)).mean() > 0.25
