"""What a sweep over MultiTab-Bench trains: settings, networks, seeds, single-task references."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from mtl_core.errors import ArgumentError
from mtl_core.nn import MultiTaskNetwork
from mtl_core.tasks import Task
from mtl_tabular.data.synthetic_spec import SyntheticSpec

Axis = Literal["num_tasks", "correlation", "complexity"]
AXES: tuple[Axis, ...] = ("num_tasks", "correlation", "complexity")
MIXED = (1, 3, 2, 3, 4, 2, 3)
"""Degrees of the published set."""
REFERENCE = "reference"
"""Name under which single-task runs of `Plan.reference` are recorded."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A network and how it is trained: AdamW at a constant rate.

    Args:
        network: builds the network from tasks and ``schema``. In YAML its ``class_path`` and
            ``init_args``.
        lr: learning rate.
        weight_decay: of AdamW.
        epochs: 0 takes the plan's.
    """

    network: Callable[[Mapping[str, Task]], MultiTaskNetwork]
    lr: float = 1e-3
    weight_decay: float = 0.0
    epochs: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not self.lr > 0:
            raise ArgumentError("lr", "be positive", self.lr)
        for name in ("weight_decay", "epochs"):
            if getattr(self, name) < 0:
                raise ArgumentError(name, "be at least 0", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One point of the grid.

    Args:
        num_tasks: T.
        correlation: p of the projections.
        complexity: name of the list of degrees.
        degrees: of T tasks.
    """

    num_tasks: int
    correlation: float
    complexity: str
    degrees: tuple[int, ...]

    def value(self, axis: Axis) -> int | float | str:
        """Position on an axis of the grid."""
        found: int | float | str = getattr(self, axis)
        return found


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training.

    Args:
        setting: the data's.
        network: name of the contender, or `REFERENCE`.
        contender: what is trained.
        task: the only task of a single-task run; empty for all tasks together.
        seed: of data, weights and order.
        digest: identifies the run by everything that its outcome depends on.
    """

    setting: Setting
    network: str
    contender: Contender
    task: str
    seed: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep: every setting × network × seed, and the single-task runs that Δm compares with.

    The grid is the product of `task_counts`, `correlations` and `complexities`. One seed fixes
    weights of the problem, rows, initial parameters and order, so that a network and its
    references see the same rows.

    Args:
        networks: contenders by name.
        reference: what is trained on each task alone. None: each network is its own reference. A
            `SharedBottom` here is the single-task MLP of the tabular literature, trained once for
            all networks.
        out: folder of ``results.csv``, ``delta_m.png`` and ``delta_m.md``.
        task_counts: values of T.
        correlations: values of p.
        complexities: degrees by name; a list shorter than T is repeated, a longer one cut.
        seeds: how many; they are 0, 1, ...
        num_features: F.
        noise: see `SyntheticSpec`.
        standardize_labels: likewise (``standardize``).
        train_size: training rows.
        test_size: rows that are scored.
        batch_size: rows per step.
        epochs: of every run whose contender does not say.
        accelerator: of Lightning's trainer.
        retry_failed: train runs again that are recorded as failed.

    Raises:
        ArgumentError: no network, an empty list, or a setting that the generator refuses.
    """

    networks: dict[str, Contender]
    reference: Contender | None = None
    out: str = "runs/bench"
    task_counts: tuple[int, ...] = (7,)
    correlations: tuple[float, ...] = (0.4,)
    complexities: dict[str, tuple[int, ...]] = field(default_factory=lambda: {"mixed": MIXED})
    seeds: int = 3
    num_features: int = 32
    noise: float = 0.01
    standardize_labels: bool = True
    train_size: int = 40_960
    test_size: int = 8192
    batch_size: int = 2048
    epochs: int = 10
    accelerator: str = "auto"
    retry_failed: bool = False

    def __post_init__(self) -> None:
        """Refuse before the first run what would fail in the last."""
        for name in ("networks", "task_counts", "correlations", "complexities"):
            if not getattr(self, name):
                raise ArgumentError(name, "hold at least one entry", getattr(self, name))
        for name in ("seeds", "train_size", "test_size", "batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise ArgumentError(name, "be at least 1", getattr(self, name))
        if REFERENCE in self.networks:
            raise ArgumentError("networks", f"not be named {REFERENCE!r}", list(self.networks))
        for name, degrees in self.complexities.items():
            if not degrees:
                raise ArgumentError("complexities", "hold at least one degree", {name: degrees})
        for setting in self.settings():
            self.spec(setting)

    def settings(self) -> list[Setting]:
        """All points of the grid, the number of tasks varying slowest."""
        return [
            Setting(
                num_tasks=T,
                correlation=p,
                complexity=name,
                degrees=tuple(degrees[i % len(degrees)] for i in range(T)),
            )
            for T in self.task_counts
            for p in self.correlations
            for name, degrees in self.complexities.items()
        ]

    def spec(self, setting: Setting) -> SyntheticSpec:
        """The data of a setting."""
        return SyntheticSpec(
            num_tasks=setting.num_tasks,
            num_features=self.num_features,
            correlation=setting.correlation,
            degrees=setting.degrees,
            noise=self.noise,
            standardize=self.standardize_labels,
        )

    def axis(self) -> Axis:
        """What is drawn along x: the first axis with several values, else the number of tasks."""
        return next((axis for axis in AXES if len(self.axis_values(axis)) > 1), "num_tasks")

    def axis_values(self, axis: Axis) -> list[int | float | str]:
        """The values of an axis in the order of the plan."""
        return list(dict.fromkeys(setting.value(axis) for setting in self.settings()))

    def reference_name(self, network: str) -> str:
        """Name of the contender whose single-task runs a network is compared with."""
        return network if self.reference is None else REFERENCE

    def epochs_of(self, contender: Contender) -> int:
        """Length of a contender's runs."""
        return contender.epochs or self.epochs

    def group(self, setting: Setting, network: str, seed: int) -> tuple[Run, list[Run]]:
        """The multi-task run of a cell, and the single-task runs that it is compared with."""
        name = self.reference_name(network)
        reference = self.networks[name] if self.reference is None else self.reference
        tasks = self.spec(setting).task_names
        single = [self._run(setting, name, reference, task, seed) for task in tasks]
        return self._run(setting, network, self.networks[network], "", seed), single

    def runs(self) -> Iterator[Run]:
        """Every run once, cell by cell; references come with the first network that needs them."""
        seen = set()
        for setting in self.settings():
            for seed in range(self.seeds):
                for network in self.networks:
                    multi, single = self.group(setting, network, seed)
                    for run in (multi, *single):
                        if run.digest not in seen:
                            seen.add(run.digest)
                            yield run

    def _run(
        self, setting: Setting, network: str, contender: Contender, task: str, seed: int
    ) -> Run:
        facts = {
            "data": self.spec(setting).plain(),
            "sizes": (self.train_size, self.test_size, self.batch_size),
            "name": network,
            "network": identity(contender.network),
            "optimizer": (contender.lr, contender.weight_decay, self.epochs_of(contender)),
            "task": task,
            "seed": seed,
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
        return Run(
            setting=setting,
            network=network,
            contender=contender,
            task=task,
            seed=seed,
            digest=digest,
        )


def identity(value: Any) -> Any:
    """Plain data that name a factory and its arguments, the same in every process.

    >>> from mtl_tabular.networks import SharedBottom
    >>> identity(partial(SharedBottom, dropout=0.5))
    {'class': 'mtl_tabular.networks.shared_bottom.SharedBottom', 'dropout': 0.5}
    """
    if isinstance(value, partial):
        # jsonargparse makes partials of its own functions, whose first class is the one meant.
        chain = [value.func, *value.args]
        named = next((part for part in chain if isinstance(part, type)), value.func)
        arguments = {k: identity(v) for k, v in value.keywords.items() if k != "schema"}
        return {"class": identity(named), **arguments}
    if isinstance(value, Mapping):
        return {str(key): identity(entry) for key, entry in value.items()}
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, Sequence):
        return [identity(entry) for entry in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        held = {f.name: identity(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": identity(type(value)), **held}
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value)
