"""A sweep in its storage: what it is, which trials are whose, and how to go on."""

import fcntl
import json
import os
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from mtl_core.atomic import atomic_write
from mtl_core.errors import ArgumentError
from mtl_core.sweep.journal import journal_backend
from mtl_core.sweep.plan import Plan
from mtl_core.sweep.samplers import RepeatableSampler, make_pruner

HOME = "sweep.json"
BEAT = 30.0
"""Seconds between two signs of life of a trial."""
STALE = 300.0
"""Seconds without one after which a trial on another machine counts as dead."""


@dataclass(frozen=True)
class Definition:
    """What must not change while a sweep goes on.

    Args:
        program: module with ``main(words)``.
        words: of ``fit`` for all trials: configs and overrides.
        configs: text of every config file among the words.
        plan: `Plan.plain`.
    """

    program: str
    words: tuple[str, ...]
    configs: Mapping[str, str]
    plan: Mapping[str, Any]

    @classmethod
    def of(cls, program: str, words: Sequence[str], plan: Plan) -> Self:
        """Of a command line.

        Raises:
            ArgumentError: a config file does not exist.
        """
        texts = {}
        for i, word in enumerate(words):
            flag, _, attached = word.partition("=")
            if flag in ("-c", "--config"):
                name = attached or next(iter(words[i + 1 :]), "")
                if not Path(name).is_file():
                    raise ArgumentError("-c", "name a file", name)
                texts[name] = Path(name).read_text()
        return cls(program, tuple(words), texts, plan.plain)

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON gives it back."""
        held: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return held


class Sweep:
    """A study of Optuna with its folder.

    Args:
        study: where the trials are.
        definition: what it is.
        folder: for the trials' runs, on this machine.
    """

    def __init__(self, study: Study, definition: Definition, folder: Path) -> None:
        self.study = study
        self.definition = definition
        self.folder = folder
        self.plan = Plan.parse(definition.plan)
        self.sampler = RepeatableSampler(self.plan)
        study.sampler = self.sampler
        study.pruner = make_pruner(self.plan.pruner)
        host = socket.gethostname().replace(":", "-")
        self.worker = f"{host}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._claims = threading.Lock()
        self._alive: BinaryIO | None = None

    @classmethod
    def start(
        cls, definition: Definition, folder: Path, *, storage: str = "", name: str = ""
    ) -> Self:
        """Begin a sweep, or go on with the one that is there.

        Args:
            definition: what it shall be.
            folder: for its files.
            storage: URL that Optuna knows; empty is a journal file in the folder.
            name: of the study; empty is the folder's.

        Raises:
            ArgumentError: the storage holds a sweep of that name which is another one.
        """
        name = name or folder.absolute().name
        folder.mkdir(parents=True, exist_ok=True)
        directions = [o["direction"] for o in definition.plan["objectives"].values()]
        with _locked(folder / "claims.lock"):
            study = optuna.create_study(
                storage=open_storage(storage, folder),
                study_name=name,
                directions=directions,
                load_if_exists=True,
                sampler=optuna.samplers.RandomSampler(),
                pruner=optuna.pruners.NopPruner(),
            )
            _same(study.user_attrs.get("definition"), definition.plain, folder)
            if "definition" not in study.user_attrs:
                study.set_user_attr("definition", definition.plain)
            with atomic_write(folder / HOME) as file:
                file.write(json.dumps({"storage": storage, "name": name}, indent=2).encode())
        return cls(study, definition, folder)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The sweep that was begun in a folder.

        Raises:
            ArgumentError: there is none.
        """
        home = folder / HOME
        if not home.is_file():
            raise ArgumentError("the folder of a sweep", f"hold {HOME}", str(folder))
        held = json.loads(home.read_text())
        study = optuna.load_study(
            storage=open_storage(held["storage"], folder),
            study_name=held["name"],
            sampler=optuna.samplers.RandomSampler(),
            pruner=optuna.pruners.NopPruner(),
        )
        found = study.user_attrs["definition"]
        definition = Definition(**{**found, "words": tuple(found["words"])})
        return cls(study, definition, folder)

    def trials(self) -> list[FrozenTrial]:
        """All trials, by number."""
        return self.study.get_trials(deepcopy=False)

    def total(self, wanted: int) -> int:
        """How many trials there will be: no more than a grid has points."""
        limit = self.sampler.limit
        return wanted if limit is None else min(wanted, limit)

    def claim(self, total: int) -> optuna.trial.Trial | None:
        """A trial to run, with all its values: one whose worker has died, else a new one.

        A sweep of n trials consists of the trials 0 to n - 1.

        Args:
            total: n.

        Returns:
            None where every trial has ended or is in the hands of somebody else.
        """
        with (
            self._claims,
            _locked(self.folder / "claims.lock"),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._show_life()
            trials = self.trials()
            for found in trials[:total]:
                if found.state is TrialState.RUNNING and self._abandoned(found):
                    return self._take(optuna.trial.Trial(self.study, found._trial_id))
            if len(trials) >= total:
                return None
            trial = self.study.ask()
            # Machines without a common folder may both have asked for the last one. What is too
            # much waits, with nobody's name on it, until more trials are wanted.
            return self._take(trial) if trial.number < total else None

    def _take(self, trial: optuna.trial.Trial) -> optuna.trial.Trial:
        self.plan.space.suggest(trial)
        trial.set_user_attr("worker", self.worker)
        self.beat(trial)
        return trial

    def release(self, trial: optuna.trial.Trial) -> None:
        """Leave a trial that was interrupted to whoever comes next."""
        trial.set_user_attr("worker", "")

    def beat(self, trial: optuna.trial.Trial) -> None:
        """Show other machines that a trial is being run."""
        trial.set_user_attr("seen", time.time())

    def _show_life(self) -> None:
        if self._alive is None:
            path = self._life(self.worker)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._alive = path.open("wb")
            fcntl.flock(self._alive, fcntl.LOCK_EX)

    def _life(self, worker: str) -> Path:
        return self.folder / "workers" / f"{worker.replace(':', '_')}.lock"

    def _abandoned(self, trial: FrozenTrial) -> bool:
        """Whether nobody runs it: its worker's lock is free, or there was no sign for long."""
        worker = trial.user_attrs.get("worker")
        if worker == "":
            return True
        begun = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        if worker is None:
            # Here trials are taken under a lock that we hold. Elsewhere it takes a moment.
            return self._alone() or time.time() - begun > STALE
        if worker == self.worker:
            return False
        path = self._life(worker)
        if worker.split(":")[0] == self.worker.split(":")[0] and (path.is_file() or self._alone()):
            return _free(path)
        return time.time() - float(trial.user_attrs.get("seen", begun)) > STALE

    def _alone(self) -> bool:
        """Whether all workers share this folder, as those of a journal in it do."""
        held = json.loads((self.folder / HOME).read_text())
        return not held["storage"]

    def close(self) -> None:
        """Take back the sign of life."""
        if self._alive is not None:
            self._alive.close()
            self._life(self.worker).unlink(missing_ok=True)
            self._alive = None


def open_storage(url: str, folder: Path) -> BaseStorage | str:
    """The storage behind a URL; a journal in the folder for an empty one."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url:
        return url
    return JournalStorage(journal_backend(folder / "journal.log"))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _free(path: Path) -> bool:
    """Whether a lock belongs to nobody."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


def _same(held: Mapping[str, Any] | None, asked: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with something else.

    Raises:
        ArgumentError: names what has changed.
    """
    if held is None or held == asked:
        return
    if held["plan"] != asked["plan"]:
        changed = [
            f"{k} of the space's file"
            for k in asked["plan"]
            if held["plan"].get(k) != asked["plan"][k]
        ]
    else:
        changed = [key for key in asked if held.get(key) != asked[key]]
    rule = f"be that of the sweep in {folder}, or have another --out"
    raise ArgumentError(" and ".join(changed), rule, "something else")
