"""Dense tasks: targets and predictions are maps of the image's height and width."""

from mtl_vision.tasks.boundary import BoundaryDetection
from mtl_vision.tasks.dense import IGNORE, DenseTask
from mtl_vision.tasks.depth import DepthEstimation
from mtl_vision.tasks.normals import SurfaceNormals
from mtl_vision.tasks.saliency import SaliencyDetection
from mtl_vision.tasks.segmentation import HumanParts, SemanticSegmentation

__all__ = [
    "IGNORE",
    "BoundaryDetection",
    "DenseTask",
    "DepthEstimation",
    "HumanParts",
    "SaliencyDetection",
    "SemanticSegmentation",
    "SurfaceNormals",
]
