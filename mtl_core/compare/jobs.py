"""The runs of a comparison: which, in which order, as which command lines, in which folders."""

import hashlib
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

from mtl_core.compare.comparison import FIRST, Comparison
from mtl_core.stats.plan import SINGLE, Plan
from mtl_core.trial import Trial

WEIGHTS = "last"
"""Name of the checkpoint that is tested: the weights after the last step."""


@dataclass(frozen=True)
class Job:
    """One training and its test.

    Attributes:
        block: number, from 1.
        seed: shared by the runs of a block.
        method: name, or ``single``.
        task: of a single-task run; empty for methods.
        position: in the block, from 1.
    """

    block: int
    seed: int
    method: str
    task: str
    position: int

    @property
    def key(self) -> tuple[str, str, int]:
        """What makes it another run: method, task and seed."""
        return self.method, self.task, self.seed

    def shown(self, plan: Plan, *, blind: bool) -> str:
        """Its name for people, a code where methods shall not be known."""
        if self.task:
            return f"{self.method} {self.task}"
        return plan.codes[self.method] if blind else self.method


def jobs_of(plan: Plan) -> list[list[Job]]:
    """All runs, block by block, in an order that is drawn anew for each block.

    The draw depends on the plan's name and the seed only.
    """
    return [_block(plan, number, seed) for number, seed in enumerate(plan.seeds, 1)]


def _block(plan: Plan, number: int, seed: int) -> list[Job]:
    runs = [(name, "") for name in plan.methods]
    if plan.single:
        runs += [(SINGLE, task) for task in plan.metrics]
    random.Random(f"{plan.name}/{seed}").shuffle(runs)
    return [Job(number, seed, name, task, i) for i, (name, task) in enumerate(runs, 1)]


def run_folder(root: Path, job: Job, plan: Plan) -> Path:
    """Folder of a run below that of the comparison; it tells no names where the plan is blind."""
    name = f"{job.method}-{job.task}" if job.task else job.method
    if plan.blind and not job.task:
        name = plan.codes[job.method]
    slug = re.sub(r"[^\w.-]+", "_", name)
    if slug != name and not plan.blind:
        slug += f"-{hashlib.sha256(name.encode()).hexdigest()[:6]}"  # two names may look alike
    return root / "runs" / f"seed_{job.seed}" / slug


def config_words(comparison: Comparison, job: Job, single: Path | None = None) -> tuple[str, ...]:
    """Config and overrides of a run, with its seed and without its folder.

    Args:
        comparison: what it belongs to.
        job: the run.
        single: config of the single-task run, for one of these.
    """
    seeds = _seeds(comparison, job)
    if single is not None:
        return ("-c", str(single), *seeds)
    return (*comparison.words, *comparison.methods[job.method], *seeds)


def own_folder(folder: Path) -> tuple[str, ...]:
    """Arguments that send a run's files to a folder of its own, and quieten it."""
    return (
        f"--trainer.default_root_dir={folder}",
        "--trainer.logger=false",
        f"--report.results.table={folder / 'results.csv'}",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
    )


def trials_of(
    comparison: Comparison, job: Job, folder: Path, single: Path | None = None
) -> dict[str, Trial]:
    """Plain command lines of a run: ``fit``, and ``test`` where the plan's split is the test's.

    A method that is trained twice has ``first`` before them.

    Args:
        comparison: what it belongs to.
        job: the run.
        folder: of the run.
        single: config of the single-task run, for one of these.
    """
    words = config_words(comparison, job, single)
    found = {}
    if not job.task and job.method in comparison.firsts:
        begun = (*comparison.words, *comparison.firsts[job.method], *_seeds(comparison, job))
        found["first"] = _fit(comparison, begun, folder / "first")
        words = tuple(word.replace(FIRST, str(_weights(folder / "first"))) for word in words)
    found["fit"] = _fit(comparison, words, folder / "fit")
    if comparison.plan.split == "test":
        last = f"--ckpt_path={_weights(folder / 'fit')}"
        test = ("test", *words, *own_folder(folder / "test"), last)
        found["test"] = Trial(comparison.program, (test,), folder / "test")
    return found


def _seeds(comparison: Comparison, job: Job) -> list[str]:
    return [f"--{key}={job.seed}" for key in ("seed_everything", *comparison.seed_keys)]


def _weights(folder: Path) -> Path:
    return folder / "checkpoints" / f"{WEIGHTS}.ckpt"


def _fit(comparison: Comparison, words: tuple[str, ...], folder: Path) -> Trial:
    keep = {
        "class_path": "ModelCheckpoint",
        "init_args": {
            "dirpath": str(_weights(folder).parent),
            "filename": WEIGHTS,
            "save_on_train_epoch_end": True,
        },
    }
    own = own_folder(folder)
    more = ("--trainer.enable_checkpointing=true", f"--trainer.callbacks+={json.dumps(keep)}")
    return Trial(comparison.program, (("fit", *words, *own, *more),), folder)


def profile_trial(comparison: Comparison, method: str, folder: Path) -> Trial:
    """The command line that counts a method's multiply-accumulates into ``profile.json``."""
    own = [  # before any training
        word.replace(f'"{FIRST}"', "null").replace(FIRST, "null")
        for word in comparison.methods[method]
    ]
    words = (*comparison.words, *own)
    options = ("--repeats", "0", "--no-separate", "--no-dense")
    out = ("--out", str(folder / "profile.json"))
    return Trial(comparison.program, (("profile", *words, *options, *out),), folder)


def config_trial(comparison: Comparison, folder: Path) -> Trial:
    """The command line that prints the whole config which single-task runs are made of."""
    return Trial(comparison.program, (("fit", *comparison.words, "--print_config"),), folder)
