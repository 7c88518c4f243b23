import numpy as np
import pytest
from scipy import stats

from mtl_core.errors import ArgumentError
from mtl_core.stats import bca, bca_paired, seeds_by_items, two_level
from mtl_core.stats.bootstrap import chunks, cluster_places

RNG = np.random.default_rng(0)
SKEWED = RNG.exponential(size=60)


@pytest.mark.parametrize("statistic", [np.mean, np.median, np.std])
def test_as_scipy_has_it(statistic):
    found = bca(SKEWED, statistic, draws=4000)
    theirs = stats.bootstrap(
        (SKEWED,), statistic, n_resamples=4000, rng=np.random.default_rng(1), method="BCa"
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.06)
    assert found.estimate == statistic(SKEWED)


def test_mean_is_the_fast_way_to_the_same():
    clusters = np.repeat(np.arange(20), 3)
    for groups in (None, clusters):
        fast, slow = bca(SKEWED, None, groups), bca(SKEWED, np.mean, groups)
        assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high))


def test_draws_are_repeatable():
    assert bca(SKEWED, seed=3) == bca(SKEWED, seed=3)
    assert bca(SKEWED, seed=3) != bca(SKEWED, seed=4)


def test_clusters_widen_where_items_repeat():
    """Five copies of an item are one item."""
    single, copies = RNG.normal(size=40), np.repeat(np.arange(40), 5)
    whole = bca(single)
    repeated = np.repeat(single, 5)
    kept = bca(repeated, clusters=copies)
    assert (kept.low, kept.high) == pytest.approx((whole.low, whole.high))
    assert bca(repeated).width < 0.6 * kept.width


def test_cluster_names_may_be_strings_in_any_order():
    names = np.array([f"image {i}" for i in np.arange(60) % 12])
    order = RNG.permutation(60)
    places = cluster_places(names, SKEWED)
    assert sorted(np.concatenate(places).tolist()) == list(range(60))
    assert all(len(set(names[p])) == 1 for p in places)
    assert bca(SKEWED, clusters=names).width == pytest.approx(
        bca(SKEWED[order], clusters=names[order]).width
    )


def test_pairs_cancel_hard_items():
    hard = RNG.normal(size=50)
    better = hard + 0.1 + 0.02 * RNG.normal(size=50)
    for statistic in (None, np.mean, np.median):
        found = bca_paired(better, hard, statistic, draws=1000)
        assert 0 < found.low < 0.11 < found.high + 0.05
        assert found.width < 0.3 * (bca(better, statistic, draws=1000).width)


def test_metrics_of_whole_sets():
    """Mean IoU from confusion matrices of images: no mean over items."""
    matrices = RNG.integers(1, 20, size=(30, 3, 3)) + 40 * np.eye(3)

    def mean_iou(items):
        total = items.sum(0)
        hit = np.diagonal(total)
        return (hit / (total.sum(0) + total.sum(1) - hit)).mean()

    found = bca(matrices, mean_iou, draws=500)
    assert found.low < found.estimate == mean_iou(matrices) < found.high


def test_constant_values_have_no_width():
    found = bca(np.full(10, 0.3))
    assert (found.low, found.high) == pytest.approx((0.3, 0.3))


def test_chunks_cover_every_draw():
    parts = list(chunks(10_001, 1000))
    assert [p.start for p in parts[1:]] == [p.stop for p in parts[:-1]]
    assert parts[-1].stop == 10_001


def test_two_level_is_a_check_of_the_layout():
    scores = RNG.normal(size=(20, 1)) + 2 * RNG.normal(size=40) + RNG.normal(size=(20, 40))
    check, layout = two_level(scores), seeds_by_items(scores)
    assert check.estimate == pytest.approx(layout.estimate)
    assert check.width == pytest.approx(layout.width, rel=0.15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bca([]), "values must not be empty"),
        (lambda: bca([1.0]), "values must hold at least 2 items, found 1"),
        (lambda: bca([1.0, np.nan]), "values must be finite"),
        (lambda: bca([[1.0, 2.0]]), "values must have 1 axis"),
        (lambda: bca([1, 2, 3], clusters=[1, 2]), r"clusters must hold one entry an item \(3\)"),
        (lambda: bca([1, 2, 3], clusters=[1, 1, 1]), "clusters must name at least 2"),
        (lambda: bca([1, 2, 3], draws=1), "draws must be a whole number of at least 2"),
        (lambda: bca([1, 2, 3], level=0), "level must lie"),
        (lambda: bca_paired([1, 2], [1, 2, 3]), "second must have as many entries as first"),
        (lambda: bca_paired([1, 2], [1, np.nan]), "second must be finite"),
        (lambda: bca([1, 2, 3], lambda x: np.inf), "statistic must be finite"),
        (lambda: two_level([1, 2]), "values must have 2 axes"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


@pytest.mark.slow
def test_coverage_on_skewed_items():
    rng = np.random.default_rng(1)
    hits = sum(1 in bca(rng.exponential(size=60), draws=1000) for _ in range(600))
    assert 0.90 <= hits / 600 <= 0.97
