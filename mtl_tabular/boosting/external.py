"""R-MTGB on tables larger than memory: features stay on the disk, sorted by task.

What stays in memory are targets, tasks, weights, scores and derivatives of every row, and the pages
of features that XGBoost and the task blocks work on.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError, CheckpointWriteError, EmptySplitError
from mtl_tabular.boosting.blocks import RowSet
from mtl_tabular.boosting.device import check_device
from mtl_tabular.boosting.estimator import RMTGBEstimator
from mtl_tabular.boosting.holdout import hold_out
from mtl_tabular.boosting.objectives import Floats
from mtl_tabular.boosting.pieces import Pieces
from mtl_tabular.boosting.reduce import balanced_weights
from mtl_tabular.boosting.rows import (
    add_task_features,
    feature_kinds,
    known_tasks,
    task_codes,
)
from mtl_tabular.boosting.settings import Settings

Estimator = TypeVar("Estimator", bound=RMTGBEstimator)

_ZEROS = bytes(1 << 20)


def fit_external(
    model: Estimator,
    pieces: Pieces,
    *,
    cache_dir: str | Path,
    validation: Pieces | None = None,
) -> Estimator:
    """Train an estimator on a table that is read piece by piece.

    The trained model is that of `RMTGBRegressor.fit` on the whole table but for bins of features,
    which may differ a little on large tables and in the task blocks of large tasks. The table is
    read twice; its features are written to `cache_dir` as float32, sorted by task, beside XGBoost's
    pages of a byte a value and what task blocks need, and removed at the end. Task blocks of
    *categorical* features hold all features in memory: leave them out (``task_rounds=0``) where
    these do not fit.

    Args:
        model: untrained; is trained in place.
        pieces: the training rows.
        cache_dir: folder with space for 5 bytes a value, with task blocks for 25.
        validation: held out instead of a part of the training rows, its weights disregarded.

    Returns:
        The model.

    Raises:
        ArgumentError: an argument breaks its rule; the reference mode, whose exact trees need all
            rows in memory; `warm_start`.
        CheckpointWriteError: `cache_dir` cannot be written to or is full.
        EmptySplitError: there are fewer than two rows of positive weight, or none to validate on.
    """
    settings = prepare(model, "fit_external")
    known = _Known(pieces)
    held_known = None if validation is None else _Known(validation, weighted=False)
    learn(model, pieces.names, known.width, known.names)
    model._learn_targets(known.targets, known.weights)
    model.loss_ = model._make_loss()
    tasks, weights = task_codes(known.names, model.tasks_)[known.tasks], known.weights
    targets = model._encode_targets(known.targets)
    del known.targets
    if model.task_balanced:
        weights = balanced_weights(weights, tasks, len(model.tasks_))
    stops = model.early_stopping or model.schedule == "auto"
    held = np.zeros(len(tasks), dtype=bool)
    if held_known is None and stops:
        strata = np.zeros(len(tasks)) if model._numeric_targets() else targets
        held = hold_out(tasks, strata, fraction=model.validation_fraction, seed=model.seed_)
    columns = targets, weights, tasks
    with _folder(Path(cache_dir)) as folder:

        def train() -> None:
            part = _sorted_rows(folder / "train", model, pieces, known.kept, ~held, columns)
            watched = None
            if validation is not None and held_known is not None:
                codes = validation_codes(model, held_known.names)[held_known.tasks]
                answers = model._encode_targets(held_known.targets)
                watched = _sorted_rows(
                    folder / "held", model, validation, held_known.kept,
                    np.ones(len(codes), dtype=bool), (answers, held_known.weights, codes),
                    held=True,
                )  # fmt: skip
            elif held.any():
                watched = _sorted_rows(
                    folder / "held", model, pieces, known.kept, held, columns, held=True
                )
            model._train(settings, part, watched, going_on=False)

        train()  # a function of its own: XGBoost must let go of its files before the folder goes
    return model


def prepare(model: RMTGBEstimator, purpose: str) -> Settings:
    """Settings of a model for a training elsewhere than in one process's memory.

    Args:
        model: to train.
        purpose: for messages.

    Raises:
        ArgumentError: an argument breaks its rule or is not for this purpose.
    """
    settings = Settings.of(model)
    check_device(model.device)
    if model.reference_mode:
        raise ArgumentError("reference_mode", f"be left out for {purpose}", True)
    if model.warm_start:
        raise ArgumentError("warm_start", f"be left out for {purpose}", True)
    if model.task_column is not None:
        rule = f"be None for {purpose}, whose rows come with their tasks"
        raise ArgumentError("task_column", rule, model.task_column)
    return settings


def learn(model: RMTGBEstimator, names: list[str] | None, width: int, tasks: NDArray[Any]) -> None:
    """Seed, columns and tasks of a training.

    Args:
        model: to train.
        names: of the features.
        width: number of features.
        tasks: all of the training rows' tasks, in any order.
    """
    model._draw()
    model.n_features_in_ = width
    if names is not None:
        model.feature_names_in_ = np.array(names, dtype=object)
    elif hasattr(model, "feature_names_in_"):
        del model.feature_names_in_
    model.kinds_ = feature_kinds(model.categorical_features, model._feature_names())
    model.tasks_ = known_tasks(tasks, len(tasks))


def validation_codes(model: RMTGBEstimator, names: NDArray[Any]) -> NDArray[np.int64]:
    """Positions of validation tasks among those of training.

    Raises:
        ArgumentError: one is not among them.
    """
    codes = task_codes(names, model.tasks_)
    if (codes < 0).any():
        found = np.asarray(names)[codes < 0][:5].tolist()
        raise ArgumentError("validation", "hold rows of the training's tasks only", found)
    return codes


class _Known:
    """What is kept of every row: target, task and weight; rows of weight 0 are left out.

    Attributes:
        kept: (N,) rows of positive weight among all.
        names: tasks.
        tasks: (n,) positions in `names`.
        targets: (n,).
        weights: (n,).
        width: F.
    """

    def __init__(self, pieces: Pieces, *, weighted: bool = True) -> None:
        kept, targets, tasks, weights, names = [], [], [], [], []
        places: dict[Any, int] = {}
        self.width = 0
        for piece in pieces:
            self.width = piece.values.shape[1]
            counted = piece.weights > 0 if weighted else np.ones(len(piece), dtype=bool)
            kept.append(counted)
            targets.append(piece.targets[counted])
            weights.append(piece.weights[counted] if weighted else np.ones(len(piece)))
            codes, found = pd.factorize(piece.tasks[counted])
            own = np.array([places.setdefault(name, len(places)) for name in found], np.int32)
            tasks.append(own[codes] if len(own) else codes.astype(np.int32))
            names.append(found)
        total = int(sum(mask.sum() for mask in kept))
        if total < (2 if weighted else 1):
            raise EmptySplitError("train" if weighted else "validation", f"{total} rows")
        self.kept = np.concatenate(kept)
        self.targets, self.weights = np.concatenate(targets), np.concatenate(weights)
        self.tasks = np.concatenate(tasks)
        self.names = np.asarray(pd.unique(pd.Series(np.concatenate(names))))


@contextlib.contextmanager
def _folder(parent: Path) -> Iterator[Path]:
    """A folder for one training, removed in the end."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix="boost-") as name:
            yield Path(name)
    except OSError as error:
        reason = f"{error}; cache_dir must be a folder with enough space that can be written to"
        raise CheckpointWriteError(parent, reason) from error


def _sorted_rows(
    path: Path,
    model: RMTGBEstimator,
    pieces: Pieces,
    kept: NDArray[np.bool_],
    chosen: NDArray[np.bool_],
    columns: tuple[NDArray[Any], Floats, NDArray[np.int64]],
    *,
    held: bool = False,
) -> RowSet:
    """Some rows of a table, sorted by task on the disk.

    Args:
        path: of the file to write.
        model: that knows its tasks.
        pieces: of the table.
        kept: (N,) rows of the table that count.
        chosen: (n,) which of these are wanted.
        columns: encoded targets, weights and tasks, (n,) each.
        held: whether the rows are to be predicted only.
    """
    targets, weights, tasks = columns[0][chosen], columns[1][chosen], columns[2][chosen]
    order = np.argsort(tasks, kind="stable")
    place = np.full(len(kept), -1)
    place[np.flatnonzero(kept)[chosen][order]] = np.arange(len(order))
    values, added = _write_sorted(path, model, pieces, place, len(order))
    return RowSet(
        values, targets[order], weights[order], tasks[order], len(model.tasks_),
        model.kinds_ + added, 0 if held else model.max_bin,
    )  # fmt: skip


def _write_sorted(
    path: Path, model: RMTGBEstimator, pieces: Pieces, place: NDArray[np.int64], rows: int
) -> tuple[Any, tuple[str, ...]]:
    """Features with those of the task appended, each row at its place in a file.

    Args:
        path: of the file.
        model: that knows its tasks.
        pieces: of the table.
        place: (N,) of every row of the table, -1 where it is left out.
        rows: n, of the file.

    Returns:
        The mapped file (n, F), float32, and the kinds of what was appended.
    """
    count = len(model.tasks_)
    shape: tuple[int, int] | None = None
    added: tuple[str, ...] = ()
    first = 0
    for piece in pieces:
        own = place[first : first + len(piece)]
        first += len(piece)
        chosen = own >= 0
        values, added = add_task_features(
            piece.values[chosen], task_codes(piece.tasks[chosen], model.tasks_), count,
            model.task_feature,
        )  # fmt: skip
        if shape is None:
            shape = (rows, values.shape[1])
            _reserve(path, 4 * shape[0] * shape[1])
        # Mapped anew for every piece, so that its pages do not stay in memory.
        file = np.memmap(path, np.float32, "r+", shape=shape)
        file[own[chosen]] = values
        del file
    if first != len(place) or shape is None:
        raise ArgumentError("pieces", "give the same rows every time", f"{first}, not {len(place)}")
    return np.memmap(path, np.float32, "r", shape=shape), added


def _reserve(path: Path, size: int) -> None:
    """Make a file that has its space: a mapped file on a full disk would end the process."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
            return
        for start in range(0, size, len(_ZEROS)):
            file.write(_ZEROS[: size - start])
