"""What calls of a network cost, as plain records."""

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mtl_core.types import TaskName


@dataclass(frozen=True)
class Cost:
    """What one call costs.

    Args:
        macs: multiply-accumulates a sample: products of matrices, convolutions, attention.
        parameters: numbers in the parameters that took part.
        weight_bytes: their memory.
        peak_bytes: most memory of intermediate tensors at a time, for the whole batch, without
            parameters and inputs; on CUDA as its allocator reports it, elsewhere the sum of the
            living tensors, without the kernels' own workspaces.
        parts: multiply-accumulates a sample by part of the network.
        modules: names of the modules that ran.
        foreign: names of the parameters that took part but serve only other tasks.
        seconds: median wall time; None where it was not measured.
        cpu_seconds: median time of all threads together; None on other devices.
        time_ratio: median over rounds of its time to that of the call for all tasks.
    """

    macs: float
    parameters: int
    weight_bytes: int
    peak_bytes: int
    parts: Mapping[str, float] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    seconds: float | None = None
    cpu_seconds: float | None = None
    time_ratio: float | None = None


@dataclass(frozen=True)
class Profile:
    """Costs of a network's calls: for each task alone, for all together, and what to compare with.

    Args:
        network: name of its class.
        tasks: names, in the network's order.
        inputs: shapes of the inputs by name; "inputs" for a single tensor.
        batch: B.
        device: of the parameters, as torch names it.
        threads: of the CPU.
        parameters: of the network, whether any call needs them or not.
        single: a call for one task, by task.
        together: one call for all tasks.
        separate: networks of the same kind that know one task only, by task; empty where not asked.
        dense: the network with all experts computed on all tokens, by task and as ``all``; empty
            where it has no experts.
        others: further networks by name, all their tasks in one call.
    """

    network: str
    tasks: tuple[TaskName, ...]
    inputs: Mapping[str, tuple[int, ...]]
    batch: int
    device: str
    threads: int
    parameters: int
    single: Mapping[TaskName, Cost]
    together: Cost
    separate: Mapping[TaskName, Cost] = field(default_factory=dict)
    dense: Mapping[str, Cost] = field(default_factory=dict)
    others: Mapping[str, Cost] = field(default_factory=dict)

    @property
    def macs(self) -> float:
        """Multiply-accumulates a sample of all tasks in one call."""
        return self.together.macs

    def saving(self, task: TaskName | None = None) -> dict[str, float]:
        """Which share of the arithmetic a call saves, by what it is compared with.

        A call for one task is compared with ``all tasks`` in one call and with ``a network of its
        own``; the call for all tasks (None) with ``a call a task`` and with ``separate networks``;
        both with ``all experts`` and the names of `others`, all as far as they were profiled.
        Negative where the call costs more.

        Args:
            task: None is all tasks.
        """
        against: dict[str, float] = {}
        if task is None:
            own = self.together.macs
            if len(self.tasks) > 1:
                against["a call a task"] = self.one_by_one().macs
            if self.separate:
                against["separate networks"] = total(self.separate.values()).macs
        else:
            own = self.single[task].macs
            if len(self.tasks) > 1:
                against["all tasks"] = self.together.macs
            if task in self.separate:
                against["a network of its own"] = self.separate[task].macs
        if self.dense:
            key = "all" if task is None and "all" in self.dense else task or self.tasks[0]
            against["all experts"] = self.dense[key].macs
        against |= {name: cost.macs for name, cost in self.others.items()}
        return {name: 1 - own / macs for name, macs in against.items() if macs}

    def one_by_one(self) -> Cost:
        """A call a task, one after another; the peak is that of the largest."""
        whole = total(self.single.values())
        names = {name for cost in self.single.values() for name in cost.modules}
        return Cost(
            macs=whole.macs,
            parameters=self.together.parameters,
            weight_bytes=self.together.weight_bytes,
            peak_bytes=max(cost.peak_bytes for cost in self.single.values()),
            modules=tuple(sorted(names)),
            seconds=whole.seconds,
            cpu_seconds=whole.cpu_seconds,
            time_ratio=whole.time_ratio,
        )

    def calls(self) -> list[tuple[str, str, Cost]]:
        """Group, name and cost of every call, in the order of tables."""
        found = [("one task", task, cost) for task, cost in self.single.items()]
        found.append(("all tasks", "one call", self.together))
        if len(self.tasks) > 1:
            found.append(("all tasks", "a call a task", self.one_by_one()))
        if self.separate:
            found += [("separate networks", task, cost) for task, cost in self.separate.items()]
            found.append(("separate networks", "all", total(self.separate.values())))
        found += [("all experts on all tokens", name, cost) for name, cost in self.dense.items()]
        return found + [("compared with", name, cost) for name, cost in self.others.items()]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON, savings included."""
        content = asdict(self)
        content["saving"] = {task: self.saving(task) for task in self.single}
        content["saving_of_all"] = self.saving()
        return content

    def as_csv(self) -> str:
        """One line a call."""
        text = io.StringIO()
        keys = ("macs", "parameters", "weight_bytes", "peak_bytes", "seconds", "cpu_seconds")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["group", "call", *keys, "macs_ratio", "time_ratio", "foreign_parameters"])
        for group, name, cost in self.calls():
            ratio = cost.macs / self.macs if self.macs else ""
            values = [getattr(cost, key) for key in keys]
            writer.writerow([group, name, *values, ratio, cost.time_ratio, len(cost.foreign)])
        return text.getvalue()


def total(costs: Iterable[Cost]) -> Cost:
    """Several calls of different networks after each other: everything adds up but the peak."""
    held = list(costs)

    def added(key: str) -> float | None:
        values = [getattr(cost, key) for cost in held]
        return None if None in values else math.fsum(values)

    return Cost(
        macs=math.fsum(cost.macs for cost in held),
        parameters=sum(cost.parameters for cost in held),
        weight_bytes=sum(cost.weight_bytes for cost in held),
        peak_bytes=max((cost.peak_bytes for cost in held), default=0),
        seconds=added("seconds"),
        cpu_seconds=added("cpu_seconds"),
        time_ratio=added("time_ratio"),
    )
