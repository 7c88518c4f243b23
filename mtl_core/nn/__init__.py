"""Features, decoders and networks of every modality."""

from mtl_core.nn.decoder import Decoded, Decoder, LinearDecoder
from mtl_core.nn.features import FeatureInfo, Features
from mtl_core.nn.network import MultiTaskNetwork, Outputs
from mtl_core.nn.rotated import Rotated

__all__ = [
    "Decoded",
    "Decoder",
    "FeatureInfo",
    "Features",
    "LinearDecoder",
    "MultiTaskNetwork",
    "Outputs",
    "Rotated",
]
