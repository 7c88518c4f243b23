"""Multi-task networks for images."""

from mtl_vision.networks.hard_sharing import HardSharing

__all__ = ["HardSharing"]
