"""What a trial is, and what is kept of it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from mtl_core.atomic import atomic_write

Status = Literal["finished", "failed", "out of memory", "not finite", "killed", "timed out"]
"""How a trial ended."""

OUTCOME = "outcome.json"
LOG = "log.txt"


@dataclass(frozen=True)
class Trial:
    """Command lines of one program, run one after another in one process.

    >>> trial = Trial("mtl_vision.__main__", (("fit", "-c", "a.yaml"),), Path("runs/trial_0000"))
    >>> trial.shell()
    'python -m mtl_vision fit -c a.yaml'

    Args:
        program: module with ``main(words)``, such as ``mtl_vision.__main__``.
        commands: words of each command line, ``(("fit", "-c", "a.yaml"), ("test", ...))``. Relative
            paths in them are relative to the folder in which the caller stands.
        folder: where outcome and log go; the words have to send the run's own files there too.
    """

    program: str
    commands: tuple[tuple[str, ...], ...]
    folder: Path

    def shell(self) -> str:
        """The same as a line for a shell, a scheduler or another tool that starts trials."""
        import shlex

        module = self.program.removesuffix(".__main__")
        return " && ".join(shlex.join(["python", "-m", module, *c]) for c in self.commands)


@dataclass(frozen=True)
class Outcome:
    """How a trial ended, what it took and what it reached.

    Args:
        status: ``finished`` where every command came to its end; ``not finite`` where a loss or
            metric was NaN or infinite.
        reason: exception and message, signal, or empty.
        seconds: wall time.
        cpu_seconds: of the process and of those that it waited for.
        peak_mib: most memory the process held at once, in MiB; pages that it shares with the server
            it was forked from count.
        metrics: content of the run's last ``metrics.json``, empty where it wrote none.
    """

    status: Status
    reason: str
    seconds: float
    cpu_seconds: float
    peak_mib: float
    metrics: dict[str, Any] = field(default_factory=dict)

    def save(self, trial: Trial) -> None:
        """Write ``outcome.json``, complete or not at all.

        Raises:
            CheckpointWriteError: the system refused.
        """
        content = {"program": trial.program, "commands": trial.commands, **asdict(self)}
        with atomic_write(trial.folder / OUTCOME) as file:
            file.write(json.dumps(content, indent=2).encode())

    @classmethod
    def load(cls, trial: Trial) -> Self | None:
        """The outcome of exactly this trial; None where there is none, or one of other commands."""
        try:
            content = json.loads((trial.folder / OUTCOME).read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        commands = [list(words) for words in trial.commands]
        if content.pop("program") != trial.program or content.pop("commands") != commands:
            return None
        return cls(**content)


def read_metrics(folder: Path, since: float) -> dict[str, Any]:
    """Content of the newest ``metrics.json`` in or below a folder.

    Args:
        folder: of the run.
        since: seconds of the epoch; older files were left by somebody else.
    """
    found = [(path.stat().st_mtime, path) for path in folder.rglob("metrics.json")]
    # File systems keep time in steps of up to some milliseconds.
    fresh = [(time, path) for time, path in found if time >= since - 0.1]
    if not fresh:
        return {}
    content: dict[str, Any] = json.loads(max(fresh)[1].read_text())
    return content


def unfinite(metrics: Mapping[str, Any]) -> list[str]:
    """Names of scores that ``metrics.json`` keeps as null because they were not finite.

    >>> unfinite({"val": {"tasks": {"depth": {"rmse": None, "loss": 1.0}}}})
    ['val/depth/rmse']
    """
    return [
        f"{split}/{task}/{metric}"
        for split in ("val", "test")
        for task, scores in (metrics.get(split) or {}).get("tasks", {}).items()
        for metric, value in scores.items()
        if value is None
    ]
