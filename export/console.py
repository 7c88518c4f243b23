"""Tables on the terminal: with rich where it is installed, else in plain text."""

import sys
from collections.abc import Sequence


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table to standard output.

    Args:
        title: above it.
        columns: headings.
        rows: cells; those that are no text are aligned to the right.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    right = [bool(rows) and all(_is_number(row[i]) for row in cells) for i in range(len(columns))]
    if sys.stdout.isatty() and _print_rich(title, columns, cells, right):
        return
    widths = [max(len(row[i]) for row in [list(columns), *cells]) for i in range(len(columns))]
    lines = [title, *(_line(row, widths, right) for row in [list(columns), *cells])]
    sys.stdout.write("\n".join(lines) + "\n\n")


def _print_rich(
    title: str, columns: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool]
) -> bool:
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        return False
    table = Table(title=title, title_justify="left")
    for name, numeric in zip(columns, right, strict=True):
        table.add_column(name, justify="right" if numeric else "left")
    for row in cells:
        table.add_row(*row)
    Console().print(table, markup=False)
    return True


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [
        cell.rjust(width) if numeric else cell.ljust(width)
        for cell, width, numeric in zip(row, widths, right, strict=True)
    ]
    return ("  " + "  ".join(padded)).rstrip()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text in ("", "–")
    return True
