"""The runs of a trial: their command lines, and what of their files counts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_core.errors import MTLError
from mtl_core.sweep.plan import Objective, Plan
from mtl_core.sweep.progress import read_progress
from mtl_core.sweep.space import Values, as_text
from mtl_core.trial import Outcome, Trial
from mtl_core.trial.record import read_metrics


class MissingValueError(MTLError, ArithmeticError):
    """A run ended without a finite value of an objective.

    Args:
        objective: its name.
        key: what of it is missing.
        found: the values that there are.
    """

    def __init__(self, objective: str, key: str, found: Sequence[str]) -> None:
        listing = ", ".join(sorted(found)) or "none"
        super().__init__(
            f"objective {objective} needs a finite {key}; finite values of the run: {listing}"
        )


def fit_words(words: Sequence[str], plan: Plan, values: Values, seed: int) -> tuple[str, ...]:
    """The command line of a run, without where its files go."""
    varied = plan.space.words(values)
    return ("fit", *words, *plan.arguments, f"--seed_everything={seed}", *varied)


def own_folder(folder: Path, plan: Plan) -> tuple[str, ...]:
    """Arguments that send a run's files to a folder, and its progress with them."""
    logger = {"save_dir": str(folder.parent), "name": "", "version": folder.name}
    progress = {"class_path": "mtl_core.sweep.progress.Progress"}
    if plan.counts_macs:
        progress["init_args"] = {"macs": True}  # type: ignore[assignment]
    return (
        f"--trainer.default_root_dir={folder}",
        f"--trainer.logger={as_text({'class_path': 'CSVLogger', 'init_args': logger})}",
        f"--trainer.callbacks+={as_text(progress)}",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
    )


def make_trial(program: str, words: Sequence[str], plan: Plan, values: Values, at: Path) -> Trial:
    """A trial as plain command lines, one a seed.

    Args:
        program: module with ``main(words)``.
        words: of ``fit`` for all trials.
        plan: of the sweep.
        values: of the trial's parameters.
        at: folder of the trial.
    """
    commands = tuple(
        (*fit_words(words, plan, values, seed), *own_folder(run_folder(at, seed), plan))
        for seed in plan.seeds
    )
    return Trial(program, commands, at)


def run_folder(at: Path, seed: int) -> Path:
    """Folder of the run of one seed."""
    return at / f"seed_{seed}"


@dataclass(frozen=True)
class Run:
    """What one run of a trial left behind.

    Args:
        metrics: content of ``metrics.json``.
        progress: lines of ``progress.jsonl``.
    """

    metrics: Mapping[str, Any]
    progress: Sequence[Mapping[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """From its folder."""
        return cls(read_metrics(folder, 0.0), read_progress(folder))

    @property
    def validations(self) -> list[Mapping[str, Any]]:
        """The lines of validations."""
        return [line for line in self.progress if "validation" in line]

    @property
    def finite(self) -> dict[str, float]:
        """All finite values: of the last validation, Δm, and what the model costs."""
        found: dict[str, Any] = dict(self.validations[-1]) if self.validations else {}
        for line in self.progress:
            if "parameters" in line:
                found |= line
        gain = (self.metrics.get("val") or {}).get("delta_m")
        return {k: v for k, v in {**found, "val/delta_m": gain}.items() if v is not None}


def objective_values(plan: Plan, runs: Sequence[Run], outcome: Outcome) -> list[float]:
    """The value of every objective, mean over the runs.

    Raises:
        MissingValueError: one is absent or not finite.
    """
    return [
        math.fsum(_value(name, objective, run, outcome, len(runs)) for run in runs) / len(runs)
        for name, objective in plan.objectives.items()
    ]


def _value(name: str, objective: Objective, run: Run, outcome: Outcome, runs: int) -> float:
    if objective.epoch == "best":
        reached = [v for line in run.validations if (v := objective.at(line)) is not None]
        if reached:
            return max(reached) if objective.higher_is_better else min(reached)
    # Seconds are those of the whole trial, so a run has its part of them.
    used = {
        "seconds": outcome.seconds / runs,
        "cpu_seconds": outcome.cpu_seconds / runs,
        "peak_mib": outcome.peak_mib,
    }
    found = {**run.finite, **used}
    for key in objective.value:
        if key not in found:
            raise MissingValueError(name, key, [k for k in found if k.startswith("val/")])
    return math.fsum(found[key] for key in objective.value) / len(objective.value)
