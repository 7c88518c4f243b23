"""Multi-task vision: dense tasks, encoders, decoders, networks and data sets."""

from mtl_vision.networks import HardSharing
from mtl_vision.tasks import (
    BoundaryDetection,
    DepthEstimation,
    HumanParts,
    SaliencyDetection,
    SemanticSegmentation,
    SurfaceNormals,
)

__all__ = [
    "BoundaryDetection",
    "DepthEstimation",
    "HardSharing",
    "HumanParts",
    "SaliencyDetection",
    "SemanticSegmentation",
    "SurfaceNormals",
]
