"""Data modules of images with several targets, and the transforms they share."""

from mtl_vision.data.augmentation import Augmentation
from mtl_vision.data.cityscapes import Cityscapes
from mtl_vision.data.image_folder import ImageFolderTasks
from mtl_vision.data.multi_digits import MultiDigits
from mtl_vision.data.multi_fashion import MultiFashion
from mtl_vision.data.nyud import NYUD
from mtl_vision.data.pascal_context import PascalContext
from mtl_vision.data.rooms import Rooms
from mtl_vision.data.targets import TargetSource
from mtl_vision.data.transforms import DenseTransform

__all__ = [
    "NYUD",
    "Augmentation",
    "Cityscapes",
    "DenseTransform",
    "ImageFolderTasks",
    "MultiDigits",
    "MultiFashion",
    "PascalContext",
    "Rooms",
    "TargetSource",
]
