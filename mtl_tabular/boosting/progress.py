"""A progress bar for boosting, and rounds of XGBoost's own training told as ours are."""

import math
from collections.abc import Sequence
from typing import Any

import xgboost as xgb
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from mtl_tabular.boosting.training import Callback, Round


class ProgressBar:
    """Callback that draws one bar a block, with training and held-out loss.

    Bars of blocks that stop early end where they stop.
    """

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._bars: dict[str, TaskID] = {}

    def __call__(self, told: Round) -> None:
        """Move the block's bar."""
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[losses]}"),
            )  # fmt: skip
            self._progress.start()
        if told.block not in self._bars or told.round == 1:
            self._bars[told.block] = self._progress.add_task(told.block, losses="")
        known = {"loss": told.loss, "held out": told.held_out}
        losses = ", ".join(f"{name} {v:.4g}" for name, v in known.items() if v == v)
        self._progress.update(
            self._bars[told.block], total=told.rounds, completed=told.round, losses=losses
        )

    def close(self) -> None:
        """Leave the bars as they are and give the terminal back."""
        if self._progress is not None:
            self._progress.stop()
        self._progress, self._bars = None, {}


class RoundTeller(xgb.callback.TrainingCallback):
    """XGBoost's callback that tells others a `Round`; the training loss is NaN, nobody computes it.

    Args:
        callbacks: to tell; True of one of them ends the model that grows.
        block: name.
        rounds: of a model at most.
        place: of the model among several that share one block.
        models: their number.
    """

    def __init__(
        self,
        callbacks: Sequence[Callback],
        block: str,
        rounds: int,
        *,
        place: int = 0,
        models: int = 1,
    ) -> None:
        self.callbacks = tuple(callbacks)
        self.block, self.rounds, self.place, self.models = block, rounds, place, models

    def after_iteration(self, model: Any, epoch: int, evals_log: dict[str, Any]) -> bool:
        """Tell, and pass on whether to stop."""
        held = next(iter(evals_log.get("val", {}).values()), [math.nan])
        told = Round(
            block=self.block,
            round=self.place * self.rounds + epoch + 1,
            rounds=self.models * self.rounds,
            loss=math.nan,
            held_out=float(held[-1]),
        )
        answers = [callback(told) for callback in self.callbacks]
        return any(answers)
