"""Data modules of images with several targets, and the transforms they share."""

from mtl_vision.data.augmentation import Augmentation
from mtl_vision.data.rooms import Rooms
from mtl_vision.data.transforms import DenseTransform

__all__ = ["Augmentation", "DenseTransform", "Rooms"]
