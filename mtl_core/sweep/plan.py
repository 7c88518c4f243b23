"""The file of a sweep: what is varied, what is wanted, and how to search."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

import yaml

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.sweep.space import Scalar, Space

Direction = Literal["maximize", "minimize"]
SAMPLERS = ("tpe", "random", "grid", "gp", "cmaes", "nsga2")
PRUNERS = ("none", "median", "percentile", "halving", "hyperband")
COSTS = ("seconds", "cpu_seconds", "peak_mib", "parameters", "macs")
"""What of a run's costs may be an objective, beside ``val/...``."""


@dataclass(frozen=True)
class Objective:
    """A number that a sweep wants high or low.

    Args:
        value: ``val/TASK/METRIC`` or ``val/delta_m``; of several the mean; or one of `COSTS`.
        direction: which way is better.
        epoch: take the value of the last validation, or the best of all.
    """

    value: tuple[str, ...]
    direction: Direction
    epoch: Literal["last", "best"] = "last"

    @property
    def higher_is_better(self) -> bool:
        """Whether it is maximised."""
        return self.direction == "maximize"

    @property
    def validated(self) -> bool:
        """Whether every validation tells it, so that trials can be pruned by it."""
        return all(key.startswith("val/") and key != "val/delta_m" for key in self.value)

    def at(self, line: Mapping[str, Any]) -> float | None:
        """Its value at one validation; None where something is absent or not finite."""
        found = [line.get(key) for key in self.value]
        if any(value is None for value in found):
            return None
        return math.fsum(found) / len(found)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Plan:
    """What a sweep is, apart from how many trials it has.

    Args:
        space: what is varied.
        objectives: what is wanted, by name; with several, the result is a Pareto front.
        sampler: ``name`` (one of `SAMPLERS`), ``seed``, and arguments of Optuna's sampler.
        pruner: ``name`` (one of `PRUNERS`) and arguments of Optuna's pruner.
        seeds: of the runs of a trial; the objectives are means over them.
        arguments: of ``fit``, for all trials.
        start: values of the first trials; what they leave open is drawn.
    """

    space: Space
    objectives: Mapping[str, Objective]
    sampler: Mapping[str, Any] = field(default_factory=lambda: {"name": "tpe"})
    pruner: Mapping[str, Any] = field(default_factory=lambda: {"name": "none"})
    seeds: tuple[int, ...] = (0,)
    arguments: tuple[str, ...] = ()
    start: tuple[Mapping[str, Scalar], ...] = ()

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a file.

        Raises:
            ArgumentError: there is no such file, or it breaks a rule.
            UnknownNameError: a key, sampler or pruner is unknown.
        """
        path = Path(path)
        if not path.is_file():
            raise ArgumentError("--space", "name a file", str(path))
        return cls.parse(yaml.safe_load(path.read_text()))

    @classmethod
    def parse(cls, content: Any) -> Self:
        """Check and take the content of a file; see `load`."""
        if not isinstance(content, Mapping):
            raise ArgumentError("the file of a space", "be a mapping", content)
        known = ("space", "objectives", "sampler", "pruner", "seeds", "arguments", "start")
        for key in content:
            if key not in known:
                raise UnknownNameError("key of the space's file", str(key), known)
        plan = cls(
            space=Space(content.get("space") or {}),
            objectives=_objectives(content.get("objectives")),
            sampler=_named(content.get("sampler", "tpe"), "sampler", SAMPLERS),
            pruner=_named(content.get("pruner", "none"), "pruner", PRUNERS),
            seeds=_listed(content.get("seeds", [0]), int, "seeds"),
            arguments=_listed(content.get("arguments", []), str, "arguments"),
            start=_listed(content.get("start", []), Mapping, "start"),
        )
        plan._check()
        return plan

    def _check(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ArgumentError("seeds", "be one or more different integers", list(self.seeds))
        for values in self.start:
            self.space.check_start(values)
        first = next(iter(self.objectives.values()))
        if self.pruner["name"] != "none" and (len(self.objectives) > 1 or not first.validated):
            rule = "be none, unless there is one objective made of val/TASK/METRIC"
            raise ArgumentError("pruner", rule, self.pruner["name"])
        if self.sampler["name"] == "grid":
            next(self.space.grid())
        if self.sampler["name"] == "cmaes" and len(self.objectives) > 1:
            raise ArgumentError("sampler", "bear several objectives: tpe, gp, nsga2", "cmaes")

    @property
    def plain(self) -> dict[str, Any]:
        """The same as plain data, in a form that does not depend on how the file was written."""
        return {
            "space": self.space.content,
            "objectives": {
                name: {"value": list(o.value), "direction": o.direction, "epoch": o.epoch}
                for name, o in self.objectives.items()
            },
            "sampler": dict(self.sampler),
            "pruner": dict(self.pruner),
            "seeds": list(self.seeds),
            "arguments": list(self.arguments),
            "start": [dict(values) for values in self.start],
        }

    @property
    def counts_macs(self) -> bool:
        """Whether an objective needs the multiply-accumulates."""
        return any("macs" in objective.value for objective in self.objectives.values())


def _objectives(content: Any) -> dict[str, Objective]:
    if not isinstance(content, Mapping) or not content:
        raise ArgumentError("objectives", "name at least one objective", content)
    return {str(name): _objective(str(name), held) for name, held in content.items()}


def _objective(name: str, held: Any) -> Objective:
    where = f"objectives.{name}"
    if not isinstance(held, Mapping) or not {"direction"} <= set(held) <= {
        "value",
        "direction",
        "epoch",
    }:
        raise ArgumentError(where, "have direction, and may have value and epoch", held)
    value = held.get("value", name)
    keys = tuple(value) if isinstance(value, list) else (value,)
    for key in keys:
        if key not in COSTS and not (isinstance(key, str) and key.startswith("val/")):
            rule = f"be val/TASK/METRIC, val/delta_m or one of {', '.join(COSTS)}"
            raise ArgumentError(f"{where}.value", rule, key)
    if held["direction"] not in get_args(Direction):
        raise UnknownNameError(f"{where}.direction", str(held["direction"]), get_args(Direction))
    epoch = held.get("epoch", "last")
    if epoch not in ("last", "best"):
        raise UnknownNameError(f"{where}.epoch", str(epoch), ("last", "best"))
    objective = Objective(keys, held["direction"], epoch)
    if epoch == "best" and not objective.validated:
        raise ArgumentError(f"{where}.epoch", "be last for costs and delta_m", epoch)
    return objective


def _named(content: Any, argument: str, known: Sequence[str]) -> dict[str, Any]:
    held = {"name": content} if isinstance(content, str | None) else dict(content)
    name = str(held.get("name") or "none")
    if name not in known:
        raise UnknownNameError(f"{argument}.name", name, known)
    return {**held, "name": name}


def _listed(content: Any, kind: type, argument: str) -> tuple[Any, ...]:
    if not isinstance(content, list) or not all(isinstance(entry, kind) for entry in content):
        raise ArgumentError(argument, f"be a list of {kind.__name__.lower()}", content)
    return tuple(content)
