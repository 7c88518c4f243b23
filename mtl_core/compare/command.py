"""The verb ``compare``: run a plan, or go on with it, and report."""

import argparse
import os
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.markdown import Markdown
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mtl_core.compare.comparison import Comparison
from mtl_core.compare.jobs import Job
from mtl_core.compare.session import Session
from mtl_core.errors import MTLError
from mtl_core.stats.command import power_lines, write_report
from mtl_core.trial import Runner


def main(words: Sequence[str]) -> None:
    """Run the verb.

    A mistake ends with its message and exit status 2, an interrupt with 130; the same command
    goes on.

    Args:
        words: behind ``compare``.
    """
    options = _parser().parse_args(list(words))
    try:
        run(options)
    except MTLError as error:
        if os.environ.get("JSONARGPARSE_DEBUG"):
            raise
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted; the same command goes on.\n")
        sys.exit(130)


def run(options: argparse.Namespace) -> list[Path]:
    """Run what is left of a plan and write its report.

    Args:
        options: of the command line.

    Returns:
        The files of the report; none where no run has a score.
    """
    comparison = Comparison.load(options.config)
    plan = comparison.plan
    folder = options.out or Path("runs") / "compare" / plan.name
    console = Console()
    for line in power_lines(plan):
        console.print(line, soft_wrap=True, highlight=False)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with Runner(fresh=options.fresh, threads=options.threads) as runner:
            session = Session(
                comparison,
                folder,
                runner,
                jobs=options.jobs,
                retry=options.retry,
                keep=options.keep,
            )
            with Display(session, console) as display:
                session.run(display.tell)
    finally:
        signal.signal(signal.SIGTERM, before)
    if session.stopped_after is not None and session.stopped_after < len(plan.seeds):
        console.print(
            f"Ended after {session.stopped_after} of {len(plan.seeds)} blocks, as the plan allows."
        )
    if not session.table.is_file():
        console.print(f"No run has a score; see {session.runs.path}.", soft_wrap=True)
        return []
    paths = write_report(session.table, plan, folder / "report", unblind=options.unblind)
    console.print(Markdown(paths[0].read_text().split("![", 1)[0]))
    for path in paths:
        console.print(str(path), soft_wrap=True, highlight=False)
    return paths


class Display:
    """A progress bar on a terminal, elsewhere a line a run. Neither shows a score.

    A context manager.

    Args:
        session: that is run.
        console: to print on.
    """

    def __init__(self, session: Session, console: Console) -> None:
        self.session = session
        self.console = console
        self.counts: Counter[str] = Counter()
        every = [job for block in session.blocks for job in block]
        done = session.done()
        self.total = len(every)
        self.ended = sum(job.key in done for job in every)
        self._running: list[str] = []
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("", total=self.total, completed=self.ended)

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *caught: object) -> None:
        if self.console.is_terminal:
            self._bar.stop()

    def tell(self, event: str, job: Job) -> None:
        """Take in that a run starts or has ended.

        Args:
            event: ``start``, or the status it ended with.
            job: the run.
        """
        plan = self.session.plan
        name = job.shown(plan, blind=plan.blind)
        if event == "start":
            self._running.append(name)
        else:
            self._running.remove(name)
            self.counts[event] += 1
            self.ended += 1
        bad = sum(n for status, n in self.counts.items() if status != "finished")
        said = f"block {job.block} of {len(plan.seeds)}: {', '.join(self._running)}"
        if bad:
            said += f" [red]({bad} failed)[/red]"
        self._bar.update(self._task, description=said, completed=self.ended)
        if event != "start" and not self.console.is_terminal:
            line = f"{self.ended} of {self.total}: block {job.block}, {name}: {event}"
            self.console.print(line, soft_wrap=True, markup=False, highlight=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mtl_core compare",
        description="Methods by tasks by seeds, as a plan says. The same command goes on after an "
        "interruption, and runs nothing that has ended.",
        allow_abbrev=False,
    )
    parser.add_argument("-c", "--config", type=Path, required=True, help="The plan, YAML.")
    parser.add_argument("--out", type=Path, help="Folder; default: runs/compare/NAME_OF_PLAN.")
    parser.add_argument("--jobs", type=int, default=1, help="Runs of a block at once.")
    parser.add_argument("--threads", type=int, default=0, help="Of PyTorch in a run.")
    parser.add_argument(
        "--fresh", action="store_true", help="A new interpreter a run, as CUDA may need."
    )
    parser.add_argument(
        "--retry", action="store_true", help="Run what did not finish before once more."
    )
    parser.add_argument("--keep", action="store_true", help="Keep the checkpoints.")
    parser.add_argument("--unblind", action="store_true", help="Show names of a blind plan.")
    return parser


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Let a scheduler's signal end the comparison as Ctrl-C does."""
    raise KeyboardInterrupt
