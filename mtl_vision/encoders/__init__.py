"""Encoders: images in, shared features out."""

from mtl_vision.encoders.base import Encoder, EncoderFactory
from mtl_vision.encoders.moe_block import MoEBlock
from mtl_vision.encoders.moe_vit import MoEViT
from mtl_vision.encoders.staged import StagedEncoder, run_in_stages
from mtl_vision.encoders.timm import PretrainedWeightsError, TimmEncoder, build_encoder
from mtl_vision.encoders.upcycle import dense_weights, split_mlp, tie_columns

__all__ = [
    "Encoder",
    "EncoderFactory",
    "MoEBlock",
    "MoEViT",
    "PretrainedWeightsError",
    "StagedEncoder",
    "TimmEncoder",
    "build_encoder",
    "dense_weights",
    "run_in_stages",
    "split_mlp",
    "tie_columns",
]
