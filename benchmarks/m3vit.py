"""Time beside multiply-accumulates of M³ViT: one task, five tasks, paper's and light head.

    python benchmarks/m3vit.py                         # ViT-S at 224×224, one thread; two minutes
    python benchmarks/m3vit.py --size 512 --repeats 3 --only 'one task'  # the paper's setting
    python benchmarks/m3vit.py --device cuda --batch 8

Weights are random. In every round each case runs once, in an order drawn anew, so that whatever
slows the machine down meets all cases alike; the table gives the median time, and the median over
rounds of the ratio to the case that stands in the last column. With one thread on a CPU, time is
that thread's CPU time. Multiply-accumulates are counted while a case runs.
"""

import argparse
import random
import statistics
import time
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from mtl_vision.decoders import PUPDecoder, PUPLightDecoder
from mtl_vision.encoders import MoEViT, TimmEncoder
from mtl_vision.networks import HardSharing, M3ViT
from mtl_vision.tasks import (
    BoundaryDetection,
    DepthEstimation,
    SaliencyDetection,
    SemanticSegmentation,
    SurfaceNormals,
)

TASKS = {
    "semseg": SemanticSegmentation(num_classes=21),
    "depth": DepthEstimation(),
    "normals": SurfaceNormals(),
    "boundary": BoundaryDetection(),
    "saliency": SaliencyDetection(),
}
ONE, ALL = ["semseg"], list(TASKS)


def make_cases(name, size, device):
    """Functions of images by name, each with the case that it is compared with."""
    dense = partial(TimmEncoder, name, img_size=size)
    experts = partial(MoEViT, name=name, img_size=size, experts="random")
    late = partial(experts, moe_layers=(7, 9, 11))
    to = {"device": device}
    vit, moe = dense().to(**to).eval(), experts(ALL).to(**to).eval()
    moe_late = late(ALL).to(**to).eval()
    loop = experts(ALL, batch_tasks=False).to(**to).eval()

    def separate(encoder):
        return lambda x: [encoder(x, task) for task in ALL]

    def network(build, encoder, decoder):
        made = build(TASKS, encoder=encoder, decoder=decoder).to(**to).eval()
        return lambda x: made.run(x, tasks=ONE)

    light4 = partial(PUPLightDecoder, stages=4)
    return {
        "encoder, dense": (vit, "encoder, dense"),
        "encoder, one task": (lambda x: moe(x, "semseg"), "encoder, dense"),
        "encoder, five passes": (separate(moe), "encoder, dense"),
        "encoder, five tasks, shared prefix": (
            lambda x: moe.forward_tasks(x, ALL),
            "encoder, five passes",
        ),
        "the same, one task after another": (
            lambda x: loop.forward_tasks(x, ALL),
            "encoder, five passes",
        ),
        "experts in 7, 9, 11, five passes": (separate(moe_late), "encoder, five passes"),
        "experts in 7, 9, 11, shared prefix": (
            lambda x: moe_late.forward_tasks(x, ALL),
            "experts in 7, 9, 11, five passes",
        ),
        "dense, one task, PUP": (
            network(HardSharing, dense, PUPDecoder),
            "dense, one task, PUP",
        ),
        "M³ViT, one task, PUP": (network(M3ViT, experts, PUPDecoder), "dense, one task, PUP"),
        "M³ViT, one task, light, stride 2": (
            network(M3ViT, experts, light4),
            "M³ViT, one task, PUP",
        ),
        "M³ViT, one task, light": (
            network(M3ViT, experts, PUPLightDecoder),
            "M³ViT, one task, PUP",
        ),
    }


def seconds(function, images):
    if images.is_cuda:
        torch.cuda.synchronize()
    # One thread's own CPU time leaves out what other processes take of the machine.
    alone = not images.is_cuda and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    start = clock()
    function(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return clock() - start


def macs(function, images):
    with FlopCounterMode(display=False) as counter:
        function(images)
    return counter.get_total_flops() / 2 / len(images)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="deit_small_patch16_224")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="cases whose names hold this, and their others")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    random.seed(0)
    images = torch.randn(args.batch, 3, args.size, args.size, device=args.device)
    cases = make_cases(args.model, (args.size, args.size), args.device)
    chosen = {name for name in cases if args.only in name}
    chosen |= {cases[name][1] for name in chosen}
    cases = {name: case for name, case in cases.items() if name in chosen}
    times = {name: [] for name in cases}
    with torch.inference_mode():
        for function, _ in cases.values():
            seconds(function, images)
        for _ in range(args.repeats):
            for name in random.sample(list(cases), len(cases)):
                times[name].append(seconds(cases[name][0], images))
        work = {name: macs(function, images) for name, (function, _) in cases.items()}
    table = Table("case", "G MACs", "ms", "G MACs/s", "time beside", "MACs beside", "of")
    for name, (_, other) in cases.items():
        middle = statistics.median(times[name])
        ratio = statistics.median(a / b for a, b in zip(times[name], times[other], strict=True))
        table.add_row(
            name,
            f"{work[name] / 1e9:.2f}",
            f"{1e3 * middle / args.batch:.1f}",
            f"{args.batch * work[name] / 1e9 / middle:.1f}",
            f"{ratio:.2f}",
            f"{work[name] / work[other]:.2f}",
            other,
        )
    Console(width=160).print(table)
    print(
        f"{args.model}, {args.size}², batch {args.batch}, {args.threads} thread(s), {args.device}"
    )


if __name__ == "__main__":
    main()
