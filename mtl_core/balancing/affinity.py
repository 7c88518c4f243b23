"""Clustering by affinity propagation, for a handful of tasks."""

import numpy as np
from numpy.typing import NDArray

from mtl_core.balancing.solvers import Floats


def affinity_propagation(
    similarity: Floats,
    *,
    noise: Floats,
    damping: float = 0.5,
    rounds: int = 200,
    patience: int = 15,
) -> list[int] | None:
    """Centres that every item chooses (Frey and Dueck, Science 2007).

    Messages are damped until the set of centres has stood for `patience` rounds; the preference of
    every item to be a centre is the median similarity. Choices of defaults, tie-breaking noise and
    degenerate cases are those of scikit-learn's ``AffinityPropagation``, which the tests compare
    with.

    Args:
        similarity: (N, N) of any sign, larger is closer; the diagonal is not used but for the
            median.
        noise: (N, N) standard normal numbers, which break ties far below rounding of results.
        damping: share of a former message in the new one, in [0.5, 1).
        rounds: at most.
        patience: rounds without change.

    Returns:
        Index of the centre by item (centres choose themselves), or None without convergence,
        where scikit-learn may give centres nevertheless.
    """
    size = len(similarity)
    preference = float(np.median(similarity))
    if size == 1:
        return [0]
    others = similarity[~np.eye(size, dtype=bool)]
    if bool((others == others[0]).all()):
        return list(range(size)) if preference > others[0] else [0] * size
    near = similarity.copy()
    np.fill_diagonal(near, preference)
    info = np.finfo(np.float64)
    near += (info.eps * near + info.tiny * 100) * noise
    responsibility, availability = np.zeros((2, size, size))
    items = np.arange(size)
    history: list[bytes] = []
    for turn in range(rounds):
        sums = availability + near
        best = sums.argmax(1)
        first = sums[items, best]
        sums[items, best] = -np.inf
        fresh = near - first[:, None]
        fresh[items, best] = near[items, best] - sums.max(1)
        responsibility = damping * responsibility + (1 - damping) * fresh

        support = np.maximum(responsibility, 0)
        np.fill_diagonal(support, responsibility.diagonal())
        total = support.sum(0)
        fresh = np.minimum(total - support, 0)
        np.fill_diagonal(fresh, total - responsibility.diagonal())
        availability = damping * availability + (1 - damping) * fresh

        centres = (availability + responsibility).diagonal() > 0
        history = [*history[-patience:], centres.tobytes()]
        if turn >= patience and len(set(history[-patience:])) == 1 and centres.any():
            return _assign(near, centres.nonzero()[0])
    return None


def _assign(near: Floats, centres: NDArray[np.int64]) -> list[int]:
    """The closest centre of every item, after each cluster has chosen its best centre."""
    chosen = near[:, centres].argmax(1)
    chosen[centres] = np.arange(len(centres))
    for k in range(len(centres)):
        members = (chosen == k).nonzero()[0]
        centres[k] = members[near[np.ix_(members, members)].sum(0).argmax()]
    chosen = near[:, centres].argmax(1)
    chosen[centres] = np.arange(len(centres))
    return [int(centres[k]) for k in chosen]
