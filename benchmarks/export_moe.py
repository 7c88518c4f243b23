"""Graphs of a ViT with experts against the dense ViT of the same arithmetic, in time and on disk.

The geometry is that of Edge-MoE: images 128×256, 129 tokens of 192 numbers, 12 blocks, in every
second one 16 experts of 384 hidden units of which a token takes two. Weights are random. Times are
CPU milliseconds of one thread, the least of interleaved rounds, which a busy machine disturbs
little; compare them within one table only.

    python benchmarks/export_moe.py [--forms] [--disk] [--small]   # an exact graph takes minutes
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch

from export.calibration import measure_ranges
from export.clean import clean
from export.graph import ExportNetwork
from export.moe import MoESettings, convert
from export.onnx import write_graph
from export.parity import runner
from export.quantize import snr
from export.recipes import dynamic_int8, lend_ranges, products, static_int8
from export.timing import race
from export.weights import share_weights
from mtl_vision.decoders import LinearMapDecoder
from mtl_vision.encoders import MoEViT, TimmEncoder
from mtl_vision.networks import HardSharing, M3ViT
from mtl_vision.tasks import BoundaryDetection, DepthEstimation, SaliencyDetection, SurfaceNormals

TASKS = {
    "depth": DepthEstimation(),
    "normals": SurfaceNormals(),
    "boundary": BoundaryDetection(),
    "saliency": SaliencyDetection(),
}
NAME = "vit_tiny_patch16_224"
WINDOW = [0, 1, 2, 3]


def parse():
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forms", action="store_true", help="all forms, not the fastest only")
    parser.add_argument("--small", action="store_true", help="four blocks, to try it out")
    parser.add_argument("--disk", action="store_true", help="four tasks over one file, minutes")
    parser.add_argument("--rounds", type=int, default=30)
    return parser.parse_args()


class Bench:
    """Graphs of one run, by name."""

    def __init__(self, folder, options):
        self.folder, self.options = folder, options
        self.size = (128, 256)
        self.shape = {"depth": 4 if options.small else 12}
        self.images = {"image": np.random.default_rng(0).random((16, 3, *self.size), np.float32)}
        self.graphs = {}

    def experts(self, windows=None):
        """The network with experts."""
        torch.manual_seed(0)
        encoder = partial(
            MoEViT,
            name=NAME,
            img_size=self.size,
            model_args=self.shape,
            num_experts=16,
            top_k=2,
            expert_ratio=2.0,
            experts="random",
            task_windows=windows,
        )
        return M3ViT(TASKS, encoder=encoder, decoder=LinearMapDecoder).eval()

    def dense(self):
        """The network without."""
        torch.manual_seed(0)
        encoder = partial(TimmEncoder, NAME, img_size=self.size, model_args=self.shape)
        return HardSharing(TASKS, encoder=encoder, decoder=LinearMapDecoder).eval()

    def write(self, name, network, task="depth", settings=None):
        """Export one task."""
        start = time.thread_time()
        held = network if settings is None else convert(network, task, settings).network
        path = self.folder / f"{name}.onnx"
        example = {"image": torch.from_numpy(self.images["image"][:3])}
        module = ExportNetwork(held, [task])
        report = write_graph(module, example, [task], path)
        spent = time.thread_time() - start
        wanted = module.outputs({"image": torch.from_numpy(self.images["image"][:2])})[task]
        found = runner({task: path})({"image": self.images["image"][:2]})[task]
        error = float(np.abs(found - wanted.numpy()).max())
        print(
            f"{name}: {report.nodes} nodes, exported in {spent:.0f} s, error {error:.1e}",
            flush=True,
        )
        self.graphs[name] = path
        return path

    def round(self, name, source, mode):
        """The same in int8."""
        model = onnx.load(self.graphs[source])
        chosen = products(model, convolutions=mode == "static")
        if mode == "static":
            tensors = [p.source for p in chosen] + [p.result for p in chosen if p.kind == "Conv"]
            ranges = lend_ranges(model, chosen, measure_ranges(model, tensors, [self.images]))
            made = static_int8(model, chosen, ranges)
        else:
            made = dynamic_int8(model, chosen)
        clean(made)
        path = self.folder / f"{name}.onnx"
        path.write_bytes(made.SerializeToString())
        self.graphs[name] = path

    def table(self):
        """Time and size of all graphs, and how far int8 is from fp32."""
        one = {"image": self.images["image"][:1]}
        found = race(self.graphs, one, rounds=self.options.rounds)
        full = runner({"depth": self.graphs["moe"]})(self.images)["depth"]
        print("\n| graph | ms | of the dense floor | MB | SNR dB |\n|---|---|---|---|---|")
        for name, spent in found.items():
            size = self.graphs[name].stat().st_size / 1e6
            noise = ""
            if name.startswith("moe int8"):
                noise = (
                    f"{snr(runner({'depth': self.graphs[name]})(self.images)['depth'], full):.0f}"
                )
            ratio = spent / found["dense floor"]
            print(f"| {name} | {spent:.2f} | {ratio:.2f} | {size:.1f} | {noise} |", flush=True)


def main():
    """Write, measure, print."""
    options = parse()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), options)
        bench.write("dense floor", bench.dense())
        network = bench.experts()
        bench.write("moe", network, settings=MoESettings(form="nonzero"))
        if options.forms:
            for form, factor in (("dense", None), ("sorted", None), ("capacity", 1.5)):
                chosen = MoESettings(form=form, capacity_factor=factor)
                bench.write(f"moe {form} {factor or ''}".strip(), network, settings=chosen)
        windows = bench.experts(dict.fromkeys(TASKS, WINDOW))
        bench.write("moe of 4", windows, settings=MoESettings(keep="window"))
        for source in ("dense floor", "moe", "moe of 4"):
            for mode in ("dynamic", "static"):
                bench.round(f"{source} int8-{mode}", source, mode)
        bench.table()
        if not options.disk:
            return
        alone, files = [], []
        for task in TASKS:
            folder = bench.folder / "tasks"
            folder.mkdir(exist_ok=True)
            shown = bench.write(f"tasks/{task}", network, task, MoESettings(form="capacity"))
            alone.append(shown.stat().st_size)
            files.append(shown)
        weights = share_weights(files)
        total = (weights + sum(path.stat().st_size for path in files)) / 1e6
        apart = sum(alone) / 1e6
        print(f"\nfour tasks: {apart:.1f} MB apart, {total:.1f} MB over one file of weights")
        print(f"({total / apart:.3f} of it; the largest alone {max(alone) / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
