"""Running a comparison: block by block, resumable at any point, recorded whatever happens."""

import fcntl
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from mtl_core.atomic import atomic_write
from mtl_core.compare.comparison import Comparison, differing
from mtl_core.compare.jobs import (
    Job,
    jobs_of,
    profile_trial,
    run_folder,
    trials_of,
)
from mtl_core.compare.record import Ending, RunList, macs_row, run_rows
from mtl_core.compare.single import write_single_configs
from mtl_core.errors import ArgumentError
from mtl_core.stats.costs import PREFIX
from mtl_core.stats.history import Failure, History
from mtl_core.stats.plan import ALL
from mtl_core.stats.stopping import decided
from mtl_core.stats.table import Table, append_rows
from mtl_core.trial import Outcome, Runner

HOME = "comparison.json"


class Session:
    """A comparison in its folder.

    The folder holds ``results.csv`` (the long table) with its history, ``runs.csv`` (a line a run,
    with status and reason), ``comparison.json`` (what must not change) and the folders of the runs.

    Args:
        comparison: what to run.
        folder: for its files.
        runner: that runs the processes.
        jobs: runs of a block at once.
        retry: run what did not finish before once more.
        keep: leave the checkpoints of runs where they are.

    Raises:
        ArgumentError: the folder holds results of other command lines.
    """

    def __init__(
        self,
        comparison: Comparison,
        folder: Path,
        runner: Runner,
        *,
        jobs: int = 1,
        retry: bool = False,
        keep: bool = False,
    ) -> None:
        if jobs < 1:
            raise ArgumentError("jobs", "be at least 1", jobs)
        self.comparison = comparison
        self.plan = comparison.plan
        self.folder = folder
        self.runner = runner
        self.jobs = jobs
        self.keep = keep
        self.table = folder / "results.csv"
        self.runs = RunList(folder / "runs.csv", self.plan)
        self.stopped_after: int | None = None
        self._lock = threading.Lock()
        self._retry = retry
        self._single: dict[str, Path] = {}
        self._again: set[tuple[str, str, int]] = set()
        self._check_definition()

    def _check_definition(self) -> None:
        path, asked = self.folder / HOME, self.comparison.definition
        if path.is_file():
            held = json.loads(path.read_text())
            if found := differing(held, asked):
                rule = f"be what it was in {self.folder}, or have another --out"
                raise ArgumentError(" and ".join(found), rule, "something else")
            for kind in ("methods", "configs"):
                asked[kind] = {**held[kind], **asked[kind]}
        with atomic_write(path) as file:
            file.write(json.dumps(asked, indent=1).encode())

    @property
    def blocks(self) -> list[list[Job]]:
        """All runs of the plan, block by block."""
        return jobs_of(self.plan)

    def done(self) -> set[tuple[str, str, int]]:
        """Keys of the runs that have ended, and shall not be run again."""
        return set(self.runs.read()) - self._again

    def run(self, tell: Callable[[str, Job], None] = lambda event, job: None) -> None:
        """Run what is left, block by block, until the plan allows to end.

        Args:
            tell: called with ``start`` and a run, and with its status when it has ended.

        Raises:
            ArgumentError: another process works in the folder, or the shared config is broken.
        """
        with _alone(self.folder):
            if self._retry:
                self._again = {k for k, v in self.runs.read().items() if v["status"] != "finished"}
            history = History.of(self.table)
            history.remember(self.plan)
            history.save(self.table)
            if self.plan.single:
                self._single = write_single_configs(
                    self.comparison, self.runner, self.folder / "single"
                )
            if self.comparison.profile:
                self._profile()
            for number, block in enumerate(self.blocks, 1):
                self._run_block(block, tell)
                if self._may_end(number):
                    self.stopped_after = number
                    return

    def _may_end(self, blocks: int) -> bool:
        if self.plan.stopping.rule == "none" or not self.table.is_file():
            return False
        history = History.of(self.table)
        history.look(blocks)
        history.save(self.table)
        return decided(Table.read(self.table), self.plan, blocks)

    def _run_block(self, block: Sequence[Job], tell: Callable[[str, Job], None]) -> None:
        done = self.done()
        left = [job for job in block if job.key not in done]
        if self.jobs == 1:
            for job in left:
                self._run_one(job, tell)
            return
        with ThreadPoolExecutor(self.jobs) as pool:
            for found in [pool.submit(self._run_one, job, tell) for job in left]:
                found.result()

    def _run_one(self, job: Job, tell: Callable[[str, Job], None]) -> None:
        tell("start", job)
        folder = run_folder(self.folder, job, self.plan)
        outcomes: dict[str, Outcome] = {}
        trials = trials_of(self.comparison, job, folder, self._single.get(job.task))
        for verb, trial in trials.items():
            held = Outcome.load(trial)
            if held is None or held.status != "finished":
                shutil.rmtree(trial.folder, ignore_errors=True)  # what an interruption has left
            outcomes[verb] = self.runner.run(trial, self.comparison.timeout)
            if outcomes[verb].status != "finished":
                break
        ending = Ending.of(outcomes)
        if not self.keep:
            for verb in ("first", "fit"):
                shutil.rmtree(folder / verb / "checkpoints", ignore_errors=True)
        with self._lock:
            tell(self._record(job, folder, ending), job)

    def _record(self, job: Job, folder: Path, ending: Ending) -> str:
        """Write down how a run ended: rows first, then its line, so that none is lost."""
        if ending.status == "finished":
            verb = "test" if self.plan.split == "test" else "fit"
            try:
                rows = run_rows(job, self.plan, folder / verb / "results.csv", ending)
            except ArgumentError as error:
                changed = {"status": "not finite", "reason": str(error)}
                ending = Ending(**{**vars(ending), **changed})
            else:
                held = Table.read(self.table).rows if self.table.is_file() else ()
                if not any(
                    (row.method, row.seed) == (job.method, job.seed)
                    and (not job.task or row.task == job.task)
                    for row in held
                ):
                    append_rows(self.table, rows)
        history = History.of(self.table)
        history.failures = [f for f in history.failures if f.key != job.key]
        if ending.status != "finished":
            history.failures.append(
                Failure(job.method, job.task, job.seed, ending.status, ending.reason)
            )
        history.save(self.table)
        self._again.discard(job.key)
        self.runs.append(job, ending)
        return ending.status

    def _profile(self) -> None:
        """Count multiply-accumulates, once a method; where that fails they are left out."""
        held = Table.read(self.table).rows if self.table.is_file() else ()
        known = {row.method for row in held if row.metric == f"{PREFIX}macs" and row.task == ALL}
        for method in self.plan.methods:
            if method in known:
                continue
            folder = self.folder / "profiles" / self.plan.codes[method].replace(" ", "_")
            trial = profile_trial(self.comparison, method, folder)
            if Outcome.load(trial) is not None:
                continue
            if self.runner.run(trial, self.comparison.timeout).status == "finished":
                profile = json.loads((folder / "profile.json").read_text())
                append_rows(self.table, [macs_row(method, self.plan, profile)])


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No second process in one folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArgumentError(
                "--out", "be no folder of a running comparison", str(folder)
            ) from None
        yield
