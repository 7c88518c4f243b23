"""Multi-task networks for images."""

from mtl_vision.networks.cross_stitch import CrossStitch
from mtl_vision.networks.distillation import TaskDistillation
from mtl_vision.networks.hard_sharing import HardSharing
from mtl_vision.networks.invpt import InvPT
from mtl_vision.networks.m3vit import M3ViT
from mtl_vision.networks.mlore import MLoRE
from mtl_vision.networks.mtan import MTAN
from mtl_vision.networks.mti_net import MTINet
from mtl_vision.networks.nddr import NDDRCNN
from mtl_vision.networks.pad_net import PADNet
from mtl_vision.networks.task_expert import TaskExpert

__all__ = [
    "MTAN",
    "NDDRCNN",
    "CrossStitch",
    "HardSharing",
    "InvPT",
    "M3ViT",
    "MLoRE",
    "MTINet",
    "PADNet",
    "TaskDistillation",
    "TaskExpert",
]
