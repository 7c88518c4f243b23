"""A report as Markdown, LaTeX or HTML."""

import base64
import html
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from mtl_core.errors import ArgumentError
from mtl_core.stats.grids import Grid
from mtl_core.stats.report import Report

LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "−": r"$-$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "Δ": r"$\Delta$",
    "α": r"$\alpha$",
    "<": r"$<$",
    ">": r"$>$",
    "–": "--",
}
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em}
table{border-collapse:collapse;margin:1em 0}th,td{padding:.25em .8em;border-bottom:1px solid #ddd}
td+td,th+th{text-align:right}.warning{color:#a33}img{max-width:100%}.note{color:#555}"""


def summary_markdown(report: Report) -> str:
    """First lines, warnings and one table of all methods and tasks."""
    head = [*report.lines, *(f"Note: {text}" for text in report.warnings)]
    return (
        "\n".join([*_listed(head), "", *_table(report.summary), "", *report.summary.notes]) + "\n"
    )


def markdown(
    report: Report, figures: Mapping[str, str] | None = None, *, heading: bool = True
) -> str:
    """The whole report.

    Args:
        report: to render.
        figures: paths of pictures by title, as the file shall name them.
        heading: begin with the plan's name.
    """
    head = [*report.lines, *(f"**Note:** {text}" for text in report.warnings)]
    out = [f"# {_plain(report.name)}", ""] if heading else []
    out += [*_listed(head), ""]
    for grid in (report.summary, *report.grids):
        out += [f"**{_plain(grid.title)}**", "", *_table(grid), ""]
        out += [" ".join(grid.notes), ""] if grid.notes else []
    for title, path in (figures or {}).items():
        out += [f"![{_plain(title)}]({path})", ""]
    return "\n".join(out).rstrip("\n") + "\n"


def latex(report: Report, figures: Mapping[str, str] | None = None) -> str:
    """Tables to be put into a document that uses booktabs (and graphicx for figures)."""
    out = [f"% {line}" for line in (report.name, *report.lines, *report.warnings)]
    for grid in (report.summary, *report.grids):
        columns = "l" + "r" * (len(grid.header) - 1)
        out += [
            "",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{tex(' '.join((f'{grid.title}.', *grid.notes)))}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            rf"{' & '.join(map(tex, grid.header))} \\",
            r"\midrule",
            *(rf"{' & '.join(map(tex, row))} \\" for row in grid.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    for title, path in (figures or {}).items():
        out += [
            "",
            r"\begin{figure}",
            r"\centering",
            rf"\includegraphics[width=\linewidth]{{{path}}}",
            rf"\caption{{{tex(title)}}}",
            r"\end{figure}",
        ]
    return "\n".join(out) + "\n"


def page(report: Report, figures: Mapping[str, bytes] | None = None) -> str:
    """The whole report as one HTML file, its pictures (PNG) inside."""
    out = [
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{_html(report.name)}"
        f"</title><style>{STYLE}</style></head><body><h1>{_html(report.name)}</h1><ul>"
    ]
    out += [f"<li>{_html(line)}</li>" for line in report.lines]
    out += [f"<li class='warning'>{_html(text)}</li>" for text in report.warnings]
    out.append("</ul>")
    for grid in (report.summary, *report.grids):
        out.append(f"<h2>{_html(grid.title)}</h2><table><tr>")
        out += [f"<th>{_html(text)}</th>" for text in grid.header]
        out += ["</tr>"]
        for row in grid.rows:
            out.append(f"<tr>{''.join(f'<td>{_html(text)}</td>' for text in row)}</tr>")
        out.append(f"</table><p class='note'>{_html(' '.join(grid.notes))}</p>")
    for title, data in (figures or {}).items():
        picture = base64.b64encode(data).decode()
        out.append(f"<img alt='{_html(title)}' src='data:image/png;base64,{picture}'>")
    return "\n".join([*out, "</body></html>", ""])


def tex(text: str) -> str:
    r"""Text for LaTeX; ``**...**`` becomes bold.

    >>> print(tex("gain, % ↑"), tex("**0.96**"))
    gain, \% $\uparrow$ \textbf{0.96}
    """
    safe = "".join(LATEX.get(letter, letter) for letter in text)
    return re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", safe)


def put_between(path: Path | str, marker: str, text: str) -> bool:
    """Replace what a file has between ``<!-- MARKER -->`` and ``<!-- /MARKER -->``.

    Args:
        path: of the file.
        marker: its name, such as ``compare:digits``.
        text: what shall stand there.

    Returns:
        Whether the file was changed.

    Raises:
        ArgumentError: the file has not exactly one such pair.
    """
    path = Path(path)
    held = path.read_text()
    inside = between(held, marker)
    if len(inside) != 1:
        rule = f"hold <!-- {marker} --> and <!-- /{marker} --> once"
        raise ArgumentError(str(path), rule, f"{len(inside)} pairs")
    begin, end = f"<!-- {marker} -->\n", f"<!-- /{marker} -->"
    new = held.replace(f"{begin}{inside[0]}{end}", f"{begin}{text}{end}")
    if new != held:
        path.write_text(new)
    return new != held


def between(text: str, marker: str) -> list[str]:
    r"""What stands between the marks of a name, each time.

    >>> between("a <!-- x -->\nb\n<!-- /x --> c", "x")
    ['b\n']
    """
    name = re.escape(marker)
    return re.findall(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, re.DOTALL)


def _listed(lines: Iterable[str]) -> list[str]:
    return [f"- {line}" for line in lines]


def _table(grid: Grid) -> list[str]:
    marks = ["---", *["---:"] * (len(grid.header) - 1)]
    return [_line(grid.header), _line(marks), *(_line(row) for row in grid.rows)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _plain(text: str) -> str:
    """A cell of a Markdown table has no bar and no line end of its own."""
    return " ".join(text.replace("|", "\\|").split())


def _html(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(text))
