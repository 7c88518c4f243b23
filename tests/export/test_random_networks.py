"""Networks drawn from a seed, exported, and compared with themselves: no failure is allowed.

Six by default; the environment variable ``MTL_RANDOM_EXPORTS=100`` draws a hundred.
"""

import os
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from dense_laws import TASKS, scramble
from toy_exports import table_network

from export.build import build
from export.samples import input_spec
from export.settings import BuildSettings
from export.source import Source
from mtl_core.tasks import Classification, MultiLabel, Regression
from mtl_tabular import networks as tabular
from mtl_vision import decoders, networks
from mtl_vision.encoders import MoEViT, TimmEncoder

SMALL = (12, 1, 32, 3, 10, 31)
"""Seeds of one network a family that is quickly exported."""

COUNT = int(os.environ.get("MTL_RANDOM_EXPORTS", "0"))
SEEDS = tuple(range(COUNT)) or SMALL
WHOLE = {
    "scene": Classification(num_classes=3),
    "marks": MultiLabel(num_labels=2),
    "size": Regression(dim=2),
}
CONVOLUTIONAL = ("test_resnet", "test_convnext", "resnet10t", "test_efficientnet")
Draw = np.random.Generator


def one(rng: Draw, choices):
    return choices[int(rng.integers(len(choices)))]


def some_tasks(rng: Draw, *, dense_only: bool) -> dict:
    dense = list(rng.permutation(list(TASKS)))[: int(rng.integers(1, 4))]
    whole = [] if dense_only else list(rng.permutation(list(WHOLE)))[: int(rng.integers(0, 3))]
    known = {**TASKS, **WHOLE}
    return {str(name): known[str(name)] for name in [*dense, *whole]}


def vit_shape(rng: Draw) -> dict:
    return {"embed_dim": 24, "depth": int(rng.integers(2, 5)), "num_heads": 2}


def some_encoder(rng: Draw, size: tuple[int, int], *, staged: bool = False, pyramid: bool = False):
    if pyramid or rng.random() < 0.5:
        return one(rng, CONVOLUTIONAL[:3] if staged else CONVOLUTIONAL)
    return partial(TimmEncoder, "vit_tiny_patch16_224", img_size=size, model_args=vit_shape(rng))


def some_decoder(rng: Draw):
    name, options = one(
        rng,
        [
            ("FPNDecoder", {"width": 8}),
            ("ASPPDecoder", {"width": 8}),
            ("MLPDecoder", {"width": 8}),
            ("PUPDecoder", {"width": 8, "stages": 2}),
            ("PUPLightDecoder", {"width": 8}),
            ("LinearMapDecoder", {}),
        ],
    )
    return partial(getattr(decoders, name), **options)


def shared(rng: Draw, size):
    tasks = some_tasks(rng, dense_only=False)
    encoder = some_encoder(rng, size)
    return networks.HardSharing(tasks, encoder=encoder, decoder=some_decoder(rng)), {}


def joint(rng: Draw, size):
    tasks = some_tasks(rng, dense_only=True)
    name, options, pyramid = one(
        rng,
        [
            ("MTAN", {"decoder": partial(decoders.FPNDecoder, width=8)}, False),
            ("CrossStitch", {"decoder": partial(decoders.FPNDecoder, width=8)}, False),
            ("NDDRCNN", {"decoder": partial(decoders.FPNDecoder, width=8)}, False),
            ("PADNet", {"width": 8}, False),
            ("MTINet", {"width": 8}, True),
            ("InvPT", {"width": 32, "feature_width": 24}, False),
        ],
    )
    encoder = some_encoder(rng, size, staged=True, pyramid=pyramid)
    return getattr(networks, name)(tasks, encoder=encoder, **options), {}


def routed(rng: Draw, size):
    form = one(rng, ["auto", "nonzero", "dense", "sorted", "capacity"])
    profile = one(rng, ["cpu", "portable"]) if form in ("auto", "dense", "capacity") else "cpu"
    options = {"moe": form, "profile": profile}
    if form == "capacity":
        options["capacity_factor"] = float(one(rng, [1.0, 1.5, 2.0]))
    if rng.random() < 0.6:
        encoder = partial(
            MoEViT,
            name="vit_tiny_patch16_224",
            img_size=size,
            model_args=vit_shape(rng),
            num_experts=int(rng.integers(2, 9)),
            top_k=int(rng.integers(1, 3)),
        )
        tasks = some_tasks(rng, dense_only=True)
        return networks.M3ViT(tasks, encoder=encoder, decoder=some_decoder(rng)), options
    tasks = some_tasks(rng, dense_only=True)
    options = {"moe": one(rng, ["auto", "dense"])}
    vit = partial(TimmEncoder, "vit_tiny_patch16_224", img_size=size, model_args=vit_shape(rng))
    if rng.random() < 0.5:
        return networks.TaskExpert(tasks, encoder=vit, width=16, num_experts=3), options
    arguments = {"width": 16, "ranks": (1, 2, 3), "top_k": 2, "blocks": 1}
    return networks.MLoRE(tasks, encoder=vit, **arguments), options


def table(rng: Draw, size):
    name, options = one(
        rng,
        [
            ("SharedBottom", {}),
            ("MMoE", {"token_width": 4, "experts": 3, "expert": (16, 8), "tower": (8,)}),
            ("PLE", {"token_width": 4, "expert": (16, 8), "tower": (8,), "levels": 2}),
            ("STEM", {"token_width": 4, "expert": (16, 8), "tower": (8,)}),
            ("FTTransformer", {"width": 8, "feedforward": 16, "head_hidden": (8,)}),
            ("TabTransformer", {"width": 8, "feedforward": 16, "head_hidden": (8,)}),
            ("Saint", {"width": 8, "feedforward": 16, "inter_sample": "rowwise"}),
            ("MultiTabNet", {"mask": one(rng, ["none", "FxT", "TxT", "FxT_TxT"])}),
            ("MultiTabNet", {"inter_sample": "memory", "memory_rows": 8}),
            ("PerTask", {}),
        ],
    )
    network = table_network(getattr(tabular, name), **options)
    if options.get("inter_sample") == "memory":
        spec = input_spec(Source(network, None, None, name))
        network.set_memory(spec.tensors(spec.random(20)))
    return network, {"profile": "portable"}


FAMILIES: tuple[Callable, ...] = (shared, table, routed, table, joint, table)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_network_drawn_at_random_is_exported_without_a_difference(seed, tmp_path):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    size = one(rng, [(32, 48), (64, 32), (64, 64)])
    network, options = FAMILIES[seed % len(FAMILIES)](rng, size)
    if seed % len(FAMILIES) not in (1, 3, 5):
        scramble(network)
    whole = "moe" not in options and rng.random() < 0.3
    chosen = tuple(network.tasks) if whole else (one(rng, list(network.tasks)),)
    options["layout"] = "all" if whole else "per-task"
    source = Source(network.eval(), None, None, type(network).__name__)
    settings = BuildSettings(tasks=chosen, size=size, **options)
    manifest = build(source, tmp_path / "model", settings)
    parity = manifest["variants"][0]["parity"]
    assert parity.keys() == set(chosen)
    assert all(found["ok"] for found in parity.values())
