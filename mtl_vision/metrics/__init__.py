"""Metrics of dense tasks, pooled over the data set and summed over processes."""

from mtl_vision.metrics.boundary import BoundaryODSF
from mtl_vision.metrics.depth import (
    DepthAbsRel,
    DepthLogRMSE,
    DepthMAE,
    DepthRMSE,
    DepthSqRel,
)
from mtl_vision.metrics.normals import MeanAngle, MedianAngle, RMSAngle, WithinAngle
from mtl_vision.metrics.saliency import SaliencyImageMaxF, SaliencyMaxF, SaliencyMIoU
from mtl_vision.metrics.segmentation import MeanIoU, PixelAccuracy

__all__ = [
    "BoundaryODSF",
    "DepthAbsRel",
    "DepthLogRMSE",
    "DepthMAE",
    "DepthRMSE",
    "DepthSqRel",
    "MeanAngle",
    "MeanIoU",
    "MedianAngle",
    "PixelAccuracy",
    "RMSAngle",
    "SaliencyImageMaxF",
    "SaliencyMIoU",
    "SaliencyMaxF",
    "WithinAngle",
]
