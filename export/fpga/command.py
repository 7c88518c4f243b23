"""``python -m export fpga DIR|CKPT``: a fixed-point design of a routed ViT, and its bound."""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from export.fpga.design import Widths
from export.fpga.devices import device, devices
from export.fpga.estimate import Engine
from export.fpga.generate import Report, generate
from export.manifest import MANIFEST, FolderError, read_manifest, rewritten, seal, staged
from mtl_core.errors import ArgumentError, UnknownNameError

if TYPE_CHECKING:
    from export.source import Source

FOLDER = "fpga"


@dataclass(frozen=True)
class Given:
    """What a design is made of.

    Args:
        source: network, and data where there is some.
        mean: of images in [0, 1].
        std: likewise.
        images: (B, C, H, W) uint8 for calibration.
        origin: ``validation``, ``golden`` or ``random``.
    """

    source: "Source"
    mean: tuple[float, ...]
    std: tuple[float, ...]
    images: NDArray[np.uint8]
    origin: str


def parser() -> argparse.ArgumentParser:
    """Arguments of the verb."""
    made = argparse.ArgumentParser(
        prog="python -m export fpga",
        description="A fixed-point design of a (routed) ViT encoder: formats, integer weights, "
        "C++ kernels whose C simulation is bit-exact with an integer model, and a lower bound of "
        "cycles. Nothing is synthesised.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = made.add_argument
    add("source", type=Path, help="exported folder, checkpoint, run folder or hub folder")
    add("--checkpoint", type=Path, help="what an exported folder was built from")
    add("--out", type=Path, help="new folder; default: fpga/ in an exported folder")
    add("--config", type=Path, help="YAML of the run; default: config.yaml beside the checkpoint")
    add("--task", action="append", help="may be repeated; default: all tasks")
    add("--device", default="zcu104", help=", ".join(devices()))
    add("--clock-mhz", type=float, default=200.0, help="clock of the bound")
    add("--macs", type=int, default=256, help="products a cycle, a power of two")
    add("--port-bits", type=int, default=256, help="bits of weights a cycle")
    add("--format", default="18,auto/12,auto", help="W,I of activations / W,I of weights")
    add("--calibration", type=int, default=16, help="images whose ranges are observed")
    add("--csim", action="store_true", help="compile with g++ and compare bit by bit")
    return made


def parse_format(text: str) -> Widths:
    """``18,auto/12,auto`` as widths.

    Raises:
        ArgumentError: it is not written like that.

    >>> found = parse_format("24,8/16,auto")
    >>> found.activations, found.activation_integer, found.weights, found.weight_integer
    (24, 8, 16, None)
    """
    rule = "be written W,I/W,I with numbers, or auto for I"
    parts = [part.split(",") for part in text.split("/")]
    if len(parts) != 2 or any(len(part) != 2 for part in parts):
        raise ArgumentError("--format", rule, text)
    numbers: list[int | None] = []
    for width, integer in parts:
        for word, free in ((width, False), (integer, True)):
            stripped = word.strip()
            if free and stripped == "auto":
                numbers.append(None)
            elif stripped.lstrip("-").isdigit():
                numbers.append(int(stripped))
            else:
                raise ArgumentError("--format", rule, text)
    act, act_integer, weight, weight_integer = numbers
    return Widths(int(act or 0), int(weight or 0), act_integer, weight_integer)


def main(words: Sequence[str]) -> int:
    """Write the design, and print what it costs at least.

    Args:
        words: of the command line, behind the verb.

    Returns:
        1 where the C simulation differs from the integer model or is out of its bounds.
    """
    given = parser().parse_args(words)
    options = {
        "tasks": tuple(given.task) if given.task else None,
        "device_name": given.device,
        "engine": Engine(macs=given.macs, clock_mhz=given.clock_mhz, port_bits=given.port_bits),
        "widths": parse_format(given.format),
        "simulate": given.csim,
    }
    exported = (given.source / MANIFEST).is_file()
    checkpoint = given.checkpoint if exported else given.source
    if exported and checkpoint is None:
        rule = "name what the folder was built from: graphs no longer say which weights are experts"
        raise ArgumentError("--checkpoint", rule, None)
    origin = given.source if exported else None
    ready = prepare(checkpoint, origin, given.config, given.calibration)
    if not exported or given.out is not None:
        if given.out is None:
            raise ArgumentError("--out", "name a new folder", None)
        with staged(given.out) as work:
            report = make(ready, work, **options)
        show(report, given.out, ready)
        return 1 if report.failures else 0
    with tempfile.TemporaryDirectory() as name:
        report = make(ready, Path(name) / FOLDER, **options)
        with rewritten(given.source) as work:
            shutil.rmtree(work / FOLDER, ignore_errors=True)
            shutil.copytree(Path(name) / FOLDER, work / FOLDER)
            manifest = read_manifest(work)
            seal(work, manifest)
    show(report, given.source / FOLDER, ready)
    return 1 if report.failures else 0


def prepare(
    checkpoint: Path, exported: Path | None, config: Path | None = None, calibration: int = 16
) -> Given:
    """Read a network, and pictures for calibration.

    Pictures are those of the validation split; without data, the golden samples of the exported
    folder; without those, noise, which is said.

    Args:
        checkpoint: of the network.
        exported: a folder built from it.
        config: of the run.
        calibration: how many pictures at most.

    Raises:
        FolderError: the folder was built from other weights.
        SourceError: there is no network of images.
    """
    from export.samples import draw, input_spec
    from export.source import SourceError, load_source

    source = load_source(checkpoint, config)
    if exported is not None:
        built = read_manifest(exported)["model"].get("checkpoint_sha256")
        if built is not None and built != source.checkpoint_sha256:
            raise FolderError(
                f"--checkpoint must be what {exported} was built from, found {checkpoint} with "
                "another checksum."
            )
    if source.kind != "image":
        raise SourceError(
            "a fixed-point design is made of networks on images, found one on columns. Small "
            "perceptrons on columns go through export.fpga.hls4ml_bridge."
        )
    spec = input_spec(source)
    arrays, origin = draw(source, spec, calibration)
    pictures = np.asarray(arrays["image"])
    if origin == "random" and exported is not None:
        golden = Path(exported) / "golden" / "inputs.npz"
        if golden.is_file():
            with np.load(golden) as held:
                if "image" in held:
                    pictures, origin = np.asarray(held["image"]), "golden"
    if pictures.dtype == np.uint8:  # of a folder that was built with --bake-preprocess
        return Given(source, spec.mean, spec.std, pictures.transpose(0, 3, 1, 2), origin)
    bytes_ = np.clip(np.floor(pictures * 255 + 0.5), 0, 255).astype(np.uint8)
    return Given(source, spec.mean, spec.std, bytes_, origin)


def make(
    given: Given,
    out: Path,
    *,
    tasks: tuple[str, ...] | None,
    device_name: str,
    engine: Engine,
    widths: Widths,
    simulate: bool,
) -> Report:
    """Generate a design into a folder.

    Args:
        given: of `prepare`.
        out: folder.
        tasks: whose routers it gets; None: all.
        device_name: key of ``devices.yaml``.
        engine: what computes.
        widths: bits.
        simulate: compile and run the C++.

    Raises:
        UnknownNameError: there is no such task or device.
        UnsupportedLayerError: the kernels do not compute the network.
    """
    from export.fpga.read import read_vit

    known = tuple(given.source.tasks)
    for name in tasks or ():
        if name not in known:
            raise UnknownNameError("--task", name, known)
    chosen = known if tasks is None else tuple(name for name in known if name in tasks)
    board = device(device_name)
    vit = read_vit(given.source.network, chosen, given.mean, given.std)
    return generate(
        vit,
        chosen,
        given.images,
        out,
        device=board,
        engine=engine,
        widths=widths,
        simulate=simulate,
    )


def for_build(source: Path, exported: Path, words: Sequence[str] = ()) -> int:
    """What ``build --target fpga`` runs once the folder is sealed.

    Args:
        source: what was built.
        exported: the folder.
        words: further options of the verb.
    """
    return main([str(exported), "--checkpoint", str(source), *words])


def show(report: Report, out: Path, given: Given) -> None:
    """Print the bound and what the C simulation gave."""
    console = Console()
    found: dict[str, Any] = report.estimate
    roof = found["roofline"]
    table = Table()
    for column in ("device", "clock", "task", "GMAC", "bound ms", "binds", "DSP", "BRAM36"):
        table.add_column(column)
    needed, offered = found["resources"]["needed"], found["resources"]["offered"]
    table.add_row(
        found["device"]["name"],
        f"{found['engine']['clock_mhz']:g} MHz",
        found["task"],
        f"{found['macs'] / 1e9:.3f}",
        f"{found['milliseconds']:.2f}",
        roof["binds"],
        f"{needed['dsp']} of {offered['dsp']}",
        f"{needed['bram36']} of {offered['bram36']}",
    )
    console.print(table)
    bound = "The bound is a lower bound for the stated device, engine and clock."
    console.print(f"{out}\n{bound} {found['advice']}", soft_wrap=True)
    if given.origin == "random":
        console.print(
            "Ranges were observed on noise: there is no data and no golden sample. Number formats "
            "may be wrong for pictures.",
            style="yellow",
            soft_wrap=True,
        )
    if report.simulation is not None:
        for task, entry in report.simulation["tasks"].items():
            kept = entry["routing_kept"]
            routing = "" if kept is None else f", {kept:.1%} of tokens keep their experts"
            console.print(
                f"C simulation of {task}: {entry['bit_exact']:.2%} bit-exact, "
                f"{entry['sqnr_db']:.1f} dB{routing}",
                soft_wrap=True,
            )
    for text in report.failures:
        console.print(f"failed: {text}", style="red", soft_wrap=True)
