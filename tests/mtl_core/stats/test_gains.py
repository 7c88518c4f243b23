import numpy as np
import pytest

from mtl_core.errors import ArgumentError
from mtl_core.metrics.delta_m import delta_m
from mtl_core.stats import delta_m_interval, t_interval, task_gain_intervals

RNG = np.random.default_rng(0)
SCORES = RNG.normal([0.6, 12.0, 0.3], [0.02, 0.5, 0.01], size=(5, 3))
BASELINES = RNG.normal([0.58, 12.5, 0.31], [0.02, 0.5, 0.01], size=(4, 3))
UP = [True, False, True]


def test_estimate_is_delta_m_of_means():
    names = ["a", "b", "c"]
    means = [
        {n: {"m": float(v)} for n, v in zip(names, x.mean(0), strict=True)}
        for x in (SCORES, BASELINES)
    ]
    directions = {n: {"m": up} for n, up in zip(names, UP, strict=True)}
    found = delta_m_interval(SCORES, BASELINES, UP)
    assert found.estimate == pytest.approx(delta_m(*means, directions))


def test_units_and_directions_do_not_matter():
    found = delta_m_interval(SCORES, BASELINES, UP)
    scale = np.array([100.0, 0.01, 3.0])
    scaled = delta_m_interval(SCORES * scale, BASELINES * scale, UP)
    flipped = delta_m_interval(-SCORES, -BASELINES, [False, True, False])
    for other in (scaled, flipped):
        assert (other.low, other.high) == pytest.approx((found.low, found.high))


def test_baselines_uncertainty_widens():
    """Against the same means without scatter, which is how most tables are made."""
    constant = np.tile(BASELINES.mean(0), (4, 1))
    narrow = delta_m_interval(SCORES, constant, UP)
    wide = delta_m_interval(SCORES, BASELINES, UP)
    assert narrow.estimate == pytest.approx(wide.estimate)
    assert wide.width > narrow.width > 0


def test_constant_baseline_gives_student():
    """One task against a constant: the jackknife of a mean is its standard error."""
    constant = np.full((3, 1), 0.5)
    found = delta_m_interval(SCORES[:, :1], constant, [True])
    student = t_interval(100 * (SCORES[:, 0] / 0.5 - 1))
    assert (found.low, found.high) == pytest.approx((student.low, student.high))


def test_pairs_cancel_what_they_share():
    shared = RNG.normal(size=(6, 1)) * 0.05
    base = np.full((6, 2), 0.5) + shared
    paired = delta_m_interval(base * 1.02, base, [True, True], paired=True)
    assert paired.estimate == pytest.approx(2)
    assert paired.width < 1e-9
    assert delta_m_interval(base * 1.02, base, [True, True]).width > 5


def test_weights():
    parts = task_gain_intervals(SCORES, BASELINES, UP)
    found = delta_m_interval(SCORES, BASELINES, UP, weights=[1, 0, 3])
    assert found.estimate == pytest.approx((parts[0].estimate + 3 * parts[2].estimate) / 4)
    alike = delta_m_interval(SCORES, BASELINES, UP, weights=[2, 2, 2])
    assert alike == delta_m_interval(SCORES, BASELINES, UP)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": SCORES[:1]}, "scores must hold at least 2 seeds, found 1"),
        ({"baselines": BASELINES[:1]}, "baselines must hold at least 2 seeds"),
        ({"baselines": BASELINES[:, :2]}, "baselines must have the 3 tasks of scores, found 2"),
        ({"higher_is_better": [True]}, "higher_is_better must have as many entries"),
        ({"higher_is_better": [1, -1, 1]}, "higher_is_better must hold 0 and 1"),
        ({"scores": SCORES * np.nan}, "scores must be finite"),
        ({"scores": []}, "scores must have 2 axes"),
        ({"scores": np.zeros((0, 3))}, "scores must not be empty"),
        ({"baselines": BASELINES * [1, 0, 1]}, "baselines must have no mean of 0, found '0 in col"),
        ({"weights": [0, 0, 0]}, "weights must be at least 0 and not all 0"),
        ({"weights": [1, 1]}, "weights must have as many"),
        ({"paired": True}, "scores must have as many rows as baselines"),
        ({"level": 1.0}, "level must lie between"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"scores": SCORES, "baselines": BASELINES, "higher_is_better": UP} | change
    with pytest.raises(ArgumentError, match=message):
        delta_m_interval(**arguments)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "of_baseline"), [(3, 3), (10, 3), (5, 10)])
def test_coverage(seeds, of_baseline):
    """Both random: ours covers, and the usual interval around a constant baseline does not."""
    rng = np.random.default_rng(seeds)
    truth = 100 * np.mean([0.55 / 0.5 - 1, -(9 / 10 - 1)])
    hits, usual, runs = 0, 0, 2000
    for _ in range(runs):
        scores = rng.normal([0.55, 9], [0.01, 0.2], size=(seeds, 2))
        baselines = rng.normal([0.5, 10], [0.01, 0.2], size=(of_baseline, 2))
        hits += truth in delta_m_interval(scores, baselines, [True, False])
        means = baselines.mean(0)
        gains = 100 * ((scores - means) / means * [1, -1]).mean(1)
        usual += truth in t_interval(gains)
    assert 0.92 <= hits / runs <= 0.985
    assert usual < hits - 0.03 * runs
