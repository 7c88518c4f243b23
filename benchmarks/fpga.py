"""Decibels, routing and bits of fixed-point designs at the sizes of docs/fpga.md.

``python benchmarks/fpga.py layer`` takes single layers of experts, ``encoder`` the whole encoder of
Edge-MoE (12 blocks, 129 tokens) with random weights, and ``trained CKPT`` a trained network on
eight pictures. The first two need g++ and hls4ml's headers.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from export.fpga import csim, emit
from export.fpga import vit as floats
from export.fpga.design import Widths, design
from export.fpga.integer.encoder import encode
from export.fpga.integer.moe import by_token
from export.fpga.pack import pack
from export.fpga.single import design_layer, random_mixture

FORMATS = ((32, 16), (24, 16), (18, 12), (16, 8), (12, 8))
SIZES = {"small": (50, 64, 64, 8, 2), "edge": (129, 192, 384, 16, 2)}
SEEDS = range(5)


def layers():
    print("| layer | formats | truncated dB, kept | rounded dB, max err, kept | exact | C-sim ms |")
    for name, sizes in SIZES.items():
        for act, weight in FORMATS:
            found = {"nearest": [], "truncate": []}
            for seed in SEEDS:
                source, x = random_mixture(*sizes, seed=seed)
                exact, chosen = floats.mixture(x, x, source, "task0", lambda _, t: t)
                for rounding, rows in found.items():
                    layer = design_layer(source, x, Widths(act, weight, rounding=rounding))
                    out, routed = layer.run(x, "task0")
                    value = layer.out.value(out)
                    kept = csim.routing_kept(chosen, routed.experts)
                    rows.append((csim.sqnr(exact, value), np.abs(value - exact).max(), kept))
            source, x = random_mixture(*sizes, seed=0)
            layer = design_layer(source, x, Widths(act, weight))
            equal, took, loads = simulated(layer, x)
            xi = layer.given.round(x)
            _, single = by_token(xi, np.zeros_like(xi), layer.mixture, "task0", act)
            t, r = (np.array(found[key]) for key in ("truncate", "nearest"))
            print(
                f"| {name} {sizes} | {act}/{weight} | {t[:, 0].min():.1f}-{t[:, 0].max():.1f}, "
                f"{t[:, 2].min():.1%} | {r[:, 0].min():.1f}-{r[:, 0].max():.1f}, "
                f"{r[:, 1].max():.5f}, {r[:, 2].min():.1%} | {equal:.2%} | {took * 1e3:.0f} | "
                f"loads {loads} expert order, {single.loads} token order",
                flush=True,
            )


def simulated(layer, x):
    """Share of equal bits, seconds of one layer, fetched experts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        emit.emit(folder, {"layer": layer.geometry})
        csim.build(folder, folder / "tb")
        memory, plan = csim.layer_memory(layer.mixture, layer.geometry)
        memory.save(folder)
        xi = layer.given.round(x)
        out, routed = layer.run(x, "task0")
        tokens = np.stack([xi, xi, np.zeros_like(xi)])[None]
        order = list(range(layer.source.experts))[::-1]
        took = []
        for count in (1, 3):
            start = time.perf_counter()
            found = csim.run_layer(
                folder / "tb",
                "layer",
                layer.geometry,
                folder,
                folder,
                plan,
                np.repeat(tokens, count, axis=0),
                order,
            )
            took.append(time.perf_counter() - start)
        equal = (found.tokens[0] == out).mean() * (found.experts[0, 0] == routed.experts).mean()
    return equal, (took[1] - took[0]) / 2, found.loads[0, 0]


def random_encoder(seed=0):
    """Edge-MoE's geometry: 128 x 256 pictures, D 192, 12 blocks, 16 experts of 384, top 2."""
    rng = np.random.default_rng(seed)

    def dense(outputs, inputs, *lead):
        bound = inputs**-0.5
        return floats.Dense(
            rng.uniform(-bound, bound, (*lead, outputs, inputs)),
            rng.uniform(-bound, bound, (*lead, outputs)),
        )

    def norm():
        return floats.LayerNorm(rng.uniform(0.5, 1.5, 192), rng.normal(0, 0.1, 192), 1e-6)

    blocks = []
    for i in range(12):
        feed = floats.MLP(dense(768, 192), dense(192, 768))
        if i % 2:
            gates = {"seg": floats.Dense(dense(16, 192).weight, np.zeros(16))}
            bank = (dense(384, 192, 16), dense(192, 384, 16))
            feed = floats.Mixture(gates, 2, False, False, *bank)
        parts = {key: dense(192, 192) for key in ("query", "key", "value", "project")}
        blocks.append(floats.Block(norm(), 3, norm2=norm(), feed=feed, **parts))
    embed = dense(192, 768)
    return floats.ViT(
        image=(3, 128, 256),
        patch=(16, 16),
        embed=floats.Dense(embed.weight / 64, embed.bias),
        prefix=rng.normal(0, 0.5, (1, 192)),
        position=rng.normal(0, 0.5, (128, 192)),
        blocks=tuple(blocks),
        norm=norm(),
    )


def encoders():
    vit = random_encoder()
    rng = np.random.default_rng(1)
    # smooth pictures: noise of 8 x 16 tiles, enlarged
    tiles = rng.integers(0, 256, (4, 3, 8, 16)).astype(np.uint8)
    pictures = tiles.repeat(16, -1).repeat(16, -2)
    noise = rng.integers(-20, 21, pictures.shape)
    pictures = np.clip(pictures + noise, 0, 255).astype(np.uint8)
    whole(vit, "seg", pictures)


def whole(vit, task, pictures):
    pixels = floats.patches(pictures, vit.patch)
    exact, routes = floats.forward(pixels[-1], vit, task)
    for act, weight in FORMATS[1:4]:
        made = design(vit, (task,), Widths(act, weight), pictures[:-1])
        start = time.perf_counter()
        tokens, routed = encode(pixels[-1], made.encoder, task)
        model = time.perf_counter() - start
        kept = [csim.routing_kept(a, b.experts) for a, b in zip(routes, routed, strict=True)]
        decibels = csim.sqnr(exact, made.output.value(tokens))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            geometry = emit.geometry(made)
            emit.emit(folder, {"design": geometry})
            start = time.perf_counter()
            csim.build(folder, folder / "tb")
            built = time.perf_counter() - start
            memory, plan = pack(made.encoder, (16, 16), made.widths.weights)
            memory.save(folder)
            orders = np.tile(np.arange(geometry.experts)[::-1], (len(routed), 1))
            start = time.perf_counter()
            found = csim.run_encoder(
                folder / "tb",
                "design",
                geometry,
                folder,
                folder,
                plan,
                pixels[-1:],
                made.tasks.index(task),
                orders,
            )
            took = time.perf_counter() - start
        print(
            f"{act}/{weight}: {decibels:.1f} dB, routing kept {np.mean(kept):.2%} "
            f"(worst layer {min(kept):.1%}), bit-exact {(found.tokens[0] == tokens).mean():.2%}, "
            f"sums of {geometry.sum_bits} bits, model {model:.1f} s, compile {built:.1f} s, "
            f"C simulation {took:.1f} s, loads {found.loads.sum()}",
            flush=True,
        )


def trained(path):
    from export.fpga.command import prepare
    from export.fpga.read import read_vit

    given = prepare(Path(path), None, calibration=32)
    tasks = tuple(given.source.tasks)
    vit = read_vit(given.source.network, tasks, given.mean, given.std)
    print(given.origin, vit.tokens, vit.dim, len(vit.blocks))
    pixels = floats.patches(given.images[-4:], vit.patch)
    for act, weight in FORMATS[1:4]:
        made = design(vit, tasks, Widths(act, weight), given.images[:-4])
        for task in tasks:
            exact, found, kept = [], [], []
            for image in pixels:
                tokens, routed = encode(image, made.encoder, task)
                wanted, routes = floats.forward(image, vit, task)
                exact.append(wanted)
                found.append(made.output.value(tokens))
                pairs = zip(routes, routed, strict=True)
                kept += [csim.routing_kept(a, b.experts) for a, b in pairs]
            decibels = csim.sqnr(np.stack(exact), np.stack(found))
            print(f"{act}/{weight} {task}: {decibels:.1f} dB, {np.mean(kept):.2%} kept", flush=True)


if __name__ == "__main__":
    verb, *rest = sys.argv[1:] or ["layer"]
    {"layer": layers, "encoder": encoders, "trained": trained}[verb](*rest)
