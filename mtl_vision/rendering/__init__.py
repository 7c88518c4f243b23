"""Rendered indoor scenes with exact labels, in NumPy alone."""

from mtl_vision.rendering.draws import Draws
from mtl_vision.rendering.scene import CLASS_NAMES
from mtl_vision.rendering.view import VERSION, View, render

__all__ = ["CLASS_NAMES", "VERSION", "Draws", "View", "render"]
