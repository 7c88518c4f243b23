"""Everything in the folder ``fpga/``: formats, weights, schedule, C++, estimate, C simulation."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.fpga import csim, emit, schedule
from export.fpga import vit as floats
from export.fpga.design import Design, Widths, design
from export.fpga.devices import Device
from export.fpga.estimate import Engine, as_markdown, estimate
from export.fpga.integer.encoder import encode
from export.fpga.layers import as_csv, layer_table, shape_of
from export.fpga.pack import Memory, pack

BOUNDS = {(24, 16): 55.0, (18, 12): 48.0, (16, 8): 28.0}
"""Least decibels between floats and integers, by bits of activations and weights."""

README = """# A fixed-point design

Made by mtl-suite from a trained network. It computes the encoder for one task at a time; heads run
elsewhere.

Checked: the C++ in `hls/`, compiled with g++, gives bit by bit what the integer model in numpy
gives (`csim.json`, where it was asked for). Not checked: `hls/build.tcl` was not run by us. There
is no bitstream, no synthesis result, no power and no energy here; `estimate.md` is a lower bound
for the stated device, engine and clock.

| file | what |
|---|---|
| layers.csv | products, bytes and format of every layer |
| formats.json | width, integer bits, observed range and headroom of every tensor |
| weights/ | integers in the order of their use, `map.json` says where each tensor and expert lies |
| schedule.json | order of the experts, buffers, queues seen, cycles hidden and exposed |
| hls/ | kernels, geometry, tables, test bench, `build.sh` (g++), `build.tcl` |
| estimate.json, estimate.md | cycles and resources by formula |
"""


@dataclass(frozen=True)
class Report:
    """What came out.

    Args:
        estimate: content of ``estimate.json``.
        simulation: content of ``csim.json``; None where none was asked for.
        failures: what is out of its bounds.
    """

    estimate: dict[str, Any]
    simulation: dict[str, Any] | None
    failures: list[str] = field(default_factory=list)


def generate(
    vit: floats.ViT,
    tasks: Sequence[str],
    images: NDArray[np.uint8],
    out: Path,
    *,
    device: Device,
    engine: Engine,
    widths: Widths,
    simulate: bool = False,
    samples: int = 2,
) -> Report:
    """Write a design into a folder.

    Args:
        vit: in floats.
        tasks: whose routers are part of it.
        images: (B, C, H, W) for calibration.
        out: folder, made if needed.
        device: for the estimate and the vendor's script.
        engine: what computes.
        widths: bits.
        simulate: compile and run the C++.
        samples: images that are simulated, for every task.

    Raises:
        FormatError: a tensor, a sum or a constant does not fit.
        CSimError: the C simulation cannot be built or run.
    """
    made = design(vit, tuple(tasks), widths, images)
    geometry = emit.geometry(made, engine.macs)
    out.mkdir(parents=True, exist_ok=True)
    memory, plan = pack(made.encoder, (geometry.block_out, geometry.block_in), widths.weights)
    memory.save(out / "weights", made.formats)
    shape = shape_of(made, geometry)
    (out / "layers.csv").write_text(as_csv(layer_table(shape, made.formats)), encoding="utf-8")
    _json(out / "formats.json", made.formats)
    cost = schedule.costs(
        shape.dim, shape.expert_hidden, engine.macs, widths.stored, engine.bandwidth(device)
    )
    turns = _turns(made, memory, cost)
    _json(out / "schedule.json", schedule.as_json(turns, cost))
    emit.emit(
        out / "hls",
        {"design": geometry},
        device=device.name,
        part=device.part,
        clock_mhz=engine.clock_mhz,
    )
    (out / "README.md").write_text(README, encoding="utf-8")
    bounds = {
        task: estimate(
            shape, device, engine, _expected(turns, task), weight_format_bits=widths.weights
        )
        for task in tasks
    }
    slowest = max(bounds, key=lambda task: float(bounds[task]["milliseconds"]))
    found = {
        **bounds[slowest],
        "task": slowest,
        "milliseconds_by_task": {task: bound["milliseconds"] for task, bound in bounds.items()},
    }
    _json(out / "estimate.json", found)
    (out / "estimate.md").write_text(as_markdown(found), encoding="utf-8")
    if not simulate:
        return Report(found, None)
    simulation, failures = simulated(made, geometry, out, plan, images[:samples], turns)
    _json(out / "csim.json", simulation)
    return Report(found, simulation, failures)


def simulated(
    made: Design,
    geometry: emit.Geometry,
    out: Path,
    plan: Sequence[int],
    images: NDArray[np.uint8],
    turns: Mapping[str, Mapping[str, list[schedule.Turn]]],
) -> tuple[dict[str, Any], list[str]]:
    """Compile, run every task on some images, and compare with the integer model and the floats."""
    pixels = floats.patches(images, made.source.patch)
    tasks: dict[str, Any] = {}
    failures: list[str] = []
    widths = made.widths
    bound = BOUNDS.get((widths.activations, widths.weights))
    least = 0.98 if widths.weights <= 8 else 0.99
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        warnings = csim.build(out / "hls", work / "tb")
        for index, task in enumerate(made.tasks):
            orders = np.array(
                [[turn.expert for turn in layer[task]] for layer in turns.values()], dtype=np.int64
            )
            given = csim.run_encoder(
                work / "tb",
                "design",
                geometry,
                out / "weights",
                work / task,
                plan,
                pixels,
                index,
                orders.reshape(len(turns), -1),
            )
            entry = _compared(made, task, pixels, given)
            tasks[task] = entry
            if entry["bit_exact"] != 1.0:
                share = entry["bit_exact"]
                failures.append(f"{task}: {share:.2%} of numbers equal the integer model's")
            if bound is not None and entry["sqnr_db"] < bound:
                failures.append(f"{task}: {entry['sqnr_db']:.1f} dB, less than {bound:g}")
            kept = entry["routing_kept"]
            if kept is not None and kept < least:
                failures.append(f"{task}: {kept:.1%} of tokens keep their experts, not {least:.0%}")
    result = {
        "images": len(images),
        "bound_db": bound,
        "warnings": warnings.strip().splitlines(),
        "tasks": tasks,
        "passed": not failures,
    }
    return result, failures


def _compared(made: Design, task: str, pixels: NDArray[np.int64], given: csim.Simulated) -> Any:
    """Share of equal bits, decibels against floats, share of tokens with the same experts."""
    equal, kept, reference, found, loads = [], [], [], [], 0
    for i, image in enumerate(pixels):
        tokens, routed = encode(image, made.encoder, task)
        wanted, routes = floats.forward(image, made.source, task)
        equal.append(float((tokens == given.tokens[i]).mean()))
        for layer, (r, chosen) in enumerate(zip(routed, routes, strict=True)):
            equal.append(float((r.experts == given.experts[i, layer]).mean()))
            equal.append(float((r.gates == given.gates[i, layer]).mean()))
            kept.append(csim.routing_kept(chosen, given.experts[i, layer]))
            loads += int(given.loads[i, layer])
        reference.append(wanted)
        found.append(made.output.value(given.tokens[i]))
    return {
        "bit_exact": float(np.mean(equal)) if min(equal) < 1 else 1.0,
        "sqnr_db": csim.sqnr(np.stack(reference), np.stack(found)),
        "routing_kept": float(np.mean(kept)) if kept else None,
        "expert_loads": loads,
    }


def _turns(
    made: Design, memory: Memory, cost: schedule.Costs
) -> dict[str, dict[str, list[schedule.Turn]]]:
    """Turns of every layer of experts and every task."""
    starts: dict[str, dict[int, int]] = {}
    sizes: dict[str, int] = {}
    for tensor in memory.tensors:
        if "expert" in tensor and tensor["file"] == "weights.bin":
            layer = str(tensor["name"]).partition(".experts.")[0]
            starts.setdefault(layer, {}).setdefault(tensor["expert"], tensor["offset"])
            if tensor["expert"] == 0:
                sizes[layer] = sizes.get(layer, 0) + int(tensor["bytes"])
    found: dict[str, dict[str, list[schedule.Turn]]] = {}
    for layer, offsets in starts.items():
        ordered = [offsets[e] for e in sorted(offsets)]
        found[layer] = {
            task: schedule.turns(
                np.stack(made.ranges.queues[f"{layer}.{task}"]), cost, ordered, sizes[layer]
            )
            for task in made.tasks
        }
    return found


def _expected(
    turns: Mapping[str, Mapping[str, list[schedule.Turn]]], task: str
) -> dict[str, list[float]]:
    """Expected queues of a task, layer by layer, in the order of the experts."""
    return {
        layer: [turn.expected_queue for turn in by_task[task]] for layer, by_task in turns.items()
    }


def _json(path: Path, content: object) -> None:
    text = json.dumps(content, indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
