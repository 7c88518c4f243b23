"""Encoders: images in, shared features out."""

from mtl_vision.encoders.base import Encoder, EncoderFactory
from mtl_vision.encoders.staged import StagedEncoder, run_in_stages
from mtl_vision.encoders.timm import PretrainedWeightsError, TimmEncoder, build_encoder

__all__ = [
    "Encoder",
    "EncoderFactory",
    "PretrainedWeightsError",
    "StagedEncoder",
    "TimmEncoder",
    "build_encoder",
    "run_in_stages",
]
