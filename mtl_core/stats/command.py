"""``python -m mtl_core.stats``: the report of a table, and what its seeds can show."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from mtl_core.atomic import atomic_write
from mtl_core.errors import ArgumentError, MTLError
from mtl_core.stats.history import History
from mtl_core.stats.plan import Plan
from mtl_core.stats.power import smallest_effect
from mtl_core.stats.render import latex, markdown, page, put_between, summary_markdown
from mtl_core.stats.report import Report, blocks_of, make_report
from mtl_core.stats.table import Table


def main(words: Sequence[str] | None = None) -> None:
    """Run a verb; a mistake ends with its message and exit status 2.

    Args:
        words: None reads those of the shell.
    """
    options = _parser().parse_args(words)
    try:
        options.verb(options)
    except MTLError as error:
        if os.environ.get("JSONARGPARSE_DEBUG"):
            raise
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mtl_core.stats", allow_abbrev=False)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    report = verbs.add_parser("report", help="report of a table of results", allow_abbrev=False)
    report.add_argument("table", type=Path, help="long table, CSV or Parquet")
    report.add_argument("--plan", type=Path, required=True, help="plan of the comparison, YAML")
    report.add_argument("--out", type=Path, help="folder; default: report, beside the table")
    report.add_argument("--unblind", action="store_true", help="show names of a blind plan")
    report.add_argument("--ranks", action="store_true", help="add Friedman's test over tasks")
    report.add_argument("--into", type=Path, help="only put Markdown between marks of this file")
    report.add_argument("--marker", help="name of the marks; NAME:summary takes the short form")
    report.set_defaults(verb=_report)
    power = verbs.add_parser("power", help="what a plan's seeds can show", allow_abbrev=False)
    power.add_argument("--plan", type=Path, required=True, help="plan of the comparison, YAML")
    power.set_defaults(verb=lambda options: print_power(Plan.load(options.plan)))
    return parser


def _report(options: argparse.Namespace) -> None:
    plan = Plan.load(options.plan)
    if (options.into is None) != (options.marker is None):
        raise ArgumentError("--into and --marker", "be given together", options.marker)
    if options.into is not None:
        made = make_report(Table.read(options.table), plan, History.of(options.table))
        put_between(options.into, options.marker, marked_text(made, options.marker))
        return
    paths = write_report(
        options.table, plan, options.out, unblind=options.unblind, with_ranks=options.ranks
    )
    console = Console()
    console.print(Markdown(paths[0].read_text().split("![", 1)[0]))
    for path in paths:
        console.print(str(path), soft_wrap=True, highlight=False)


def marked_text(report: Report, marker: str) -> str:
    """What stands between the marks of a name in a page: the report, or its summary."""
    if marker.endswith(":summary"):
        return summary_markdown(report)
    return markdown(report, heading=False)


def write_report(
    path: Path,
    plan: Plan,
    out: Path | None = None,
    *,
    unblind: bool = False,
    with_ranks: bool = False,
) -> list[Path]:
    """Write a report as Markdown, LaTeX, HTML and pictures, and count the look at the results.

    Args:
        path: of the table.
        plan: of the comparison.
        out: folder; None is ``report`` beside the table.
        unblind: show names of a blind plan, and note when.
        with_ranks: add Friedman's test.

    Returns:
        The files, Markdown first.

    Raises:
        MTLError: as of `make_report` and `Table.read`.
    """
    from mtl_core.stats.figures import save_figures

    table, history = Table.read(path), History.of(path)
    blocks = len(blocks_of(table, plan))
    if unblind and plan.blind:
        history.unblind(blocks)
    made = make_report(table, plan, history, unblind=unblind, with_ranks=with_ranks)
    history.remember(plan)
    history.look(blocks)
    history.save(path)
    folder = path.parent / "report" if out is None else out
    pictures = save_figures(made, folder, "figure")
    names = {title: picture.name for title, picture in pictures.items()}
    texts = {
        "report.md": markdown(made, names),
        "report.tex": latex(made, names),
        "report.html": page(made, {t: picture.read_bytes() for t, picture in pictures.items()}),
    }
    for name, text in texts.items():
        with atomic_write(folder / name) as file:
            file.write(text.encode())
    return [*(folder / name for name in texts), *pictures.values()]


def power_lines(plan: Plan) -> list[str]:
    """What the plan's seeds can show, in standard deviations of paired differences."""
    seeds, methods = len(plan.seeds), len(plan.methods)
    if seeds < 2:
        return ["One seed shows nothing about training randomness."]
    pairs = methods * (methods - 1) // 2
    one = smallest_effect(1.0, seeds, plan.alpha)
    corrected = smallest_effect(1.0, seeds, plan.alpha / pairs)
    return [
        f"{seeds} seeds show, with 80 % power by a paired t-test, a difference of {one:.2f} "
        "standard deviations of the paired differences",
        f"for one pair, and of {corrected:.2f} for the first among {pairs} pairs.",
    ]


def print_power(plan: Plan) -> None:
    """Print `power_lines`."""
    sys.stdout.write("\n".join(power_lines(plan)) + "\n")
