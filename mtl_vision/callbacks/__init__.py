"""Callbacks that know about images."""

from mtl_vision.callbacks.prediction_sheet import PredictionSheet
from mtl_vision.callbacks.prediction_writer import ImagePredictionWriter
from mtl_vision.callbacks.routing_sheet import RoutingSheet

__all__ = ["ImagePredictionWriter", "PredictionSheet", "RoutingSheet"]
