"""Compiling the C++ design with g++, running it, and comparing it bit by bit."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.fpga.emit import FLAGS, QUIET, Geometry
from export.fpga.formats import Floats, Ints
from export.fpga.integer.moe import Mixture
from export.fpga.pack import Memory
from mtl_core.errors import MTLError


class CSimError(MTLError, RuntimeError):
    """The C simulation cannot be built or run."""


@dataclass(frozen=True)
class Simulated:
    """What the C simulation gave.

    Args:
        tokens: (images, N, D) mantissas.
        experts: (images, layers, N, K).
        gates: (images, layers, N, K) at point 20.
        loads: (images, layers) fetched experts.
    """

    tokens: Ints
    experts: Ints
    gates: Ints
    loads: Ints


def ap_headers() -> Path:
    """Folder of ``ap_fixed.h``: that of the environment variable AP_INCLUDE, or hls4ml's.

    Raises:
        CSimError: there is none.
    """
    given = os.environ.get("AP_INCLUDE")
    if given:
        folder = Path(given)
    else:
        found = importlib.util.find_spec("hls4ml")
        if found is None or found.origin is None:
            raise CSimError(
                "the C simulation needs the ap_fixed headers: install hls4ml (extra fpga), or set "
                "AP_INCLUDE to their folder."
            )
        folder = Path(found.origin).parent / "templates" / "vivado" / "ap_types"
    if not (folder / "ap_fixed.h").exists():
        raise CSimError(f"there is no ap_fixed.h in {folder}.")
    return folder


def compiler() -> str:
    """Path of g++, or of what CXX names.

    Raises:
        CSimError: there is none.
    """
    name = os.environ.get("CXX", "g++")
    path = shutil.which(name)
    if path is None:
        raise CSimError(f"the C simulation needs a C++ compiler: {name} is not there.")
    return path


def build(folder: Path, binary: Path, optimise: str = "-O1") -> str:
    """Compile ``tb.cpp`` of an emitted folder.

    Args:
        folder: of `export.fpga.emit.emit`.
        binary: the test bench to be made.
        optimise: option of the compiler.

    Returns:
        Warnings, empty as a rule.

    Raises:
        CSimError: the compiler refuses.
    """
    words = [compiler(), *FLAGS.split(), *QUIET.split(), optimise]
    words += ["-isystem", str(ap_headers()), "-I.", "tb.cpp", "-o", str(binary.resolve())]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CSimError(f"{words[0]} failed:\n{done.stderr[-4000:]}")
    return done.stderr


def run_encoder(
    binary: Path,
    name: str,
    geometry: Geometry,
    weights: Path,
    folder: Path,
    plan: Sequence[int],
    pixels: Ints,
    task: int,
    orders: Ints,
) -> Simulated:
    """Run images (B, patches, C · h · w) through an encoder.

    Args:
        binary: the test bench.
        name: of the design in it.
        geometry: its constants.
        weights: folder of ``weights.bin``.
        folder: for inputs and outputs.
        plan: of `pack`.
        pixels: 0..255.
        task: index.
        orders: (layers, E) in which experts come.
    """
    head = [len(pixels), task, len(orders)]
    _write(folder, [*head, *plan], pixels, orders)
    return _run(binary, name, geometry, weights, folder, len(pixels), len(orders))


def run_layer(
    binary: Path,
    name: str,
    geometry: Geometry,
    weights: Path,
    folder: Path,
    plan: Sequence[int],
    tokens: Ints,
    order: Sequence[int],
    task: int = 0,
) -> Simulated:
    """Run one layer of experts.

    Args:
        tokens: (images, 3, N, D): normalised tokens, what the router sees, the residual.
        order: of the experts.
        binary: see `run_encoder`, likewise the others.
        name: see there.
        geometry: see there.
        weights: see there.
        folder: see there.
        plan: of `pack.Memory.feed`.
        task: index.
    """
    _write(folder, [len(tokens), task, 1, *plan], tokens, np.asarray(order))
    return _run(binary, name, geometry, weights, folder, len(tokens), 1)


def layer_memory(layer: Mixture, geometry: Geometry) -> tuple[Memory, list[int]]:
    """Memory and plan of one layer of experts."""
    memory = Memory(geometry.block_out, geometry.block_in, geometry.weight_bits)
    return memory, memory.feed("layer", layer)


def _write(folder: Path, plan: Sequence[int], inputs: Ints, orders: Ints) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.asarray(plan, dtype="<i8").tofile(folder / "plan.bin")
    np.asarray(inputs, dtype="<i4").tofile(folder / "inputs.bin")
    np.asarray(orders, dtype="<i4").tofile(folder / "orders.bin")


def _run(
    binary: Path, name: str, g: Geometry, weights: Path, folder: Path, images: int, layers: int
) -> Simulated:
    words = [str(binary), name, str(weights), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CSimError(f"the test bench ended with {done.returncode}: {done.stderr[-2000:]}")
    outputs = np.fromfile(folder / "outputs.bin", dtype="<i4").astype(np.int64)
    routes = np.fromfile(folder / "routes.bin", dtype="<i4").astype(np.int64)
    rows = routes.reshape(images, layers, -1)
    pairs = rows[..., :-1].reshape(images, layers, g.tokens, 2, g.top_k)
    return Simulated(
        tokens=outputs.reshape(images, g.tokens, g.dim),
        experts=pairs[..., 0, :],
        gates=pairs[..., 1, :],
        loads=rows[..., -1],
    )


def sqnr(reference: Floats, found: Floats) -> float:
    """Signal to quantisation noise in decibels."""
    noise = float(((reference - found) ** 2).sum())
    signal = float((reference**2).sum())
    return float("inf") if noise == 0 else 10 * float(np.log10(signal / noise))


def routing_kept(reference: Ints, found: Ints) -> float:
    """Share of tokens whose set of experts is the same, of (..., K) arrays."""
    same = np.sort(reference, -1) == np.sort(found, -1)
    return float(same.all(-1).mean())
