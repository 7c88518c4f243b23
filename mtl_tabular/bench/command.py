"""The verb ``bench``: a plan from YAML and shell, a progress bar, a picture and a table."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import mtl_tabular.networks  # noqa: F401  # short names of networks in YAML
from mtl_core.atomic import atomic_write
from mtl_core.cli import unknown_names
from mtl_core.errors import MTLError
from mtl_core.nn import MultiTaskNetwork
from mtl_tabular.bench.draw import Point, draw, markdown, points
from mtl_tabular.bench.plan import Plan
from mtl_tabular.bench.run import sweep
from mtl_tabular.bench.table import Outcome, read


class PlanParser(ArgumentParser):
    """Answers an unknown network with the nearest known ones."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Add the nearest names to the message and leave the rest to jsonargparse."""
        hints = unknown_names(message, {"network": MultiTaskNetwork}) if self.exit_on_error else []
        super().error("\n".join([message, *hints]), ex)


def parse(words: Sequence[str]) -> Plan:
    """A plan from ``-c FILE`` and ``--argument value``, later ones prevailing.

    Raises:
        MTLError: the plan breaks a rule.
        SystemExit: words that are no arguments of `Plan`; the parser says which.
    """
    parser = PlanParser(prog="mtl_tabular bench", description=Plan.__doc__)
    parser.add_argument("-c", "--config", action="config", help="YAML file with a plan.")
    parser.add_class_arguments(Plan)
    given = parser.instantiate(parser.parse_args(list(words)))
    given.pop("config", None)
    return Plan(**vars(given))


def bench(plan: Plan, console: Console) -> list[Point]:
    """Train what is missing, then write ``delta_m.png`` and ``delta_m.md`` and print the table.

    Args:
        plan: what to train.
        console: where progress and table go.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    try:
        with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
            bar = progress.add_task("", total=None)
            outcomes = sweep(
                plan,
                lambda done, total, name: progress.update(
                    bar, completed=done, total=total, description=name
                ),
            )
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the former into the latter
        report(plan, read(Path(plan.out) / "results.csv"))
        raise
    found = report(plan, outcomes)
    console.print(markdown(plan, found), markup=False, soft_wrap=True)
    console.print(f"Curves: {Path(plan.out) / 'delta_m.png'}", markup=False, soft_wrap=True)
    return found


def report(plan: Plan, outcomes: dict[str, Outcome]) -> list[Point]:
    """Write the picture and the table of what is there, also of a sweep that was stopped."""
    found = points(plan, outcomes)
    with atomic_write(Path(plan.out) / "delta_m.png") as file:
        draw(plan, found).savefig(file, format="png")
    with atomic_write(Path(plan.out) / "delta_m.md") as file:
        file.write(markdown(plan, found).encode())
    return found


def main(args: Sequence[str] | None = None) -> None:
    """Run ``bench``.

    A mistake that the suite explains ends with its message and exit status 2, without a traceback.

    Args:
        args: words after ``bench``; None reads those of the shell.
    """
    words = sys.argv[1:] if args is None else list(args)
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    try:
        bench(parse(words), Console())
    except MTLError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        raise SystemExit(2) from error
