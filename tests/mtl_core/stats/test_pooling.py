import numpy as np
import pytest

from mtl_core.errors import ArgumentError
from mtl_core.stats import partial_pooling

EFFECTS = np.array([28, 8, -3, 7, -1, 1, 18, 12.0])
ERRORS = np.array([15, 10, 16, 11, 9, 11, 10, 18.0])
"""Coaching in eight schools (Rubin 1981)."""


def dense_reference(d, se, scale):
    """Both parameters on a grid, nothing integrated by hand but δ given them."""
    mu = np.linspace(-150, 170, 2001)[:, None]
    log_tau = np.linspace(np.log(1e-4), np.log(2000), 2001)
    tau = np.exp(log_tau)
    log_p = log_tau - np.log1p((tau / scale) ** 2)  # d tau = tau d log tau
    for effect, error in zip(d, se, strict=True):
        variance = error**2 + tau**2
        log_p = log_p - 0.5 * (np.log(variance) + (effect - mu) ** 2 / variance)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    keep = se[:, None] ** 2 / (se[:, None] ** 2 + tau**2)
    of_tau, of_mu = p.sum(0), p.sum(1)
    mean_mu = (p * mu).sum(0)  # times the mass of each tau
    return {
        "effects": d * ((1 - keep) @ of_tau) + keep @ mean_mu,
        "shrinkage": keep @ of_tau,
        "mean": float(of_mu @ mu[:, 0]),
        "spread": float(of_tau @ tau),
        "positive": float(of_mu[mu[:, 0] > 0].sum() + of_mu[mu[:, 0] == 0].sum() / 2),
    }


def test_eight_schools():
    found = partial_pooling(EFFECTS, ERRORS)
    reference = dense_reference(EFFECTS, ERRORS, float(np.median(ERRORS)))
    estimates = np.array([e.estimate for e in found.effects])
    assert estimates == pytest.approx(reference["effects"], abs=1e-3)
    assert found.shrinkage == pytest.approx(reference["shrinkage"], abs=1e-3)
    assert found.mean.estimate == pytest.approx(reference["mean"], abs=1e-3)
    assert found.positive == pytest.approx(reference["positive"], abs=1e-3)
    assert found.spread.estimate == pytest.approx(reference["spread"], abs=1e-2)


def test_pattern_of_shrinkage():
    found = partial_pooling(EFFECTS, ERRORS)
    shrinkage = np.array(found.shrinkage)
    assert ((shrinkage > 0) & (shrinkage < 1)).all()
    assert (np.diff(shrinkage[np.argsort(ERRORS, kind="stable")]) >= -1e-12).all()
    estimates = np.array([e.estimate for e in found.effects])
    assert np.ptp(estimates) < np.ptp(EFFECTS)
    centre = found.mean.estimate
    assert (np.abs(estimates - centre) < np.abs(EFFECTS - centre) + 0.5).all()
    for effect, error in zip(found.effects, ERRORS, strict=True):
        assert effect.width < 2 * 1.96 * error
    assert found.new_task.width > found.mean.width
    assert found.new_task.low < found.mean.low


def test_equal_effects_are_drawn_together():
    found = partial_pooling([1.0] * 5, [0.5] * 5)
    assert [e.estimate for e in found.effects] == pytest.approx([1.0] * 5)
    assert found.mean.estimate == pytest.approx(1)
    assert min(found.shrinkage) > 0.5
    assert found.positive > 0.99


def test_precise_effects_are_left_alone():
    """Errors far below the differences: the grid has to reach there."""
    effects = np.array([0.0, 1.0, -2.0, 3.0])
    found = partial_pooling(effects, np.full(4, 1e-3))
    assert [e.estimate for e in found.effects] == pytest.approx(effects, abs=1e-4)
    assert max(found.shrinkage) < 1e-4
    assert [e.width for e in found.effects] == pytest.approx([2 * 1.96e-3] * 4, rel=0.01)
    assert found.mean.estimate == pytest.approx(0.5, abs=0.01)


def test_units_do_not_matter():
    found, scaled = (
        partial_pooling(EFFECTS, ERRORS, 5.0),
        partial_pooling(1e-4 * EFFECTS, 1e-4 * ERRORS, 5e-4),
    )
    assert scaled.mean.low == pytest.approx(1e-4 * found.mean.low)
    assert scaled.new_task_chances.better == pytest.approx(found.new_task_chances.better)


def test_three_numbers_for_everything():
    found = partial_pooling(EFFECTS, ERRORS, margin=2.0)
    for chances in (*found.chances, found.mean_chances, found.new_task_chances):
        assert chances.worse + chances.equal + chances.better == pytest.approx(1)
        assert chances.equal > 0.02
    assert found.new_task_chances.better < found.mean_chances.better < found.positive


def test_intervals_hold_their_mass():
    """Against draws from the posterior: τ by its mass, then μ and δ, which are normal."""
    from mtl_core.stats.pooling import _posterior_of_tau

    rng = np.random.default_rng(0)
    tau, mass = _posterior_of_tau(EFFECTS, ERRORS, 11.0)
    t = rng.choice(tau, p=mass, size=200_000)
    weight = 1 / (ERRORS**2 + t[:, None] ** 2)
    mu = rng.normal((weight @ EFFECTS) / weight.sum(1), 1 / np.sqrt(weight.sum(1)))
    found = partial_pooling(EFFECTS, ERRORS)
    assert (found.mean.low, found.mean.high) == pytest.approx(
        tuple(np.quantile(mu, [0.025, 0.975])), abs=0.2
    )
    new = np.quantile(rng.normal(mu, t), [0.025, 0.5, 0.975])
    assert (found.new_task.low, found.new_task.estimate, found.new_task.high) == pytest.approx(
        tuple(new), abs=0.5
    )
    assert (found.spread.low, found.spread.high) == pytest.approx(
        tuple(np.quantile(t, [0.025, 0.975])), abs=0.3
    )
    keep = ERRORS[0] ** 2 / (ERRORS[0] ** 2 + t**2)
    first = rng.normal((1 - keep) * EFFECTS[0] + keep * mu, np.sqrt(keep) * t)
    assert (found.effects[0].low, found.effects[0].high) == pytest.approx(
        tuple(np.quantile(first, [0.025, 0.975])), abs=0.4
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: partial_pooling([1.0], [1.0]), "effects must hold at least 2 values"),
        (lambda: partial_pooling([1.0, 2.0], [1.0]), "errors must hold at least 2 values"),
        (lambda: partial_pooling([1, 2, 3], [1, 1]), "errors must have as many entries as effects"),
        (lambda: partial_pooling([1, 2], [1, 0]), "errors must be above 0"),
        (lambda: partial_pooling([1, np.nan], [1, 1]), "effects must be finite"),
        (lambda: partial_pooling([1, 2], [1, 1], scale=0.0), "scale must be finite and above 0"),
        (
            lambda: partial_pooling([1, 2], [1, 1], margin=-1),
            "margin must be finite and at",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()
