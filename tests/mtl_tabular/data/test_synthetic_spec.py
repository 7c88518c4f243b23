import json

import numpy as np
import pytest

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_tabular.data.synthetic_spec import SyntheticSpec


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"num_tasks": 8, "num_features": 4, "degrees": 1}, "num_features must be at least"),
        ({"num_distractors": 26}, "num_features must be at least"),
        ({"degrees": [1, 2]}, r"degrees must have one entry a task \(7\)"),
        ({"noise": [0.1] * 6}, r"noise must have one entry a task \(7\)"),
        ({"kinds": ["numeric"]}, "kinds must have one entry"),
        ({"missing_labels": [0.1]}, "missing_labels must have one entry"),
        ({"correlation": -0.5}, "smallest eigenvalue -2"),
        ({"degrees": 0}, "degrees must lie in"),
        ({"noise": -0.1}, "noise must lie in"),
        ({"positives": 1.0}, "positives must lie in"),
        ({"classes": 1}, "classes must lie in"),
        ({"missing_labels": 1.0}, "missing_labels must lie in"),
        ({"missing_values": -0.1}, "missing_values must lie in"),
        ({"num_categorical": 33}, "num_categorical must lie in"),
        ({"levels": 1}, "levels must be at least 2"),
        ({"num_tasks": 0}, "num_tasks must be at least 1"),
    ],
)
def test_refusals(given, error):
    with pytest.raises(ArgumentError, match=error):
        SyntheticSpec(**given)


def test_unknown_names_show_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean numeric"):
        SyntheticSpec(kinds="numerik")
    with pytest.raises(UnknownNameError, match="layout"):
        SyntheticSpec(layout="longish")


def test_label_correlation_of_the_published_set():
    """Spec (b): min/mean/max over pairs 0.136/0.236/0.327 measured; exact values lie near them."""
    upper = SyntheticSpec().label_correlation[np.triu_indices(7, 1)]
    assert upper.min() == pytest.approx(0.133, abs=1e-3)
    assert upper.mean() == pytest.approx(0.233, abs=4e-3)
    assert upper.max() == pytest.approx(0.327, abs=2e-3)


def test_labels_correlate_like_projections_for_degree_one_only():
    linear = SyntheticSpec(degrees=1, noise=0.0)
    np.testing.assert_allclose(linear.label_correlation, linear.matrix)
    unrelated = SyntheticSpec(degrees=4, correlation=0.0)
    np.testing.assert_allclose(unrelated.label_correlation, np.eye(7), atol=1e-12)


def test_relative_noise_gives_all_degrees_one_signal_to_noise_ratio():
    spec = SyntheticSpec(noise=0.5, relative_noise=True)
    np.testing.assert_allclose(spec.best_explained_variance(), 0.8)
    absolute = SyntheticSpec(noise=0.5)
    assert len(set(absolute.best_explained_variance())) == 4


def test_scores_by_task():
    spec = SyntheticSpec()
    scores = spec.difficulty_scores(spec.linear_explained_variance())
    assert np.isnan(scores[0])
    np.testing.assert_allclose(scores[1:], 0, atol=1e-12)
    with pytest.raises(ArgumentError, match="one entry a task"):
        spec.difficulty_scores([0.5])


def test_plain_data_rebuild_the_spec():
    spec = SyntheticSpec(num_tasks=2, degrees=[1, 2], correlation=[[1.0, 0.1], [0.1, 1.0]])
    again = SyntheticSpec(**json.loads(json.dumps(spec.plain())))
    assert again.plain() == spec.plain()
    assert again.task_degrees == (1, 2)


def test_nearest_only_on_request():
    spec = SyntheticSpec(correlation=-0.5, nearest=True)
    np.testing.assert_allclose(spec.matrix[0, 1], -1 / 6, atol=1e-6)
