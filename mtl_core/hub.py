"""Networks in folders, in the layout of the Hugging Face hub: config, weights, model card."""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load_model, save_model

from mtl_core import __version__
from mtl_core.errors import ArgumentError, CheckpointWriteError, MTLError
from mtl_core.nn import MultiTaskNetwork
from mtl_core.rebuild import NetworkConfig, build, describe
from mtl_core.types import TaskName

FORMAT = 1
"""Version of ``config.json``; raised when older suites could no longer read it."""

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


class HubError(MTLError, ValueError):
    """A saved network cannot be read, or the hub not be reached; the message says why."""


def save_pretrained(
    network: MultiTaskNetwork,
    folder: Path | str,
    *,
    config: NetworkConfig | None = None,
    description: str = "",
    metrics: Mapping[TaskName, Mapping[str, float]] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a network as ``config.json``, ``model.safetensors`` and ``README.md``; no pickle.

    The folder appears complete or not at all: it is written beside its place and renamed.
    ``config.json`` holds the blocks ``tasks`` and ``network`` as in a YAML config.

    Args:
        network: the network, not its LightningModule.
        folder: where; must not exist or be empty, unless `overwrite`.
        config: plain data that rebuilds the network, where it does not record its arguments.
        description: text of the model card.
        metrics: results for the model card, by task and metric.
        overwrite: replace an earlier save. A folder that holds anything else is never replaced.

    Returns:
        The folder.

    Raises:
        RebuildError: the network cannot be described by plain data.
        ArgumentError: the folder is taken.
        CheckpointWriteError: the system refused; what was there before is untouched.
    """
    folder = Path(folder).absolute()
    config = config or describe(network)
    _check_free(folder, overwrite)
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        save_model(network, str(temporary / WEIGHTS), metadata={"format": "pt"})
        record = {
            "format": FORMAT,
            "mtl_suite": __version__,
            "weights_sha256": _digest(temporary / WEIGHTS),
            **config,
        }
        (temporary / CONFIG).write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
        card = model_card(network, description=description, metrics=metrics or {})
        (temporary / CARD).write_text(card, encoding="utf-8")
        temporary.chmod(0o755)
        _replace(temporary, folder)
    except (OSError, SafetensorError) as error:
        raise CheckpointWriteError(folder, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def from_pretrained(source: Path | str, *, revision: str | None = None) -> MultiTaskNetwork:
    """The network that `save_pretrained` wrote, in evaluation mode on the CPU.

    Modules named in ``config.json`` are imported (see `mtl_core.rebuild.build`); nothing is
    unpickled. Load only what you would also run.

    Args:
        source: a folder, or ``owner/name`` on the Hugging Face hub (needs the extra ``hub``).
        revision: branch, tag or commit on the hub.

    Raises:
        HubError: there is no such folder or repository, a file is missing or damaged, or the format
            is newer than this suite.
        RebuildError: a class of the config cannot be found or refuses its arguments.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = _download(str(source), revision)
    record = _read_config(folder / CONFIG)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise HubError(f"a saved network must hold {WEIGHTS}: {folder} does not.")
    if _digest(weights) != record["weights_sha256"]:
        raise HubError(
            f"{weights} must have the checksum that {CONFIG} records: it is truncated, damaged or "
            "belongs to another save."
        )
    network = build({"tasks": record["tasks"], "network": record["network"]})
    try:
        load_model(network, weights)
    except (RuntimeError, SafetensorError) as error:
        raise HubError(f"{weights} must hold the weights that {CONFIG} needs: {error}") from error
    return network.eval()


def push_to_hub(
    folder: Path | str, repository: str, *, private: bool = False, message: str = ""
) -> str:
    """Upload a saved network to the Hugging Face hub; the repository is made if it does not exist.

    Args:
        folder: written by `save_pretrained`.
        repository: ``owner/name``. You have to be logged in to the hub.
        private: visibility of a new repository.
        message: of the commit.

    Returns:
        Address of the commit.

    Raises:
        HubError: the folder holds no complete network, or the extra ``hub`` is not installed.
    """
    folder = Path(folder)
    _read_config(folder / CONFIG)
    for name in (WEIGHTS, CARD):
        if not (folder / name).is_file():
            raise HubError(f"a saved network must hold {name}: {folder} does not.")
    hub = _huggingface_hub(f"to upload {folder}")
    hub.create_repo(repository, private=private, exist_ok=True)
    commit = hub.upload_folder(
        repo_id=repository,
        folder_path=folder,
        allow_patterns=[CONFIG, WEIGHTS, CARD],
        commit_message=message or f"Upload with mtl-suite {__version__}",
    )
    return str(commit.commit_url)


def model_card(
    network: MultiTaskNetwork,
    *,
    description: str = "",
    metrics: Mapping[TaskName, Mapping[str, float]] | None = None,
) -> str:
    """Markdown with the hub's front matter: tasks, results, sizes, and how to load it."""
    name = type(network).__name__
    lines = ["---", "library_name: mtl-suite", "tags:", "- multi-task-learning", "---", ""]
    lines += [f"# {name} for {', '.join(network.tasks)}", ""]
    lines += [description, ""] if description else []
    lines += ["| task | type | channels | primary metric | protocol | parameters of its own |"]
    lines += ["|---|---|---|---|---|---|"]
    for key, task in network.tasks.items():
        better = "↑" if task.higher_is_better()[task.primary] else "↓"
        own = sum(p.numel() for m in network.decoder_modules(key) for p in m.parameters())
        cells = [key, type(task).__name__, str(task.out_channels), f"{task.primary} {better}"]
        lines.append(f"| {' | '.join([*cells, task.evaluation or '–', f'{own:,}'])} |")
    total = sum(p.numel() for p in network.parameters())
    lines += ["", f"{total:,} parameters in all.", ""]
    if metrics:
        lines += ["| task | metric | value |", "|---|---|---|"]
        lines += [
            f"| {task} | {metric} | {value:.4g} |"
            for task, found in metrics.items()
            for metric, value in found.items()
        ]
    lines += ["```python", "from mtl_core.hub import from_pretrained", ""]
    lines += ['network = from_pretrained("path/or/owner/name")', "predictions = network(inputs)"]
    lines += ["```", "", f"Written by mtl-suite {__version__}.", ""]
    return "\n".join(lines)


def _check_free(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that holds something, or that holds something else where it is replaced."""
    if folder.exists() and not folder.is_dir():
        raise ArgumentError("folder", "be a folder, not a file", str(folder))
    found = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if found and not overwrite:
        raise ArgumentError("folder", "be empty, unless overwrite is set", str(folder))
    foreign = sorted(found - {CONFIG, WEIGHTS, CARD})
    if foreign:
        rule = f"hold nothing but an earlier save to be replaced (there is {', '.join(foreign)})"
        raise ArgumentError("folder", rule, str(folder))


def _replace(temporary: Path, folder: Path) -> None:
    """Rename `temporary` to `folder`; what was there is put back should that fail."""
    if not folder.exists():
        temporary.rename(folder)
        return
    backup = Path(f"{temporary}.old")
    folder.rename(backup)
    try:
        temporary.rename(folder)
    except OSError:
        backup.rename(folder)
        raise
    shutil.rmtree(backup, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_config(path: Path) -> dict[str, Any]:
    """The record in ``config.json``, checked for what is needed to go on."""
    if not path.is_file():
        raise HubError(f"a saved network must hold {CONFIG}: {path.parent} does not.")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise HubError(f"{path} must be JSON: {error}") from error
    needed = ("format", "weights_sha256", "tasks", "network")
    missing = [key for key in needed if not isinstance(record, dict) or key not in record]
    if missing:
        raise HubError(f"{path} must be written by save_pretrained: it lacks {', '.join(missing)}.")
    if record["format"] != FORMAT:
        raise HubError(
            f"format in {path} must be {FORMAT}, found {record['format']!r}, written by mtl-suite "
            f"{record.get('mtl_suite', '?')}; this is {__version__}."
        )
    return cast("dict[str, Any]", record)


def _download(repository: str, revision: str | None) -> Path:
    """Local snapshot of a repository on the hub."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise HubError(f"a saved network must be a folder or owner/name, found {repository!r}.")
    hub = _huggingface_hub(f"as there is no folder {repository!r}, to look for it on the hub")
    try:  # the hub's client raises what its HTTP library raises
        found = hub.snapshot_download(
            repository, revision=revision, allow_patterns=[CONFIG, WEIGHTS, CARD]
        )
    except Exception as error:
        raise HubError(
            f"{repository!r} is no folder, and cannot be had from the Hugging Face hub: {error}"
        ) from error
    return Path(found)


def _huggingface_hub(purpose: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise HubError(
            f"huggingface-hub is needed {purpose}: pip install 'mtl-suite[hub]'."
        ) from error
    return huggingface_hub
