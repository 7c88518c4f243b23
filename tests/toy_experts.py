"""A transformer with one layer of experts, small enough to be exported in tests."""

from functools import partial

import torch

from mtl_vision.decoders import PUPLightDecoder
from mtl_vision.encoders import MoEViT
from mtl_vision.networks import M3ViT
from mtl_vision.tasks import DepthEstimation, SemanticSegmentation

SHAPE = {"embed_dim": 16, "depth": 2, "num_heads": 2}
LAYER = "encoder.model.blocks.1.mlp"


def make_network(**options):
    torch.manual_seed(0)
    tasks = {"semseg": SemanticSegmentation(num_classes=3), "depth": DepthEstimation()}
    given = {
        "name": "vit_tiny_patch16_224",
        "img_size": (32, 32),
        "model_args": SHAPE,
        "num_experts": 6,
        "top_k": 2,
        "experts": "random",
    }
    encoder = partial(MoEViT, **(given | options))
    return M3ViT(tasks, encoder=encoder, decoder=partial(PUPLightDecoder, width=8)).eval()
