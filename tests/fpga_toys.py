"""Small encoders in floats for tests of the fixed-point design; no torch."""

import shutil
from importlib.util import find_spec

import numpy as np

from export.fpga import vit as floats

TOOLS = shutil.which("g++") is not None and find_spec("hls4ml") is not None
"""Whether C can be simulated here: a compiler and the ap_fixed headers."""


def dense(rng, outputs, inputs, *lead):
    bound = inputs**-0.5
    return floats.Dense(
        rng.uniform(-bound, bound, (*lead, outputs, inputs)),
        rng.uniform(-bound, bound, (*lead, outputs)),
    )


def layer_norm(rng, dim):
    return floats.LayerNorm(rng.uniform(0.5, 1.5, dim), rng.normal(0, 0.2, dim), 1e-6)


def random_vit(seed=0, *, dim=16, heads=2, experts=4, top_k=2, renormalised=False, ahead=False):
    """Two blocks, the second with experts; 2 x 3 patches of 2 x 2 pixels of 2 channels."""
    rng = np.random.default_rng(seed)
    blocks = []
    for i in range(2):
        feed = floats.MLP(dense(rng, 24, dim), dense(rng, dim, 24))
        if i:
            feed = floats.Mixture(
                gates={t: dense(rng, experts, dim) for t in ("left", "right")},
                top_k=top_k,
                renormalised=renormalised,
                ahead=ahead,
                first=dense(rng, 20, dim, experts),
                second=dense(rng, dim, 20, experts),
            )
        parts = {key: dense(rng, dim, dim) for key in ("query", "key", "value", "project")}
        norms = {key: layer_norm(rng, dim) for key in ("norm1", "norm2")}
        blocks.append(floats.Block(heads=heads, feed=feed, **parts, **norms))
    embed = dense(rng, dim, 8)
    return floats.ViT(
        image=(2, 4, 6),
        patch=(2, 2),
        embed=floats.Dense(embed.weight / 64, embed.bias),
        prefix=rng.normal(0, 0.5, (1, dim)),
        position=rng.normal(0, 0.5, (6, dim)),
        blocks=tuple(blocks),
        norm=layer_norm(rng, dim),
    )


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 2, 4, 6)).astype(np.uint8)
