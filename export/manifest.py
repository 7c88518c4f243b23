"""What stands in an artefact folder: its manifest, hashes of all files, writing and checking."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

from export.json_schema import violation
from mtl_core.errors import ArgumentError, CheckpointWriteError, MTLError

SCHEMA_VERSION = 1
"""Version of ``manifest.json``; raised when older runtimes could no longer read it."""

MANIFEST, CARD = "manifest.json", "README.md"
_TENSOR_FILES = {".onnx", ".bin", ".ort"}


class FolderError(MTLError, ValueError):
    """An artefact folder is incomplete, damaged, of another version, or breaks its schema."""


@cache
def manifest_schema() -> dict[str, Any]:
    """The JSON Schema of ``manifest.json``, which is shipped beside this file."""
    text = Path(__file__).with_name("manifest.schema.json").read_text(encoding="utf-8")
    return cast("dict[str, Any]", json.loads(text))


def check_manifest(manifest: object, where: str = MANIFEST) -> None:
    """Raise `FolderError` unless `manifest` is of this version and keeps the schema.

    Args:
        manifest: what the JSON file holds.
        where: the file, for the message.
    """
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        producer = manifest.get("producer") if isinstance(manifest, dict) else None
        writer = producer.get("version", "?") if isinstance(producer, dict) else "?"
        hint = (
            " Build the folder again with this version of mtl-suite."
            if isinstance(version, int)
            else " Is it an artefact folder at all?"
        )
        raise FolderError(
            f"schema_version of {where} must be {SCHEMA_VERSION}, found {version!r} "
            f"(written by mtl-suite {writer}).{hint}"
        )
    found = violation(manifest, manifest_schema())
    if found is not None:
        raise FolderError(f"{where} must keep its schema: {found}.")


def read_manifest(folder: Path | str) -> dict[str, Any]:
    """The validated manifest of an artefact folder; hashes are looked at by `verify`.

    Args:
        folder: written by ``python -m export build``.

    Raises:
        FolderError: there is no manifest, or it is no JSON, of another version, or invalid.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise FolderError(
            f"an artefact folder must hold {MANIFEST}: {folder} does not"
            f"{'' if Path(folder).is_dir() else ' exist'}. "
            "`python -m export build CKPT --out DIR` writes one."
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FolderError(f"{path} must be JSON: {error}") from error
    check_manifest(manifest, str(path))
    return cast("dict[str, Any]", manifest)


def file_record(root: Path | str, path: Path | str) -> dict[str, Any]:
    """``path`` relative to `root` with slashes, ``bytes`` and ``sha256`` of one file.

    Args:
        root: the artefact folder.
        path: of the file, absolute or relative to `root`.

    Raises:
        FolderError: the file lies outside of `root`.
    """
    base = Path(root).resolve()
    place = (base / path).resolve()
    if not place.is_relative_to(base):
        raise FolderError(f"files must lie inside of the artefact folder, found {path}.")
    return {
        "path": place.relative_to(base).as_posix(),
        "bytes": place.stat().st_size,
        "sha256": digest(place),
    }


def digest(path: Path | str) -> str:
    """SHA-256 of a file, in hexadecimal."""
    import hashlib  # four megabytes of memory that prediction alone does not need

    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(folder: Path | str) -> None:
    """Raise `FolderError`, naming the file, unless every file is as the manifest records it.

    Args:
        folder: an artefact folder.
    """
    manifest = read_manifest(folder)
    for record in recorded_files(manifest):
        path = Path(folder) / record["path"]
        if not path.resolve().is_relative_to(Path(folder).resolve()):
            raise FolderError(f"files must lie inside of the artefact folder, found {path}.")
        if not path.is_file():
            raise FolderError(f"{path} must be there, as {MANIFEST} lists it; it is missing.")
        size = path.stat().st_size
        if size != record["bytes"]:
            rule = f"have {record['bytes']} bytes as {MANIFEST} records, found {size}"
            raise FolderError(f"{path} must {rule}: it was truncated, edited or replaced.")
        if digest(path) != record["sha256"]:
            raise FolderError(
                f"{path} must have the checksum that {MANIFEST} records: it was damaged, edited "
                "or replaced."
            )


def recorded_files(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records of all files, those of the variants first."""
    found = [record for variant in manifest["variants"] for record in variant["files"]]
    return [*found, *manifest["files"]]


def seal(folder: Path | str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Write the model card, record every file under `folder`, and write the manifest last.

    Graphs and weights (``.onnx``, ``.bin``, ``.ort``) belong to the variant whose graphs lie in
    the same folder, everything else to the manifest's own ``files``.

    Args:
        folder: with all files but the manifest.
        manifest: without ``files``; ``schema_version`` is added.

    Returns:
        The manifest as written.

    Raises:
        FolderError: it breaks the schema, or a graph that it names is not there.
    """
    folder = Path(folder)
    sealed: dict[str, Any] = {**manifest, "schema_version": SCHEMA_VERSION}
    variants = [{**variant, "files": []} for variant in manifest["variants"]]
    owners: dict[str, dict[str, Any]] = {}
    for variant in variants:
        for graph in variant["graphs"].values():
            if not (folder / graph).is_file():
                raise FolderError(f"graphs of variant {variant['id']!r} must exist: {graph}.")
            owners.setdefault(Path(graph).parent.as_posix(), variant)
    sealed["variants"], sealed["files"] = variants, []
    others = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        relative = path.relative_to(folder)
        owner = owners.get(relative.parent.as_posix())
        if relative.suffix in _TENSOR_FILES and owner is not None:
            owner["files"].append(file_record(folder, relative))
        elif relative.as_posix() not in (MANIFEST, CARD):
            others.append(relative)
    check_manifest(sealed)
    from export.card import model_card  # which reads manifests

    (folder / CARD).write_text(model_card(sealed), encoding="utf-8")
    sealed["files"] = [file_record(folder, path) for path in sorted([Path(CARD), *others])]
    text = json.dumps(sealed, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return sealed


def add_variant(
    folder: Path | str, variant: Mapping[str, Any], extra_files: Mapping[str, Path]
) -> dict[str, Any]:
    """Add a variant to a sealed folder, or replace the one of the same ``id``; all or nothing.

    Args:
        folder: an artefact folder.
        variant: without ``files``, which are recorded here.
        extra_files: where the new files lie now, by path relative to `folder`: the variant's
            graphs and weights, and reports if any. They are copied.

    Returns:
        The new manifest.

    Raises:
        FolderError: the folder is damaged, or the new manifest would break the schema.
        CheckpointWriteError: the system refused; the folder is as it was.
    """
    verify(folder)
    with rewritten(folder) as work:
        manifest = read_manifest(work)
        kept = [old for old in manifest["variants"] if old["id"] != variant["id"]]
        for old in manifest["variants"]:
            if old["id"] == variant["id"]:
                for record in old["files"]:
                    (work / record["path"]).unlink()
        for name, source in extra_files.items():
            target = work / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        return seal(work, {**manifest, "variants": [*kept, dict(variant)]})


@contextmanager
def staged(folder: Path | str) -> Iterator[Path]:
    """An empty folder beside `folder` that takes its name once the block ends without an error.

    Args:
        folder: must not exist, or be empty.

    Raises:
        ArgumentError: `folder` holds something, or is a file.
        CheckpointWriteError: the system refused; nothing is left behind.
    """
    folder = Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArgumentError("out", "be a new folder, or an empty one", str(folder))
    with _sibling(folder) as work:
        yield work
        if folder.is_dir():
            folder.rmdir()
        work.rename(folder)


@contextmanager
def rewritten(folder: Path | str) -> Iterator[Path]:
    """A copy of a folder that takes its place once the block ends without an error.

    Args:
        folder: an artefact folder.

    Raises:
        CheckpointWriteError: the system refused; the folder is as it was.
    """
    folder = Path(folder).absolute()
    with _sibling(folder) as work:
        shutil.copytree(folder, work, dirs_exist_ok=True)
        yield work
        backup = Path(f"{work}.old")
        folder.rename(backup)
        try:
            work.rename(folder)
        except OSError:
            backup.rename(folder)
            raise
        shutil.rmtree(backup, ignore_errors=True)


@contextmanager
def _sibling(folder: Path) -> Iterator[Path]:
    """A temporary folder on the same disk, removed at the end if it is still there."""
    work: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        work.chmod(0o777 & ~_umask())
        yield work
    except MTLError:
        raise
    except OSError as error:
        raise CheckpointWriteError(folder, error) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
