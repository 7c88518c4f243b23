"""``check DIR``: is a folder whole, and does it still compute what it did when it was written?"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from export.console import print_table
from export.manifest import MANIFEST, FolderError, read_manifest, recorded_files, verify
from export.runtime import Predictor, open_graph

Array: TypeAlias = NDArray[Any]

SNR_ALARM = 20.0
"""Signal-to-noise ratio in dB below which an int8 variant is worth a look; no failure by itself."""

_DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(uint8)": "uint8"}


@dataclass(frozen=True)
class Finding:
    """What the golden samples say of one task of one variant.

    Args:
        variant: its id.
        task: name.
        max_abs: largest difference to the outputs that the folder carries.
        max_rel: the same over their largest absolute value, or over 1.
        snr: signal over noise in dB; infinite where nothing differs.
        bound: on `max_rel`; None where a variant is not meant to be equal.
        failure: what is wrong; empty where all is right.
    """

    variant: str
    task: str
    max_abs: float
    max_rel: float
    snr: float
    bound: float | None
    failure: str = ""


def check(folder: Path | str, *, threads: int = 1) -> list[Finding]:
    """Hashes, schema, inputs and outputs of the graphs, batch sizes, and the golden samples.

    Variants in float32 have to give the golden outputs within the manifest's tolerance, in one
    batch and one by one; others finite numbers of the same shapes.

    Args:
        folder: written by build.
        threads: of ONNX Runtime.

    Raises:
        FolderError: a file is missing, damaged or was changed, the manifest breaks its schema, or a
            graph has other inputs or outputs than the manifest says.
    """
    verify(folder)
    manifest = read_manifest(folder)
    inputs = _arrays(Path(folder) / manifest["golden"]["inputs"])
    outputs = _arrays(Path(folder) / manifest["golden"]["outputs"])
    found = []
    for variant in manifest["variants"]:
        predictor = Predictor(folder, variant["id"], threads=threads)
        _check_graphs(Path(folder), manifest, variant)
        run = predictor.run_own if "task" in inputs else predictor.run
        whole = run(inputs)
        size = len(next(iter(inputs.values())))
        step = int(variant.get("static_batch") or 1)
        parts = [{k: v[i : i + step] for k, v in inputs.items()} for i in range(0, size, step)]
        single = [run(part) for part in parts]
        exact = variant["precision"] == "fp32"
        bound = float(manifest["golden"]["tolerance"]) if exact else None
        for task in whole:
            alone = np.concatenate([piece[task] for piece in single])
            for values in (whole[task], alone):
                if task not in outputs:
                    raise FolderError(f"golden outputs must hold task {task!r}: {sorted(outputs)}.")
                found.append(_compare(variant["id"], task, values, outputs[task], bound))
    return _worst(found)


def unlisted(folder: Path | str) -> list[str]:
    """Files that the manifest does not list; nothing protects them."""
    folder = Path(folder)
    known = {record["path"] for record in recorded_files(read_manifest(folder))} | {MANIFEST}
    files = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(set(files) - known)


def main(words: Sequence[str]) -> int:
    """Check an artefact folder without torch; exit status 1 if it does not compute what it should.

    Args:
        words: of the command line, behind the verb.
    """
    parser = argparse.ArgumentParser(prog="python -m export check", description=main.__doc__)
    parser.add_argument("folder", help="written by build")
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime (1)")
    given = parser.parse_args(words)
    try:
        findings = check(given.folder, threads=given.threads)
    except FolderError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    rows = [
        (
            f.variant,
            f.task,
            f"{f.max_abs:.1e}",
            "–" if f.bound is None else f"{f.bound:.0e}",
            "–" if np.isinf(f.snr) else f"{f.snr:.0f}",
            f.failure or ("ok" if f.bound is not None or f.snr >= SNR_ALARM else "ok, but low SNR"),
        )
        for f in findings
    ]
    title = f"Golden samples of {given.folder}"
    print_table(title, ["variant", "task", "largest error", "bound", "SNR dB", "result"], rows)
    for name in unlisted(given.folder):
        sys.stdout.write(f"note: {name} is not in {MANIFEST}, nothing was checked about it\n")
    failed = [f for f in findings if f.failure]
    if not failed:
        sys.stdout.write(f"All files and {len(findings)} graphs are as they were written.\n")
    return 1 if failed else 0


def _compare(
    variant: str, task: str, values: Array, expected: Array, bound: float | None
) -> Finding:
    if values.shape != expected.shape:
        failure = f"shape {values.shape}, expected {expected.shape}"
        return Finding(variant, task, np.inf, np.inf, -np.inf, bound, failure)
    left, right = values.astype(np.float64), expected.astype(np.float64)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    noise = np.where(same, 0.0, left - right)
    largest = float(np.abs(noise).max(initial=0.0))
    relative = largest / max(1.0, float(np.abs(right[np.isfinite(right)]).max(initial=0.0)))
    power = float((right[np.isfinite(right)] ** 2).sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = float(10 * np.log10(power / (noise**2).sum())) if noise.any() else np.inf
    failure = ""
    if not np.isfinite(noise).all():
        failure = "not finite"
    elif bound is not None and relative > bound:
        failure = f"off by {relative:.1e} of the largest value"
    return Finding(variant, task, largest, relative, snr, bound, failure)


def _worst(findings: Sequence[Finding]) -> list[Finding]:
    """One finding a variant and task: a failed one if there is one, else that with most error."""
    worst: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        key = (finding.variant, finding.task)
        held = worst.get(key)
        if held is None or (bool(finding.failure), finding.max_rel) > (
            bool(held.failure),
            held.max_rel,
        ):
            worst[key] = finding
    return list(worst.values())


def _check_graphs(folder: Path, manifest: Mapping[str, Any], variant: Mapping[str, Any]) -> None:
    """Names, types and shapes of a variant's graphs are what the manifest says."""
    declared = {entry["name"]: entry for entry in manifest["inputs"]}
    outputs = {o["name"]: o for task in manifest["tasks"] for o in task["outputs"]}
    for graph in dict.fromkeys(variant["graphs"].values()):
        session = open_graph(folder / graph)
        for value in session.get_inputs():
            entry = declared.get(value.name)
            dtype = _DTYPES.get(value.type, value.type)
            if entry is None or dtype != entry["dtype"] or value.shape[1:] != entry["shape"][1:]:
                raise FolderError(
                    f"{graph} must take what {MANIFEST} says, found input {value.name!r} "
                    f"{value.shape} of {dtype}."
                )
        for value in session.get_outputs():
            entry = outputs.get(value.name)
            if entry is not None and list(value.shape[1:]) != list(entry["shape"][1:]):
                raise FolderError(
                    f"{graph} must give what {MANIFEST} says, found output {value.name!r} "
                    f"{value.shape}, expected {entry['shape']}."
                )
            free = isinstance(value.shape[0], str) if value.shape else True
            if not free and value.shape[0] != variant.get("static_batch"):
                raise FolderError(
                    f"output {value.name!r} of {graph} must have a free batch, found {value.shape}."
                )


def _arrays(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as held:
            return {name: held[name] for name in held.files}
    except (OSError, ValueError, KeyError) as error:
        raise FolderError(f"{path} must hold arrays of numpy: {error}") from error
