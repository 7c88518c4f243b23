import numpy as np
import pytest

from mtl_core.errors import ArgumentError
from mtl_core.stats import bca, seeds_by_items, t_interval, variance_components


def layout(rng, seeds, items, seed, item, residual):
    return (
        seed * rng.normal(size=(seeds, 1))
        + item * rng.normal(size=items)
        + residual * rng.normal(size=(seeds, items))
    )


def test_components_are_found():
    found = [
        variance_components(layout(np.random.default_rng(i), 30, 60, 0.5, 1.0, 0.3))
        for i in range(40)
    ]
    for name, truth in (("seed", 0.5), ("item", 1.0), ("residual", 0.3)):
        assert np.sqrt(np.mean([getattr(f, name) ** 2 for f in found])) == pytest.approx(
            truth, rel=0.05
        )


def test_additive_layout_is_exact():
    found = variance_components(np.array([[0.0], [2.0]]) + np.array([1.0, 2.0, 3.0]))
    assert found.seed == pytest.approx(np.sqrt(2))
    assert found.item == pytest.approx(1)
    assert found.residual == pytest.approx(0)


def test_wider_than_either_source_alone():
    scores = layout(np.random.default_rng(0), 5, 40, 0.3, 1.0, 0.3)
    both = seeds_by_items(scores)
    assert both.estimate == pytest.approx(scores.mean())
    assert both.width > t_interval(scores.mean(1)).width
    assert both.width > bca(scores[0]).width * 0.9


def test_seeds_and_items_are_alike_to_it():
    scores = layout(np.random.default_rng(1), 6, 9, 0.3, 1.0, 0.3)
    assert seeds_by_items(scores).width == pytest.approx(seeds_by_items(scores.T).width)


def test_items_alike_leave_student_over_seeds():
    values = np.array([0.1, 0.3, 0.2])
    found, student = seeds_by_items(np.tile(values[:, None], 5)), t_interval(values)
    assert (found.low, found.high) == pytest.approx((student.low, student.high))
    assert seeds_by_items(np.full((2, 3), 0.5)).width == 0


@pytest.mark.parametrize("values", [[[1, 2, 3]], [[1], [2]], [], [1, 2], [[1, np.nan], [1, 2]]])
def test_bad_values_are_refused(values):
    for of in (seeds_by_items, variance_components):
        with pytest.raises(ArgumentError, match="values must"):
            of(values)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [(0.3, 1.0, 0.5), (1.0, 0.5, 0.2), (0.05, 1.0, 0.5)])
@pytest.mark.parametrize(("seeds", "items"), [(3, 50), (5, 100), (10, 30)])
def test_coverage(seeds, items, scale):
    rng = np.random.default_rng(0)
    hits = [0.0 in seeds_by_items(layout(rng, seeds, items, *scale)) for _ in range(1000)]
    assert 0.915 <= np.mean(hits) <= 0.98
