"""Taking trials from a sweep and running them, until there are enough."""

import math
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.trial import TrialState

from mtl_core.sweep.progress import read_progress
from mtl_core.sweep.runs import MissingValueError, Run, make_trial, objective_values, run_folder
from mtl_core.sweep.study import BEAT, Sweep
from mtl_core.trial import Outcome, Runner, Trial


@dataclass
class Active:
    """A trial that runs now.

    Args:
        trial: to be told about.
        folder: of its runs.
        started: by the monotonic clock.
    """

    trial: optuna.trial.Trial
    folder: Path
    started: float = field(default_factory=time.monotonic)


class Worker:
    """Runs trials of a sweep in one or several threads.

    Args:
        sweep: to work for.
        runner: that runs the processes.
        total: how many trials the sweep shall have.
        take: how many of them to run here at most; None is no limit.
        timeout: seconds for a trial; None is no limit.
    """

    def __init__(
        self,
        sweep: Sweep,
        runner: Runner,
        total: int,
        *,
        take: int | None = None,
        timeout: float | None = None,
    ) -> None:
        self.sweep = sweep
        self.runner = runner
        self.total = sweep.total(total)
        self.timeout = timeout
        self.active: dict[int, Active] = {}
        self.stopping = threading.Event()
        self.errors: list[BaseException] = []
        self._left = math.inf if take is None else take
        self._lock = threading.Lock()

    def work(self, jobs: int = 1) -> list[threading.Thread]:
        """Start threads that take and run trials; they end when there is nothing left to take."""
        threads = [threading.Thread(target=self._loop, daemon=True) for _ in range(jobs)]
        for thread in threads:
            thread.start()
        return threads

    def _loop(self) -> None:
        try:
            while not self.stopping.is_set() and self._may_take():
                trial = self.sweep.claim(self.total)
                if trial is None:
                    return
                self.run(trial)
        except BaseException as error:
            self.errors.append(error)
            self.stopping.set()

    def _may_take(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def run(self, trial: optuna.trial.Trial) -> None:
        """Run a trial and tell the sweep how it ended."""
        folder = self.sweep.folder / "trials" / f"{trial.number:04d}"
        definition = self.sweep.definition
        command = make_trial(
            definition.program, definition.words, self.sweep.plan, trial.params, folder
        )
        held = Outcome.load(command)
        if folder.exists() and (held is None or held.status != "finished"):
            shutil.rmtree(folder)  # what an interrupted attempt has left
        self.active[trial.number] = Active(trial, folder)
        watch = Watch(self, trial, run_folder(folder, self.sweep.plan.seeds[0]))
        try:
            outcome = self.runner.run(command, self.timeout, watch=watch)
            if self.stopping.is_set() and outcome.status == "killed" and watch.pruned is None:
                self.sweep.release(trial)
            else:
                watch.look()
                self._tell(trial, command, outcome, watch)
        finally:
            del self.active[trial.number]

    def _tell(
        self, trial: optuna.trial.Trial, command: Trial, outcome: Outcome, watch: "Watch"
    ) -> None:
        plan = self.sweep.plan
        runs = [Run.read(run_folder(command.folder, seed)) for seed in plan.seeds]
        status, reason = outcome.status, outcome.reason
        values: Sequence[float] | None = None
        if watch.pruned is not None:
            state, status, reason = TrialState.PRUNED, "finished", watch.pruned
        elif status != "finished":
            state = TrialState.FAIL
        else:
            try:
                values, state = objective_values(plan, runs, outcome), TrialState.COMPLETE
            except MissingValueError as error:
                state, status, reason = TrialState.FAIL, "not finite", str(error)
        told = {
            "status": "pruned" if state is TrialState.PRUNED else status,
            "reason": reason,
            "seconds": outcome.seconds,
            "cpu_seconds": outcome.cpu_seconds,
            "peak_mib": outcome.peak_mib,
            "values": [run.finite for run in runs],
        }
        try:
            trial.set_user_attr("outcome", told)
            self.sweep.study.tell(trial, values, state=state, skip_if_finished=True)
        except optuna.exceptions.UpdateFinishedTrialError:
            return  # told by a worker that took this one for dead; the same run gives the same


class Watch:
    """Looks after a trial while it runs: shows life, and asks the pruner at every validation.

    Args:
        worker: that runs it.
        trial: to report to.
        folder: of the run whose validations count.
    """

    def __init__(self, worker: Worker, trial: optuna.trial.Trial, folder: Path) -> None:
        self.worker = worker
        self.trial = trial
        self.folder = folder
        self.pruned: str | None = None
        self._reported = 0
        self._beaten = time.monotonic()
        self._prunes = worker.sweep.plan.pruner["name"] != "none"

    def __call__(self) -> str | None:
        """Why the trial shall end, or None."""
        if self.worker.stopping.is_set():
            return "interrupted with the sweep"
        if time.monotonic() - self._beaten > BEAT:
            self._beaten = time.monotonic()
            self.worker.sweep.beat(self.trial)
        self.look()
        return self.pruned

    def look(self) -> None:
        """Report the validations since the last look, one by one."""
        if not self._prunes or self.pruned is not None:
            return
        lines = [line for line in read_progress(self.folder) if "validation" in line]
        if len(lines) == self._reported:
            return
        objective = next(iter(self.worker.sweep.plan.objectives.values()))
        frozen = self.worker.sweep.trials()[self.trial.number]
        for line in lines[self._reported :]:
            self._reported += 1
            step, value = int(line["validation"]), objective.at(line)
            if value is None:
                continue
            if step not in frozen.intermediate_values:
                self.trial.report(value, step)
            if self.trial.should_prune():
                self.pruned = f"pruned at validation {step}"
                return
