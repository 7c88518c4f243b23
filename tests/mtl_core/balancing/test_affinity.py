import warnings

import numpy as np
import pytest
from sklearn.cluster import AffinityPropagation

from mtl_core.balancing.affinity import affinity_propagation


def reference(similarity, patience):
    """Centres by item, None without convergence."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = AffinityPropagation(
            affinity="precomputed", convergence_iter=patience, random_state=0
        ).fit(similarity)
    if any("did not converge" in str(w.message) for w in caught):
        return None
    return [int(found.cluster_centers_indices_[label]) for label in found.labels_]


@pytest.mark.parametrize("patience", [15, 50])
@pytest.mark.parametrize("size", [2, 3, 5, 12])
def test_centres_are_those_of_scikit_learn(size, patience):
    random = np.random.default_rng(size)
    converged = 0
    for _ in range(40):
        points = random.normal(size=(size, 2))
        similarity = -np.square(points[:, None] - points).sum(-1)
        if size % 2:  # any symmetric matrix
            similarity = similarity + random.normal(size=(size, size))
            similarity = (similarity + similarity.T) / 2
        noise = np.random.RandomState(0).standard_normal((size, size))
        found = affinity_propagation(similarity, noise=noise, patience=patience)
        wanted = reference(similarity.copy(), patience)
        assert found == wanted
        converged += found is not None
    assert converged > 20 or size == 2


@pytest.mark.parametrize(("own", "size"), [(1.0, 2), (1.0, 3), (-1.0, 3)])
def test_equal_similarities(own, size):
    similarity = np.full((size, size), 0.25)
    np.fill_diagonal(similarity, own)
    found = affinity_propagation(similarity, noise=np.zeros((size, size)))
    assert found == reference(similarity, 15)


def test_one_item():
    assert affinity_propagation(np.ones((1, 1)), noise=np.zeros((1, 1))) == [0]
