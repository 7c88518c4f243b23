"""What a sweep varies: numbers and choices over dotted keys, with choices inside of choices."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mtl_core.errors import ArgumentError, UnknownNameError

Scalar = bool | int | float | str | None
Values = Mapping[str, Scalar]
"""Value of every parameter by name; of a choice its label."""

NUMBER_KEYS = frozenset({"low", "high", "step", "log", "points"})


class Suggests(Protocol):
    """What of an Optuna trial a space needs."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A float within bounds."""

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """An integer within bounds."""

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """One of several labels."""


@dataclass(frozen=True)
class Number:
    """A number within bounds, both included; an integer where both bounds are.

    Args:
        low: smallest value.
        high: largest value.
        step: distance of neighbours; None is 1 for integers and none for other numbers.
        log: whether ratios matter instead of differences; needs ``low > 0`` and no step.
        points: how many values a grid takes where there is no step.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False
    points: int | None = None

    @property
    def integer(self) -> bool:
        """Whether values are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def suggest(self, trial: Suggests, name: str) -> Scalar:
        """Ask a trial for a value."""
        if self.integer:
            step = int(self.step or 1)
            return trial.suggest_int(name, int(self.low), int(self.high), step=step, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def allows(self, value: Scalar) -> bool:
        """Whether a value lies within the bounds."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= float(value) <= self.high  # type: ignore[arg-type]

    def grid(self, name: str) -> list[Scalar]:
        """The values of a grid.

        Raises:
            ArgumentError: it is a float with neither step nor points.
        """
        if self.points is not None:
            return self._spread(self.points)
        if self.integer or self.step is not None:
            step = self.step or 1
            count = math.floor((self.high - self.low) / step + 1e-9) + 1
            return [self.low + i * step for i in range(count)]
        raise ArgumentError(f"space.{name}", "have a step or points for a grid", self)

    def _spread(self, points: int) -> list[Scalar]:
        low, high = (math.log(v) if self.log else v for v in (self.low, self.high))
        parts = [i / (points - 1) for i in range(points)] if points > 1 else [0.5]
        raw = [low + (high - low) * part for part in parts]
        found = [math.exp(v) if self.log else v for v in raw]
        if self.integer:
            return list(dict.fromkeys(round(v) for v in found))
        # The ends are hit exactly, whatever the logarithm rounds to.
        return [min(max(float(f"{v:.12g}"), self.low), self.high) for v in found]


@dataclass(frozen=True)
class Choice:
    """One of several values, which may hold parameters of their own.

    Args:
        options: value by label; the parameters within a value exist only where it is chosen.
    """

    options: Mapping[Scalar, Any]

    def suggest(self, trial: Suggests, name: str) -> Scalar:
        """Ask a trial for a label."""
        return trial.suggest_categorical(name, tuple(self.options))

    def allows(self, value: Scalar) -> bool:
        """Whether a label is among the options."""
        return value in self.options

    def grid(self, name: str) -> list[Scalar]:
        """All labels."""
        return list(self.options)


Parameter = Number | Choice


class Space:
    """Parameters over dotted keys of a config.

    A mapping with ``low`` and ``high`` is a number, one with ``choices`` a choice, a list behind a
    key a choice of its entries. The entries of ``choices`` are values, by label or listed; within
    them numbers and choices may stand wherever a value may, and count only where their entry is
    chosen. Such a parameter is named by the key, the label and the path below, less ``init_args``.

    >>> space = Space(
    ...     {
    ...         "model.optimizer.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    ...         "trainer.callbacks": {
    ...             "choices": [
    ...                 {"class_path": "PCGrad"},
    ...                 {"class_path": "UW", "init_args": {"lr": {"low": 0.01, "high": 0.1}}},
    ...             ]
    ...         },
    ...     }
    ... )
    >>> values = {
    ...     "model.optimizer.lr": 1e-3,
    ...     "trainer.callbacks": "UW",
    ...     "trainer.callbacks.UW.lr": 0.05,
    ... }
    >>> for word in space.words(values):
    ...     print(word)
    --model.optimizer.lr=0.001
    --trainer.callbacks={"class_path": "UW", "init_args": {"lr": 0.05}}

    Args:
        content: parameters by dotted key, as the command line of ``fit`` knows it.

    Raises:
        ArgumentError: a parameter breaks a rule, or two have the same name.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        if not isinstance(content, Mapping) or not content:
            raise ArgumentError("space", "name at least one dotted key", content)
        self.content = dict(content)
        self.keys = {str(k): _top(v, str(k)) for k, v in content.items()}
        found = list(_named_parameters(self.keys))
        self.parameters: dict[str, Parameter] = dict(found)
        self.names = tuple(self.parameters)
        if len(self.names) < len(found):
            raise ArgumentError("space", "name each parameter once", [name for name, _ in found])

    @property
    def short_names(self) -> dict[str, str]:
        """By parameter name the shortest end of it that no other name has."""
        ends: dict[str, str] = {}
        for name in self.names:
            parts = name.split(".")
            shorter = (".".join(parts[-n:]) for n in range(1, len(parts) + 1))
            others = [other for other in self.names if other != name]
            unique = (
                end for end in shorter if not any(o == end or o.endswith(f".{end}") for o in others)
            )
            ends[name] = next(unique, name)
        return ends

    def fill(self, ask: Callable[[str, Parameter], Scalar]) -> dict[str, Any]:
        """Config value by dotted key.

        Args:
            ask: value or label of a parameter, by name; asked in the order of the file, and only
                for the parameters of what has been chosen.
        """
        return {key: _fill(parameter, key, ask) for key, parameter in self.keys.items()}

    def suggest(self, trial: Suggests) -> dict[str, Scalar]:
        """Ask a trial for all its values, by parameter name."""
        found: dict[str, Scalar] = {}

        def ask(name: str, parameter: Parameter) -> Scalar:
            found[name] = parameter.suggest(trial, name)
            return found[name]

        self.fill(ask)
        return found

    def words(self, values: Values) -> list[str]:
        """The arguments of ``fit`` that set these values.

        Raises:
            UnknownNameError: a parameter is missing.
            ArgumentError: a value is not allowed.
        """
        filled = self.fill(lambda name, parameter: _checked(name, parameter, values))
        return [f"--{key}={as_text(value)}" for key, value in filled.items()]

    def check_start(self, values: Values) -> None:
        """Refuse values to start from that the space does not have.

        Raises:
            UnknownNameError: a name is not among the parameters.
            ArgumentError: a value is out of bounds, or belongs to what is not chosen.
        """
        used: list[str] = []

        def ask(name: str, parameter: Parameter) -> Scalar:
            used.append(name)
            if name in values:
                return _checked(name, parameter, values)
            return parameter.low if isinstance(parameter, Number) else next(iter(parameter.options))

        self.fill(ask)
        for name in values:
            if name not in self.names:
                raise UnknownNameError("start", name, self.names)
            if name not in used:
                raise ArgumentError(f"start.{name}", "belong to what start chooses", dict(values))

    def grid(self) -> Iterator[dict[str, Scalar]]:
        """All combinations, those of conditional parameters only where they apply."""
        yield from self._grid({})

    def _grid(self, known: dict[str, Scalar]) -> Iterator[dict[str, Scalar]]:
        def ask(name: str, parameter: Parameter) -> Scalar:
            if name not in known:
                raise _Missing(name, parameter)
            return known[name]

        try:
            self.fill(ask)
        except _Missing as missing:
            name, parameter = missing.name, missing.parameter
        else:
            yield known
            return
        for value in parameter.grid(name):
            yield from self._grid({**known, name: value})


class _Missing(Exception):  # noqa: N818  # no error: how a grid finds what to branch over
    def __init__(self, name: str, parameter: Parameter) -> None:
        super().__init__(name)
        self.name, self.parameter = name, parameter


def as_text(value: Any) -> str:
    """A config value as the shell takes it: strings as they are, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _checked(name: str, parameter: Parameter, values: Values) -> Scalar:
    if name not in values:
        raise UnknownNameError("parameter", name, values)
    if not parameter.allows(values[name]):
        raise ArgumentError(name, f"be allowed by {parameter}", values[name])
    return values[name]


def _top(node: Any, name: str) -> Any:
    if isinstance(node, list):
        return _choice(node, name)
    parsed = _parse(node, name)
    if not isinstance(parsed, Number | Choice):
        rule = "have low and high, have choices, or be a list"
        raise ArgumentError(f"space.{name}", rule, node)
    return parsed


def _parse(node: Any, name: str) -> Any:
    """The same tree with parameters in place of their descriptions."""
    if isinstance(node, list):
        return [_parse(entry, f"{name}.{i}") for i, entry in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    if set(node) == {"choices"}:
        return _choice(node["choices"], name)
    if {"low", "high"} <= set(node) <= NUMBER_KEYS:
        return _number(node, name)
    return {key: _parse(value, _below(name, key)) for key, value in node.items()}


def _below(name: str, key: Any) -> str:
    return name if key == "init_args" else f"{name}.{key}"


def _choice(entries: Any, name: str) -> Choice:
    if isinstance(entries, Mapping):
        labelled = list(entries.items())
    elif isinstance(entries, list):
        labelled = [(_label(entry), entry) for entry in entries]
    else:
        labelled = []
    if not labelled:
        raise ArgumentError(f"space.{name}", "offer at least one choice", entries)
    options = {label: _parse(value, f"{name}.{label}") for label, value in labelled}
    if len(options) < len(labelled):
        raise ArgumentError(f"space.{name}", "have choices with labels of their own", entries)
    return Choice(options)


def _label(entry: Any) -> Scalar:
    if entry is None or isinstance(entry, bool | int | float | str):
        return entry
    if isinstance(entry, Mapping) and "class_path" in entry:
        return str(entry["class_path"]).rpartition(".")[-1]
    return json.dumps(entry)


def _number(node: Mapping[str, Any], name: str) -> Number:
    held = {key: _numeric(value, f"space.{name}.{key}") for key, value in node.items()}
    low, high, step = held["low"], held["high"], held.get("step")
    log, points = bool(held.get("log", False)), held.get("points")
    if not low < high:
        raise ArgumentError(f"space.{name}", "have low < high", dict(node))
    if log and (low <= 0 or step is not None):
        raise ArgumentError(f"space.{name}", "have low > 0 and no step with log", dict(node))
    if step is not None and step <= 0:
        raise ArgumentError(f"space.{name}.step", "be positive", step)
    if points is not None and points < 1:
        raise ArgumentError(f"space.{name}.points", "be at least 1", points)
    whole = all(isinstance(v, int) for v in (low, high)) and isinstance(step, int | None)
    if not whole:
        low, high = float(low), float(high)
    return Number(low, high, step, log, points)


def _numeric(value: Any, name: str) -> Any:
    """YAML reads 1e-4 as text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    if not isinstance(value, int | float):
        raise ArgumentError(name, "be a number", value)
    return value


def _fill(node: Any, name: str, ask: Callable[[str, Parameter], Scalar]) -> Any:
    if isinstance(node, Number):
        return ask(name, node)
    if isinstance(node, Choice):
        label = ask(name, node)
        return _fill(node.options[label], f"{name}.{label}", ask)
    if isinstance(node, list):
        return [_fill(entry, f"{name}.{i}", ask) for i, entry in enumerate(node)]
    if isinstance(node, Mapping):
        return {key: _fill(value, _below(name, key), ask) for key, value in node.items()}
    return node


def _named_parameters(node: Any, name: str = "") -> Iterator[tuple[str, Parameter]]:
    if isinstance(node, Number | Choice):
        yield name, node
    if isinstance(node, Choice):
        for label, value in node.options.items():
            yield from _named_parameters(value, f"{name}.{label}")
    elif isinstance(node, list):
        for i, entry in enumerate(node):
            yield from _named_parameters(entry, f"{name}.{i}")
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _named_parameters(value, _below(name, key) if name else str(key))
