"""Boosted trees for several tasks, on XGBoost's histogram trees."""

from mtl_tabular.boosting.trees import BoostedTrees

__all__ = ["BoostedTrees"]
