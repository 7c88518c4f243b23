"""Turning a trial back into what a user keeps: a complete config, or the line that ran it."""

import contextlib
import importlib
import io
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from optuna.trial import FrozenTrial

from mtl_core.atomic import atomic_write
from mtl_core.errors import ArgumentError
from mtl_core.sweep.runs import fit_words, make_trial
from mtl_core.sweep.show import winner
from mtl_core.sweep.study import Sweep
from mtl_core.trial import Trial


def printed_config(program: str, words: Sequence[str]) -> str:
    """What ``--print_config`` of a command line prints: the complete config, as YAML.

    Raises:
        ArgumentError: the command line does not parse; what it says is on standard error.
    """
    module = importlib.import_module(program)
    out = io.StringIO()
    argv = [str(module.__file__), *words, "--print_config"]
    with (
        contextlib.redirect_stdout(out),
        mock.patch.object(sys, "argv", argv),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
        try:
            module.main(argv[1:])
        except SystemExit as error:
            if error.code not in (None, 0):
                raise ArgumentError("the sweep's config", "still parse", " ".join(words)) from None
    return out.getvalue()


def chosen(sweep: Sweep, trial: int | None) -> FrozenTrial:
    """A trial by number; for None the winner.

    Raises:
        ArgumentError: there is no such trial.
    """
    trials = sweep.trials()
    if trial is None:
        return winner(trials, sweep.plan.objectives)
    if not 0 <= trial < len(trials):
        raise ArgumentError("--trial", f"be one of the {len(trials)} trials", trial)
    return trials[trial]


def config_of(sweep: Sweep, trial: FrozenTrial) -> str:
    """The complete config of a trial for ``fit -c``, less where the sweep sent its files.

    Of several seeds it has the first.
    """
    held = sweep.definition
    words = fit_words(held.words, sweep.plan, trial.params, sweep.plan.seeds[0])
    values = zip(sweep.plan.objectives, trial.values or [], strict=False)
    reached = ", ".join(f"{name} = {value:.6g}" for name, value in values)
    head = f"# Trial {trial.number} of sweep {sweep.study.study_name}"
    return f"{head}{': ' if reached else ''}{reached}.\n{printed_config(held.program, words)}"


def write_config(sweep: Sweep, trial: FrozenTrial, path: Path) -> None:
    """Write it to a file.

    Raises:
        CheckpointWriteError: the system refused.
    """
    with atomic_write(path) as file:
        file.write(config_of(sweep, trial).encode())


def command_of(sweep: Sweep, trial: FrozenTrial) -> Trial:
    """The command lines that a trial is."""
    held, folder = sweep.definition, sweep.folder / "trials" / f"{trial.number:04d}"
    return make_trial(held.program, held.words, sweep.plan, trial.params, folder)
