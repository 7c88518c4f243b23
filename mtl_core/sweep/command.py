"""The verb ``sweep`` of a program's command line."""

import argparse
import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console

from mtl_core.errors import ArgumentError, MissingExtraError, MTLError
from mtl_core.sweep.plan import Plan


def main(program: str, words: Sequence[str]) -> None:
    """Run the verb.

    A mistake ends with its message and exit status 2, an interrupt with 130.

    Args:
        program: module with ``main(words)`` whose ``fit`` the trials are.
        words: behind ``sweep``.
    """
    try:
        if importlib.util.find_spec("optuna") is None:
            raise MissingExtraError("sweep", "optuna", "sweep")
        verbs = {"show": show, "best": best, "command": command}
        if words and words[0] in verbs:
            verbs[words[0]](program, words[1:])
        else:
            run(program, words)
    except MTLError as error:
        if os.environ.get("JSONARGPARSE_DEBUG"):
            raise
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(2)


def run(program: str, words: Sequence[str]) -> None:
    """``sweep -c config.yaml --space space.yaml -n 40``: begin a sweep, or go on with it."""
    from mtl_core.sweep.live import follow, summary
    from mtl_core.sweep.study import Definition, Sweep
    from mtl_core.sweep.worker import Worker
    from mtl_core.trial import Runner

    options, rest = _run_parser(program).parse_known_args(list(words))
    for name in ("trials", "jobs"):
        if getattr(options, name) < 1:
            raise ArgumentError(f"--{name}", "be at least 1", getattr(options, name))
    plan = Plan.load(options.space)
    folder = options.out or Path("runs") / "sweeps" / options.space.stem
    definition = Definition.of(program, rest, plan)
    sweep = Sweep.start(definition, folder, storage=options.storage, name=options.name)
    console = Console()
    before = signal.signal(signal.SIGTERM, _interrupt)
    with Runner(fresh=options.fresh, threads=_threads(options)) as runner:
        worker = Worker(sweep, runner, options.trials, take=options.take, timeout=options.timeout)
        threads = worker.work(options.jobs)
        try:
            follow(worker, threads, console)
        except KeyboardInterrupt:
            console.print("Interrupted; the same command goes on.")
            sys.exit(130)
        finally:
            sweep.close()
            signal.signal(signal.SIGTERM, before)
    if worker.errors:
        raise worker.errors[0]
    console.print(summary(sweep.trials()[: worker.total], worker.total), highlight=False)
    name = program.removesuffix(".__main__")
    for verb in ("show", "best"):
        console.print(f"  python -m {name} sweep {verb} {folder}", soft_wrap=True, highlight=False)


def show(program: str, words: Sequence[str]) -> None:
    """``sweep show FOLDER``: tables and figures."""
    from mtl_core.sweep.show import show as show_sweep
    from mtl_core.sweep.study import Sweep

    options = _folder_parser(program, "show").parse_args(words)
    console = Console()
    for path in show_sweep(Sweep.open(options.folder), console):
        console.print(str(path), soft_wrap=True, highlight=False)


def best(program: str, words: Sequence[str]) -> None:
    """``sweep best FOLDER``: write the config of the winner, or of another trial."""
    from mtl_core.sweep.best import chosen, write_config
    from mtl_core.sweep.study import Sweep

    parser = _folder_parser(program, "best")
    parser.add_argument("--trial", type=int, help="Number of a trial; default: the winner.")
    parser.add_argument("--to", type=Path, help="File to write; default: best.yaml in the folder.")
    options = parser.parse_args(words)
    sweep = Sweep.open(options.folder)
    trial = chosen(sweep, options.trial)
    path = options.to or options.folder / "best.yaml"
    write_config(sweep, trial, path)
    sys.stdout.write(f"trial {trial.number}: {path}\n")


def command(program: str, words: Sequence[str]) -> None:
    """``sweep command FOLDER``: print each trial as a line for a shell."""
    from mtl_core.sweep.best import chosen, command_of
    from mtl_core.sweep.study import Sweep

    parser = _folder_parser(program, "command")
    parser.add_argument("--trial", type=int, help="Number of a trial; default: all.")
    options = parser.parse_args(words)
    sweep = Sweep.open(options.folder)
    trials = sweep.trials() if options.trial is None else [chosen(sweep, options.trial)]
    for trial in trials:
        sys.stdout.write(f"{command_of(sweep, trial).shell()}\n")


def _run_parser(program: str) -> argparse.ArgumentParser:
    name = program.removesuffix(".__main__")
    parser = argparse.ArgumentParser(
        prog=f"python -m {name} sweep",
        description="Search over dotted keys of a config. All other arguments go to fit: "
        "-c config.yaml and overrides. The same command goes on after an interruption.",
        epilog="Also: sweep show FOLDER, sweep best FOLDER, sweep command FOLDER.",
        allow_abbrev=False,
    )
    parser.add_argument("--space", type=Path, required=True, help="What to vary, as YAML.")
    parser.add_argument("-n", "--trials", type=int, default=40, help="Trials that shall end.")
    parser.add_argument("--out", type=Path, help="Folder; default: runs/sweeps/NAME_OF_SPACE.")
    parser.add_argument("--storage", default="", help="URL for Optuna; default: a journal in out.")
    parser.add_argument("--name", default="", help="Of the study; default: the folder's.")
    parser.add_argument("--jobs", type=int, default=1, help="Trials to run here at once.")
    parser.add_argument("--take", type=int, help="Trials to run here in all; default: no limit.")
    parser.add_argument("--timeout", type=float, help="Seconds for a trial.")
    parser.add_argument("--threads", type=int, default=0, help="Of PyTorch in a trial.")
    parser.add_argument(
        "--fresh", action="store_true", help="A new interpreter a trial, as CUDA may need."
    )
    return parser


def _threads(options: argparse.Namespace) -> int:
    """Threads of PyTorch in a trial: as asked for, else trials at once share the cores."""
    if options.threads or options.jobs == 1 or "OMP_NUM_THREADS" in os.environ:
        return int(options.threads)
    return max(1, (os.cpu_count() or 1) // int(options.jobs))


def _folder_parser(program: str, verb: str) -> argparse.ArgumentParser:
    name = program.removesuffix(".__main__")
    parser = argparse.ArgumentParser(prog=f"python -m {name} sweep {verb}", allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="Of the sweep.")
    return parser


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Let a scheduler's signal end the sweep as Ctrl-C does."""
    raise KeyboardInterrupt
