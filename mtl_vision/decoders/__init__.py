"""Dense decoders: shared features in, one task's map out."""

from mtl_vision.decoders.aspp import ASPPDecoder
from mtl_vision.decoders.build import DecoderFactory, build_decoders
from mtl_vision.decoders.dense import DenseDecoder
from mtl_vision.decoders.fpn import FPNDecoder
from mtl_vision.decoders.linear import LinearMapDecoder
from mtl_vision.decoders.mlp import MLPDecoder
from mtl_vision.decoders.progressive import ProgressiveDecoder
from mtl_vision.decoders.pup import PUPDecoder
from mtl_vision.decoders.pup_light import PUPLightDecoder

__all__ = [
    "ASPPDecoder",
    "DecoderFactory",
    "DenseDecoder",
    "FPNDecoder",
    "LinearMapDecoder",
    "MLPDecoder",
    "PUPDecoder",
    "PUPLightDecoder",
    "ProgressiveDecoder",
    "build_decoders",
]
