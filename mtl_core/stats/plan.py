"""The plan of a comparison: written before the first run, hashed, and held against what follows."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, get_args

import yaml

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.stats.checks import between, count, not_negative, positive
from mtl_core.stats.corrections import Correction

PairTest: TypeAlias = Literal["auto", "paired t", "Wilcoxon"]
Rule: TypeAlias = Literal["none", "sign", "bounded"]

ALL = "all"
"""Stands for all tasks together, in tables and margins."""
SINGLE = "single"
"""Stands for the networks of one task each, the reference of Δm."""
KEYS = (
    "name",
    "methods",
    "baseline",
    "single",
    "tasks",
    "split",
    "margins",
    "alpha",
    "correction",
    "test",
    "seeds",
    "stopping",
    "blind",
    "run",
)


@dataclass(frozen=True)
class Stopping:
    """When a comparison may end before its last seed.

    Attributes:
        rule: ``none``; ``sign``, wins against losses; ``bounded``, differences over the width of
            the metric's range. Each is an e-process, which may be looked at after every block.
        on: ``all``, one outcome a seed from all tasks together, or ``tasks``, each by itself.
        sides: 1 asks whether a method is better or worse than the baseline with alpha for each
            side; 2 shares alpha among the sides.
        least: blocks before the first look.
        widths: of the metrics' ranges, by metric; needed by ``bounded``.
    """

    rule: Rule = "none"
    on: Literal["all", "tasks"] = "all"
    sides: Literal[1, 2] = 2
    least: int = 2
    widths: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What is compared, on what, and what counts as a difference.

    Attributes:
        name: of the comparison.
        methods: names, at least two.
        baseline: the method that the others are held against; None where there is none.
        single: whether single-task networks are trained with the same seeds, for Δm.
        metrics: the primary metric by task.
        margins: by metric, the difference that does not matter in practice, in its unit; for
            ``all`` in percent of the reference.
        seeds: of the blocks, in order; as many as there will be at most.
        alpha: error rate of a family of tests.
        correction: for several pairs.
        test: of two methods; ``auto`` is Wilcoxon's from ten seeds on where it can become
            significant among so many pairs, else the paired t.
        split: of the data that counts.
        stopping: when to end early.
        blind: codes in the place of names.
        content: all of the file in a form that does not depend on how it was written.
    """

    name: str
    methods: tuple[str, ...]
    baseline: str | None
    single: bool
    metrics: Mapping[str, str]
    margins: Mapping[str, float]
    seeds: tuple[int, ...]
    alpha: float
    correction: Correction
    test: PairTest
    split: str
    stopping: Stopping
    blind: bool
    content: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a file.

        Raises:
            ArgumentError: there is no such file, or it breaks a rule.
            UnknownNameError: a key or name is unknown.
        """
        path = Path(path)
        if not path.is_file():
            raise ArgumentError("the plan", "be a file", str(path))
        content = yaml.safe_load(path.read_text())
        if isinstance(content, Mapping):
            content = {"name": path.stem, **content}
        return cls.parse(content)

    @classmethod
    def parse(cls, content: Any) -> Self:
        """Check and take the content of a file.

        >>> plan = Plan.parse({"name": "demo", "methods": ["sum", "PCGrad"], "tasks": {"left":
        ...     "accuracy"}, "margins": {"accuracy": 0.005}, "seeds": 3, "baseline": "sum"})
        >>> plan.seeds, plan.correction, len(plan.hash)
        ((0, 1, 2), 'holm', 12)
        """
        if not isinstance(content, Mapping):
            raise ArgumentError("the plan", "be a mapping", content)
        for key in content:
            _known("key of the plan", key, KEYS)
        methods = _methods(content.get("methods"))
        baseline = content.get("baseline")
        if baseline is not None:
            _known("baseline", baseline, methods)
        metrics = _texts("tasks", content.get("tasks"))
        if ALL in metrics:
            raise ArgumentError("tasks", f"have other names than {ALL!r}", list(metrics))
        stopping = _stopping(content.get("stopping", {}), baseline, metrics)
        return cls(
            name=str(content.get("name", "comparison")),
            methods=methods,
            baseline=baseline,
            single=_flag("single", content.get("single", False)),
            metrics=metrics,
            margins=_margins(content.get("margins"), metrics),
            seeds=_seeds(content.get("seeds")),
            alpha=between("alpha", content.get("alpha", 0.05), 0, 1),
            correction=_one_of("correction", content.get("correction", "holm"), Correction),
            test=_one_of("test", content.get("test", "auto"), PairTest),
            split=_one_of("split", content.get("split", "test"), Literal["val", "test"]),
            stopping=stopping,
            blind=_flag("blind", content.get("blind", False)),
            content=json.loads(json.dumps(content)),
        )

    @property
    def hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of `content`, whatever the order of keys."""
        text = json.dumps(self.content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def codes(self) -> dict[str, str]:
        """A code for each method, in an order that says nothing about names."""

        def drawn(name: str) -> str:
            return hashlib.sha256(f"{self.name}/{name}".encode()).hexdigest()

        ordered = sorted(self.methods, key=drawn)
        return {name: f"method {ordered.index(name) + 1}" for name in self.methods}


def changes(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    named: Callable[[str], str] = "method {}".format,
) -> list[str]:
    """What differs between the contents of two plans, in words.

    Args:
        old: content of the first.
        new: content of the second.
        named: how a method is called.

    >>> changes({"alpha": 0.05, "methods": ["a", "b"]}, {"alpha": 0.1, "methods": ["a"]})
    ['method b dropped', 'alpha changed']
    """
    before, after = _by_name(old.get("methods")), _by_name(new.get("methods"))
    said = [f"{named(name)} dropped" for name in before if name not in after]
    said += [f"{named(name)} added" for name in after if name not in before]
    said += [f"{named(n)} changed" for n in before if n in after and before[n] != after[n]]
    for key in KEYS[2:]:
        if old.get(key) != new.get(key):
            said.append(f"{key} changed")
    return said or (
        ["order of methods changed"] if old.get("methods") != new.get("methods") else []
    )


def _by_name(methods: Any) -> dict[str, Any]:
    if isinstance(methods, Mapping):
        return dict(methods)
    return dict.fromkeys(methods or ())


def _known(argument: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise UnknownNameError(argument, str(value), map(str, known))


def _one_of(argument: str, value: Any, kind: Any) -> Any:
    _known(argument, value, get_args(kind))
    return value


def _flag(argument: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ArgumentError(argument, "be true or false", value)
    return value


def _methods(content: Any) -> tuple[str, ...]:
    if not isinstance(content, Mapping | list) or len(content) < 2:
        raise ArgumentError("methods", "be a list or mapping of at least two names", content)
    names = tuple(content)
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ArgumentError("methods", "have different names", list(names))
    if SINGLE in names:
        raise ArgumentError("methods", f"have other names than {SINGLE!r}", list(names))
    return names


def _texts(argument: str, content: Any) -> dict[str, str]:
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(v, str) for v in (*content, *content.values()))
    ):
        raise ArgumentError(argument, "name the primary metric of at least one task", content)
    return dict(content)


def _margins(content: Any, metrics: Mapping[str, str]) -> dict[str, float]:
    held = content if isinstance(content, Mapping) else {}
    for key in held:
        _known("margins", key, [*metrics.values(), ALL])
    for metric in metrics.values():
        if metric not in held:
            rule = f"say which difference of {metric} does not matter in practice (0 if any does)"
            raise ArgumentError("margins", rule, content)
    return {key: not_negative(f"margins.{key}", value) for key, value in held.items()}


def _seeds(content: Any) -> tuple[int, ...]:
    if isinstance(content, int) and not isinstance(content, bool):
        return tuple(range(count("seeds", content)))
    whole = isinstance(content, list) and all(isinstance(seed, int) for seed in content)
    if not whole or not content or len(set(content)) < len(content):
        raise ArgumentError("seeds", "be a number of seeds or a list of different ones", content)
    return tuple(content)


def _stopping(content: Any, baseline: str | None, metrics: Mapping[str, str]) -> Stopping:
    held: dict[str, Any] = {"rule": content} if isinstance(content, str) else dict(content or {})
    for key in held:
        _known("key of stopping", key, ("rule", "on", "sides", "least", "widths"))
    widths = held.get("widths") or {}
    for metric in widths:
        _known("stopping.widths", metric, list(metrics.values()))
    made = Stopping(
        rule=_one_of("stopping.rule", held.get("rule", "none"), Rule),
        on=_one_of("stopping.on", held.get("on", "all"), Literal["all", "tasks"]),
        sides=_one_of("stopping.sides", held.get("sides", 2), Literal[1, 2]),
        least=count("stopping.least", held.get("least", 2)),
        widths={name: positive(f"stopping.widths.{name}", w) for name, w in widths.items()},
    )
    if made.rule != "none" and baseline is None:
        raise ArgumentError("stopping", "have a baseline to compare with", held)
    lacking = [metric for metric in metrics.values() if metric not in made.widths]
    if made.rule == "bounded" and lacking:
        raise ArgumentError("stopping.widths", f"have the width of {lacking[0]}", held)
    return made
