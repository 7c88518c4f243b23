"""Optuna's samplers, made to give the same values to the same trial however often one asks."""

import importlib.util
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.sweep.plan import Plan
from mtl_core.sweep.space import Scalar

KINDS: dict[str, Callable[..., BaseSampler]] = {
    "tpe": optuna.samplers.TPESampler,
    "random": optuna.samplers.RandomSampler,
    "grid": optuna.samplers.RandomSampler,  # the grid itself is among the fixed values
    "gp": optuna.samplers.GPSampler,
    "cmaes": optuna.samplers.CmaEsSampler,
    "nsga2": optuna.samplers.NSGAIISampler,
}
PRUNERS: dict[str, Callable[..., optuna.pruners.BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    "percentile": optuna.pruners.PercentilePruner,
    "halving": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
}


def options(kind: Callable[..., Any], given: Mapping[str, Any], argument: str) -> dict[str, Any]:
    """The arguments of a sampler or pruner, less ``name`` and ``seed``.

    Raises:
        UnknownNameError: one is none of its arguments.
    """
    known = set(inspect.signature(kind).parameters) - {"seed"}
    held = {key: value for key, value in given.items() if key not in ("name", "seed")}
    for key in held:
        if key not in known:
            raise UnknownNameError(f"argument of {argument}", key, known)
    return held


def make_pruner(given: Mapping[str, Any]) -> optuna.pruners.BasePruner:
    """The pruner that a plan describes."""
    kind = PRUNERS[given["name"]]
    return kind(**options(kind, given, f"pruner {given['name']}"))


class RepeatableSampler(BaseSampler):
    """A sampler whose values depend on nothing but the plan, the trial's number and the history.

    A trial has its own random numbers, seeded by the plan's seed, the trial's number and the
    parameter's name. A sweep that goes on after an interruption therefore draws what it would have
    drawn without one. The first trials take the plan's ``start``, those of a grid its combinations.

    Args:
        plan: of the sweep.
        fixed: how many combinations of a grid to hold at most; what lies behind is never drawn.
    """

    def __init__(self, plan: Plan, *, fixed: int = 100_000) -> None:
        name = plan.sampler["name"]
        self._kind = KINDS[name]
        self._seed = int(plan.sampler.get("seed", 0))
        self._options = options(self._kind, plan.sampler, f"sampler {name}")
        if name == "cmaes":
            _need_cmaes()
        # Parameters that exist in some trials only are drawn by themselves, as they have to be.
        known = inspect.signature(self._kind).parameters
        if name in ("gp", "cmaes") and "warn_independent_sampling" in known:
            self._options.setdefault("warn_independent_sampling", False)
        grid = list(islice(plan.space.grid(), fixed)) if name == "grid" else []
        self.limit = len(plan.start) + len(grid) if name == "grid" else None
        self._fixed: tuple[Mapping[str, Scalar], ...] = (*plan.start, *grid)
        # What draws a trial's parameters together may remember, from asking which to drawing them.
        self._joint: dict[int, BaseSampler] = {}
        self._make(0, "")  # refuses arguments that the sampler refuses

    def _make(self, number: int, name: str) -> BaseSampler:
        key = [self._seed, number, *name.encode()]
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return self._kind(seed=seed, **self._options)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Parameters that are drawn together; none for a trial whose values are given."""
        if trial.number < len(self._fixed):
            return {}
        sampler = self._joint[trial.number] = self._make(trial.number, "")
        return sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw them, once: what was drawn before an interruption is drawn again."""
        if not search_space:
            return {}
        held: dict[str, Any] | None = trial.user_attrs.get("drawn")
        if held is None:
            held = self._joint.pop(trial.number).sample_relative(study, trial, search_space)
            study._storage.set_trial_user_attr(trial._trial_id, "drawn", held)
        return held

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw a parameter by itself, unless its value is given."""
        given = self._fixed[trial.number] if trial.number < len(self._fixed) else {}
        if param_name in given:
            return given[param_name]
        sampler = self._make(trial.number, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """What the sampler does before a trial."""
        self._make(trial.number, "").before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """What the sampler does after a trial."""
        self._make(trial.number, "").after_trial(study, trial, state, values)


def _need_cmaes() -> None:
    if importlib.util.find_spec("cmaes") is None:
        rule = "be another one, or have its package: pip install cmaes"
        raise ArgumentError("sampler", rule, "cmaes")
