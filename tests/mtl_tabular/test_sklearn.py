"""scikit-learn's own checks, and its tools around the estimators."""

from functools import partial

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from mtl_tabular.estimators import MultiTaskClassifier, MultiTaskEstimator, MultiTaskRegressor
from mtl_tabular.networks import SharedBottom

SMALL = partial(SharedBottom, token_width=8, shared=(32,), tower=(16,), dropout=0.0)
QUICK = {"max_epochs": 4, "batch_size": 32, "learning_rate": 0.05, "accelerator": "cpu"}
pytestmark = pytest.mark.filterwarnings("ignore:The copy keyword")

@parametrize_with_checks(
    [
        MultiTaskClassifier(SMALL, **QUICK),
        MultiTaskRegressor(SMALL, **QUICK),
        MultiTaskEstimator(network=SMALL, **QUICK),
    ]
)
def test_scikit_learn_accepts_the_estimators(estimator, check):
    check(estimator)
