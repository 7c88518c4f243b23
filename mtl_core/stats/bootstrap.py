"""Bootstrap intervals over test items, whole clusters at a time where items come in clusters."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from scipy import special

from mtl_core.errors import ArgumentError
from mtl_core.stats.checks import Array, array, between, count, finite, same_length
from mtl_core.stats.records import Interval

CHUNK = 1 << 22
"""Values held at once while means are drawn."""

Statistic = Callable[[Array], float]
"""Takes items (m, ...) as rows, gives a number."""


def bca(
    values: npt.ArrayLike,
    statistic: Statistic | None = None,
    clusters: npt.ArrayLike | None = None,
    *,
    level: float = 0.95,
    draws: int = 5000,
    seed: int = 0,
) -> Interval:
    """Bias-corrected and accelerated bootstrap (Efron 1987) of any metric on n items.

    It contains what another test set would change, for one trained network. Below some twenty
    items or clusters it covers less than it says: for means of few, take `t_interval`.

    Args:
        values: (n, ...) an item a row: a score, or whatever `statistic` reads (a confusion
            matrix per image, for one).
        statistic: of the resampled rows; None is the mean of (n,) values, which is much faster.
        clusters: (n,) name or number of each item's image, patient, ...; these are drawn whole.
        level: coverage, between 0 and 1.
        draws: resamples.
        seed: of the resampling.

    Raises:
        ArgumentError: fewer than two items or clusters, unequal lengths, NaN, or a statistic
            that is not finite on some resample.

    >>> found = bca(np.arange(50) / 50)
    >>> round(found.estimate, 2), round(found.low, 2), round(found.high, 2)
    (0.49, 0.41, 0.57)
    """
    x = _rows("values", values, statistic)
    groups = cluster_places(clusters, x)
    metric = _Mean(x, groups) if statistic is None else _Any((x,), statistic, groups)
    return _interval(metric, len(groups), level, draws, seed)


def bca_paired(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    statistic: Statistic | None = None,
    clusters: npt.ArrayLike | None = None,
    *,
    level: float = 0.95,
    draws: int = 5000,
    seed: int = 0,
) -> Interval:
    """`bca` of the difference of a metric between two methods on the same items.

    Both see the same resamples, so that what makes items hard for both cancels.

    Args:
        first: (n, ...) items of one method.
        second: (n, ...) the same items of the other.
        statistic: as of `bca`; the interval is that of statistic(first) - statistic(second).
        clusters: as of `bca`.
        level: coverage, between 0 and 1.
        draws: resamples.
        seed: of the resampling.

    Raises:
        ArgumentError: as of `bca`, or the two differ in length.

    >>> found = bca_paired([1, 1, 0, 1, 1, 1], [0, 1, 0, 1, 0, 1])
    >>> round(found.estimate, 3)
    0.333
    """
    a, b = _rows("first", first, statistic), _rows("second", second, statistic)
    same_length("second", b, "first", a)
    if statistic is None:
        return bca(a - b, None, clusters, level=level, draws=draws, seed=seed)
    groups = cluster_places(clusters, a)
    return _interval(_Any((a, b), statistic, groups), len(groups), level, draws, seed)


def two_level(
    values: npt.ArrayLike, *, level: float = 0.95, draws: int = 5000, seed: int = 0
) -> Interval:
    """Percentile bootstrap over seeds and items at once, as a check of `seeds_by_items`.

    With fewer than ten seeds it is too narrow, as any percentile bootstrap of so few is.

    Args:
        values: (S, n) a seed a row, an item a column.
        level: coverage, between 0 and 1.
        draws: resamples.
        seed: of the resampling.

    Raises:
        ArgumentError: not of two axes, or not finite.

    >>> scores = np.random.default_rng(0).random((10, 40))
    >>> found = two_level(scores)
    >>> found.low < float(scores.mean()) < found.high
    True
    """
    x = array("values", values, 2)
    level, draws = between("level", level, 0, 1), count("draws", draws)
    rng = np.random.default_rng(seed)
    s, n = x.shape
    of_seeds = rng.multinomial(s, np.full(s, 1 / s), size=draws) / s
    means = np.empty(draws)
    for part in chunks(draws, n):
        of_items = rng.multinomial(n, np.full(n, 1 / n), size=part.stop - part.start) / n
        means[part] = np.einsum("ds,ds->d", of_seeds[part], of_items @ x.T)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(x.mean()), float(low), float(high), level)


def cluster_places(clusters: npt.ArrayLike | None, x: Array) -> list[npt.NDArray[np.intp]]:
    """Places of each cluster's items; every item its own cluster where there are none.

    Raises:
        ArgumentError: `clusters` does not have one entry a row of `x`, or names only one.

    >>> [places.tolist() for places in cluster_places(["a", "b", "a"], np.zeros(3))]
    [[0, 2], [1]]
    """
    if clusters is None:
        return [np.array([i]) for i in range(len(x))]
    names = np.asarray(clusters)
    if names.shape != (len(x),):
        raise ArgumentError("clusters", f"hold one entry an item ({len(x)})", names.shape)
    _, codes = np.unique(names, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    if len(groups) < 2:
        raise ArgumentError("clusters", "name at least 2 clusters", len(groups))
    return groups


def chunks(draws: int, width: int) -> Iterator[slice]:
    """Slices of `draws` rows such that rows of `width` values stay within `CHUNK`.

    >>> list(chunks(3, CHUNK))
    [slice(0, 1, None), slice(1, 2, None), slice(2, 3, None)]
    """
    size = max(1, CHUNK // width)
    for start in range(0, draws, size):
        yield slice(start, min(start + size, draws))


class _Mean:
    """The mean of clusters of values: sums and sizes are enough."""

    def __init__(self, x: Array, groups: list[npt.NDArray[np.intp]]) -> None:
        self.sums = np.array([x[g].sum() for g in groups]) if len(groups) < len(x) else x
        self.sizes = np.array([len(g) for g in groups], dtype=np.float64)

    def whole(self) -> float:
        return float(self.sums.sum() / self.sizes.sum())

    def left_out(self) -> Array:
        out: Array = (self.sums.sum() - self.sums) / (self.sizes.sum() - self.sizes)
        return out

    def drawn(self, chosen: npt.NDArray[np.intp]) -> Array:
        out: Array = self.sums[chosen].sum(1) / self.sizes[chosen].sum(1)
        return out


class _Any:
    """Any statistic of one set of rows, or its difference between two."""

    def __init__(
        self, rows: tuple[Array, ...], statistic: Statistic, groups: list[npt.NDArray[np.intp]]
    ) -> None:
        self.rows, self.statistic, self.groups = rows, statistic, groups

    def at(self, items: npt.NDArray[np.intp]) -> float:
        found = [float(self.statistic(x[items])) for x in self.rows]
        return found[0] - found[1] if len(found) == 2 else found[0]

    def whole(self) -> float:
        return self.at(np.arange(len(self.rows[0])))

    def left_out(self) -> Array:
        keep = np.ones(len(self.rows[0]), dtype=bool)
        out = np.empty(len(self.groups))
        for i, group in enumerate(self.groups):
            keep[group] = False
            out[i] = self.at(np.flatnonzero(keep))
            keep[group] = True
        return out

    def drawn(self, chosen: npt.NDArray[np.intp]) -> Array:
        return np.array([self.at(np.concatenate([self.groups[g] for g in row])) for row in chosen])


def _interval(metric: _Mean | _Any, n: int, level: float, draws: int, seed: int) -> Interval:
    level, draws = between("level", level, 0, 1), count("draws", draws, 2)
    rng = np.random.default_rng(seed)
    whole = metric.whole()
    values = np.empty(draws)
    for part in chunks(draws, n):
        values[part] = metric.drawn(rng.integers(n, size=(part.stop - part.start, n)))
    left_out = metric.left_out()
    finite("statistic", np.concatenate([[whole], values, left_out]))
    below = ((values < whole).mean() + (values <= whole).mean()) / 2
    bias = float(special.ndtri(np.clip(below, 0.5 / draws, 1 - 0.5 / draws)))
    pull = left_out.mean() - left_out
    size = float(np.square(pull).sum())
    skew = float((pull**3).sum()) / (6 * size**1.5) if size > 0 else 0.0
    z = bias + special.ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    share = special.ndtr(bias + z / np.maximum(1 - skew * z, 1e-9))
    low, high = np.quantile(values, share)
    return Interval(whole, float(low), float(high), level)


def _rows(name: str, values: npt.ArrayLike, statistic: Statistic | None) -> Array:
    dims = 1 if statistic is None else max(1, np.ndim(np.asarray(values)))
    x = array(name, values, dims)
    if len(x) < 2:
        raise ArgumentError(name, "hold at least 2 items", len(x))
    return x
