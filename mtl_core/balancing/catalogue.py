"""What every method needs and costs, read off the classes themselves."""

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.table import Table
from torch import Tensor

import mtl_core.balancing as library
from mtl_core.balancing.base import Balancer
from mtl_core.balancing.feature import FeatureBalancer
from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.jacobian import JacobianBalancer
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.row_state import RowState

_FAMILIES = (LossBalancer, GradientBalancer, JacobianBalancer, FeatureBalancer)
HEADER = ("method", "what it does", "family", "needs", "walks", "keeps", "paper")


class Row(NamedTuple):
    """One method.

    Args:
        name: of the class.
        summary: first sentence of its description.
        family: base class, or ``Balancer`` where a method has a route of its own.
        needs: what it is computed from.
        walks: backward walks of the trunk a step, in terms of T tasks.
        keeps: size of its state, of numbers and of rows of the shared parameters' size.
        paper: authors, venue, year.
    """

    name: str
    summary: str
    family: str
    needs: str
    walks: str
    keeps: str
    paper: str


def method_classes() -> list[type[Balancer]]:
    """Every method that `mtl_core.balancing` exports, by name without regard to case."""
    found = [
        value
        for name in library.__all__
        if inspect.isclass(value := getattr(library, name))
        and issubclass(value, Balancer)
        and not inspect.isabstract(value)
    ]
    return sorted(found, key=lambda cls: cls.__name__.casefold())


def catalogue() -> list[Row]:
    """A row a method.

    Example:
        >>> from mtl_core.balancing.catalogue import catalogue
        >>> row = next(row for row in catalogue() if row.name == "PCGrad")
        >>> row.needs, row.walks, row.keeps
        ('Gramian', 'T', '–')
    """
    return [
        Row(
            cls.__name__,
            _summary(cls),
            next((base.__name__ for base in _FAMILIES if issubclass(cls, base)), Balancer.__name__),
            cls.needs,
            cls.walks,
            kept(cls),
            cls.source,
        )
        for cls in method_classes()
    ]


def _summary(cls: type[Balancer]) -> str:
    paragraph = (inspect.getdoc(cls) or "").split("\n\n")[0]
    return re.sub(r":math:`([^`]*)`", r"$\1$", " ".join(paragraph.split()))


def kept(cls: type[Balancer]) -> str:
    """Size of a method's state with default options, counted at several numbers of tasks.

    Classes whose state depends on the network say it themselves, as ``keeps``.
    """
    said: str = getattr(cls, "keeps", "")
    if said:
        return said
    parts = []
    rows = sum(isinstance(item, RowState) for item in _items(vars(_started(cls, 1)).values()))
    if rows:
        parts.append(f"{_term(rows, 'T')} rows")
    two, three, four = (_numbers(_started(cls, tasks).method_state()) for tasks in (2, 3, 4))
    square = (four - 2 * three + two) // 2
    linear = three - two - 5 * square
    constant = two - 2 * linear - 4 * square
    terms = [_term(square, "T²"), _term(linear, "T"), str(constant) if constant else ""]
    numbers = " + ".join(term for term in terms if term)
    if numbers:
        parts.append(f"{numbers} numbers")
    if isinstance(getattr(cls(), "inner", None), Balancer):
        parts.append("what `inner` keeps")
    return ", ".join(parts) or "–"


def _started(cls: type[Balancer], tasks: int) -> Balancer:
    method = cls()
    inner = getattr(method, "inner", None)
    if isinstance(inner, Balancer):
        inner.start([f"task{i}" for i in range(tasks)])
    method.start([f"task{i}" for i in range(tasks)])
    return method


def _items(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _items(value)
        else:
            yield value


def _numbers(state: Any) -> int:
    if isinstance(state, Tensor):
        return state.numel()
    if isinstance(state, dict):
        return sum(_numbers(value) for value in state.values())
    if isinstance(state, (list, tuple)):
        return sum(_numbers(value) for value in state)
    return 0


def _term(factor: int, symbol: str) -> str:
    return "" if not factor else symbol if factor == 1 else f"{factor}{symbol}"


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, without a final line end."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    lines += ["| `" + row.name + "` | " + " | ".join(row[1:]) + " |" for row in rows]
    return "\n".join(lines)


def terminal(rows: Sequence[Row]) -> Table:
    """The rows as a table for the terminal, without the summaries."""
    table = Table(box=box.SIMPLE_HEAD, title="Balancing methods", title_justify="left")
    for i, name in enumerate(HEADER):
        if name != "what it does":
            table.add_column(name, style="cyan" if i == 0 else "", overflow="fold")
    for row in rows:
        table.add_row(*(value for i, value in enumerate(row) if HEADER[i] != "what it does"))
    return table
