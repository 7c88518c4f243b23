"""Boosted trees for several tasks, on XGBoost's histogram trees."""

from mtl_tabular.boosting.progress import ProgressBar
from mtl_tabular.boosting.rmtgb import RMTGBClassifier, RMTGBRegressor
from mtl_tabular.boosting.settings import ABLATIONS
from mtl_tabular.boosting.training import Round
from mtl_tabular.boosting.trees import BoostedTrees

__all__ = [
    "ABLATIONS",
    "BoostedTrees",
    "ProgressBar",
    "RMTGBClassifier",
    "RMTGBRegressor",
    "Round",
]
