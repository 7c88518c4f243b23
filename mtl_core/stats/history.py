"""What happened around a table of results: its plans, looks at it, and when names were shown."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from mtl_core.atomic import atomic_write
from mtl_core.errors import ArgumentError
from mtl_core.stats.plan import Plan, changes
from mtl_core.stats.table import Row, Table


def block_of(row: Row) -> str:
    """The block of a row: its own, else its seed."""
    return row.block or str(row.seed)


@dataclass(frozen=True)
class Failure:
    """A run without a score.

    Attributes:
        method: its name, or ``single``.
        task: of a single-task run, else empty.
        seed: of the run.
        status: how it ended, such as ``out of memory``.
        reason: in the words of what went wrong.
    """

    method: str
    task: str
    seed: int
    status: str
    reason: str

    @property
    def key(self) -> tuple[str, str, int]:
        """Method, task and seed."""
        return self.method, self.task, self.seed


@dataclass
class History:
    """Kept beside a table, as ``NAME.history.json``.

    Attributes:
        plans: content by hash, of every plan that was used with the table.
        looks: numbers of blocks at which results were looked at.
        unblinded: number of blocks at which names were first shown; None where they were not.
        failures: runs that ended without a score.
    """

    plans: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    looks: list[int] = field(default_factory=list)
    unblinded: int | None = None
    failures: list[Failure] = field(default_factory=list)

    @classmethod
    def of(cls, table: Path | str) -> Self:
        """Read that of a table; empty where there is none.

        Raises:
            ArgumentError: the file holds something else.
        """
        path = history_path(table)
        if not path.is_file():
            return cls()
        try:
            held = json.loads(path.read_text())
            failures = [Failure(**failure) for failure in held.pop("failures", [])]
            return cls(**held, failures=failures)
        except (TypeError, AttributeError, json.JSONDecodeError) as error:
            rule = "be written by this suite, with plans, looks, unblinded and failures"
            raise ArgumentError(str(path), rule, path.read_text()[:80]) from error

    def save(self, table: Path | str) -> None:
        """Write it beside the table.

        Raises:
            CheckpointWriteError: the system refused.
        """
        content = asdict(self)
        with atomic_write(history_path(table)) as file:
            file.write(f"{json.dumps(content, indent=1)}\n".encode())

    def remember(self, plan: Plan) -> None:
        """Keep a plan."""
        self.plans.setdefault(plan.hash, plan.content)

    def look(self, blocks: int) -> None:
        """Count a look; further ones at the same number of blocks see nothing new."""
        if blocks not in self.looks:
            self.looks.append(blocks)

    def unblind(self, blocks: int) -> None:
        """Note when names were first shown."""
        if self.unblinded is None:
            self.unblinded = blocks


def history_path(table: Path | str) -> Path:
    """Where the history of a table is kept."""
    return Path(table).with_suffix(".history.json")


def plan_changes(
    plan: Plan,
    table: Table,
    history: History,
    named: Callable[[str], str] = "method {}".format,
) -> list[str]:
    """What was changed in the plan after the first row, and when.

    Args:
        plan: as it is now.
        table: with the hash of its plan in each row.
        history: with the contents of earlier plans, as far as they are known.
        named: how a method is called in the texts.

    Returns:
        Texts such as "margins changed after 12 of 40 blocks".
    """
    last: dict[str, int] = {}
    for i, row in enumerate(table.rows):
        last[row.plan_hash] = i
    order = [digest for digest in sorted(last, key=lambda d: last[d]) if digest != plan.hash]
    said: list[str] = []
    for digest, later in pairwise([*order, plan.hash]):
        rows = table.rows[: last[digest] + 1]
        # Costs of a method that are counted once belong to no block.
        blocks = {block_of(row) for row in rows if row.block or row.seed is not None} or {""}
        after = f"after {len(blocks)} of {len(plan.seeds)} blocks"
        new = plan.content if later == plan.hash else history.plans.get(later)
        old = history.plans.get(digest)
        if old is None or new is None:
            said.append(f"another plan ({digest or 'without a hash'}) {after}")
        else:
            said += [f"{change} {after}" for change in changes(old, new, named) or ["plan changed"]]
    return said
