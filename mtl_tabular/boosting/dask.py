"""R-MTGB on the workers of a Dask cluster; needs ``pip install "mtl-suite[dask]"``.

Rows are divided by task: all rows of a task go to one worker, tasks are dealt out so that workers
have about the same number of rows. Every worker runs the same training on its rows. XGBoost sums
the histograms of the shared block and of the groups; beside them go round the two sums a task for
the shares (once a round) and two sums of losses. Trees of the task blocks need no other worker's
rows and are gathered in the end.
"""

import heapq
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import replace
from threading import Thread
from typing import Any, TypeVar

import dask.dataframe as dd
import numpy as np
from dask.delayed import delayed
from distributed import Client, Future, MultiLock, as_completed, get_worker, wait
from distributed.comm.addressing import get_address_host
from numpy.typing import NDArray
from xgboost import collective
from xgboost.core import XGBoostError
from xgboost.dask import CommunicatorContext
from xgboost.tracker import RabitTracker

from mtl_core.errors import ArgumentError, EmptySplitError, MTLError
from mtl_tabular.boosting.estimator import RMTGBEstimator
from mtl_tabular.boosting.external import learn, prepare, validation_codes
from mtl_tabular.boosting.facts import Facts
from mtl_tabular.boosting.forest import TaskForest
from mtl_tabular.boosting.grown import Grown
from mtl_tabular.boosting.holdout import hold_out
from mtl_tabular.boosting.objectives import Floats
from mtl_tabular.boosting.pieces import Layout, Piece, Pieces
from mtl_tabular.boosting.reduce import balanced_weights
from mtl_tabular.boosting.rows import task_codes
from mtl_tabular.boosting.settings import Settings

Estimator = TypeVar("Estimator", bound=RMTGBEstimator)
_log = logging.getLogger(__name__)


class WorkersDisagreeError(MTLError, RuntimeError):
    """Workers that trained one model came to different ones."""

    def __init__(self) -> None:
        super().__init__(
            "workers must end with the same model, found two. They should have the same versions "
            "of this package and of XGBoost."
        )


def fit_dask(
    model: Estimator,
    client: Client,
    table: dd.DataFrame,
    *,
    target: str,
    task: str = "",
    weight: str = "",
    features: Iterable[str] | None = None,
    validation: dd.DataFrame | None = None,
    timeout: int = 1800,
) -> Estimator:
    """Train an estimator on a distributed table.

    The trained model lies here and is one like any other. It is that of `RMTGBRegressor.fit` on the
    same rows up to the bins of the features, which XGBoost merges from the workers' quantiles.
    Without `validation` every worker holds out a part of each of its tasks, so the held-out rows
    depend on how tasks are divided among workers.

    Args:
        model: untrained; is trained in place. Its ``n_jobs`` are threads of a worker, None means
            all that the worker has.
        client: of the cluster. Its workers need this package.
        table: feature columns (numbers, or codes of categories), target, task and weight. Its
            partitions may be empty, and cut the rows anyhow.
        target: name of the column to predict.
        task: of the column that says which task a row belongs to; empty where there is one task,
            which then trains on one worker.
        weight: of the column with the rows' weights; empty where all weigh the same.
        features: names of the feature columns; None means all that are left.
        validation: rows with the same columns, held out instead of a part of the table; weights
            are disregarded. Not needed for every task.
        timeout: seconds that a worker waits for the others in one step.

    Returns:
        The model.

    Raises:
        ArgumentError: an argument breaks its rule; what does not go on a cluster: ``callbacks``,
            ``progress``, ``warm_start``, ``reference_mode``, task blocks of categorical features;
            a missing target or task; a validation task that training does not have.
        ColumnError: a column is absent, or a feature is no number.
        EmptySplitError: there are fewer than two rows of positive weight.
    """
    chosen = None if features is None else tuple(features)
    layout = Layout(target=target, task=task, weight=weight, features=chosen)
    layout = layout.of([str(name) for name in table.columns], "the Dask table")
    assert layout.features is not None
    held = None
    if validation is not None:
        layout.of([str(name) for name in validation.columns], "the Dask table of validation")
        held = _pieces(client, validation, layout)
    pieces = _pieces(client, table, layout)
    return fit_pieces(
        model, client, pieces, names=list(layout.features), validation=held, timeout=timeout
    )


def fit_pieces(
    model: Estimator,
    client: Client,
    pieces: list[Future[Any]],
    *,
    names: list[str] | None,
    validation: list[Future[Any]] | None = None,
    timeout: int = 1800,
) -> Estimator:
    """The same of rows that lie on the workers as a `Piece` each.

    Args:
        model: see `fit_dask`.
        client: see `fit_dask`.
        pieces: the training rows.
        names: of the features; None where they have none.
        validation: see `fit_dask`.
        timeout: see `fit_dask`.
    """
    settings = prepare(model, "a training on Dask")
    _check(model)
    numeric = model._numeric_targets()
    facts = Facts.join(client.gather(client.map(Facts.of, pieces, numeric=numeric)))
    if facts.rows.sum() < 2:
        raise EmptySplitError("train", f"{int(facts.rows.sum())} rows of positive weight")
    learn(model, names, facts.width, facts.tasks)
    _check_categories(model, settings)
    model._learn_targets(*facts.answers(numeric=numeric))
    model.loss_ = model._make_loss()
    if validation is not None:
        others = client.gather(client.map(Facts.of, validation, numeric=numeric, weighted=False))
        _check_validation(model, Facts.join(others), numeric=numeric)
    rows = np.zeros(len(model.tasks_), dtype=np.int64)
    rows[task_codes(facts.tasks, model.tasks_)] = facts.rows
    workers = sorted(client.nthreads())[: len(rows)]
    if not workers:
        raise ArgumentError("client", "have workers", "none")
    owner = divide(rows, len(workers))
    shards = _shards(client, model, pieces, owner, workers)
    held: list[Future[Any] | None] = [None] * len(workers)
    if validation is not None:
        held = [*_shards(client, model, validation, owner, workers, weighted=False)]
    with _alone(client, workers):
        host = get_address_host(str(getattr(client.scheduler, "address", "")))
        told = client.run_on_scheduler(_start_tracker, len(workers), host)
        parts = _results([
            client.submit(
                _train, model, settings, shard, watched, told | {"dmlc_timeout": timeout},
                workers=[worker], allow_other_workers=False, pure=False, retries=0,
            )
            for worker, shard, watched in zip(workers, shards, held, strict=True)
        ])  # fmt: skip
    _take(model, parts)
    return model


def fit_stacked(
    model: RMTGBEstimator, scheduler: str, pieces: Pieces, validation: Pieces | None
) -> None:
    """Train on rows that are read here and sent to the workers piece by piece.

    Args:
        model: see `fit_dask`.
        scheduler: address of the scheduler.
        pieces: the training rows.
        validation: held out instead of a part of them.

    Raises:
        ArgumentError: no scheduler answers there, see also `fit_dask`.
    """
    try:
        client = Client(scheduler, set_as_default=False)
    except (OSError, ValueError) as error:
        rule = "be the address of a Dask scheduler that answers"
        raise ArgumentError("scheduler", rule, scheduler) from error
    with client:
        sent = [client.scatter(piece) for piece in pieces]
        held = None if validation is None else [client.scatter(piece) for piece in validation]
        fit_pieces(model, client, sent, names=pieces.names, validation=held)


def divide(rows: NDArray[np.int64], workers: int) -> NDArray[np.int64]:
    """Worker (T,) of every task: the largest task first, each to the worker with fewest rows.

    Args:
        rows: (T,) of every task.
        workers: at most as many as tasks.

    >>> divide(np.array([10, 60, 30, 30]), 2).tolist()
    [0, 0, 1, 1]
    """
    heap = [(0, worker) for worker in range(workers)]
    owner = np.empty(len(rows), dtype=np.int64)
    for r in np.argsort(-rows, kind="stable"):
        held, owner[r] = heapq.heappop(heap)
        heapq.heappush(heap, (held + int(rows[r]), int(owner[r])))
    return owner


@contextmanager
def _alone(client: Client, workers: list[str]) -> Iterator[None]:
    """No other training on these workers: two would wait for each other's processes for ever.

    A model that is trained is not lost to a connection that breaks when the lock is given back.
    """
    lock = MultiLock(workers, client=client)
    lock.acquire()
    try:
        yield
    finally:
        try:
            lock.release()
        except Exception:
            _log.warning("The lock of the workers was not given back cleanly.", exc_info=True)


def _check(model: RMTGBEstimator) -> None:
    """Refuse what does not go to workers."""
    if model.callbacks:
        raise ArgumentError("callbacks", "be left out for a training on Dask", model.callbacks)
    if model.progress:
        raise ArgumentError("progress", "be False for a training on Dask", True)


def _check_categories(model: RMTGBEstimator, settings: Settings) -> None:
    """Refuse task blocks of categorical features: XGBoost would sum them over workers."""
    if settings.per_task and ("c" in model.kinds_ or model.task_feature == "categorical"):
        rule = "be 0 on Dask where features are categorical, or these be columns of 0 and 1"
        raise ArgumentError("task_rounds", rule, settings.task_rounds)


def _check_validation(model: RMTGBEstimator, facts: Facts, *, numeric: bool) -> None:
    """Refuse validation rows of other tasks, classes or columns, or none at all."""
    if not facts.rows.sum():
        raise EmptySplitError("validation", "the Dask table")
    validation_codes(model, facts.tasks)
    if not numeric:
        model._encode_targets(facts.classes)
    if facts.width != model.n_features_in_:
        rule = f"have {model.n_features_in_} features, as in training"
        raise ArgumentError("validation", rule, facts.width)


def _pieces(client: Client, table: dd.DataFrame, layout: Layout) -> list[Future[Any]]:
    """Partitions of a table as pieces, on the workers."""
    return [client.compute(delayed(layout.piece)(part)) for part in table.to_delayed()]


def _shards(
    client: Client,
    model: RMTGBEstimator,
    pieces: list[Future[Any]],
    owner: NDArray[np.int64],
    workers: list[str],
    *,
    weighted: bool = True,
) -> list[Future[Any]]:
    """The rows of every worker's tasks, on that worker, in the order of the table."""
    shards = []
    for i, worker in enumerate(workers):
        tasks = model.tasks_[owner == i]
        parts = [client.submit(_of_tasks, piece, tasks, weighted, pure=False) for piece in pieces]
        shards.append(client.submit(Piece.join, parts, workers=[worker], pure=False))
    return shards


def _of_tasks(piece: Piece, tasks: NDArray[Any], weighted: bool) -> Piece:
    """Rows of some tasks."""
    piece = piece.counted() if weighted else piece
    return piece.at(task_codes(piece.tasks, tasks) >= 0)


def _start_tracker(workers: int, host: str) -> dict[str, Any]:
    """Start what brings workers together, on the scheduler's machine; what workers are told."""
    tracker = RabitTracker(n_workers=workers, host_ip=host, sortby="task")
    tracker.start()
    Thread(target=tracker.wait_for, daemon=True).start()
    return dict(tracker.worker_args())


def _sum(values: Floats) -> Floats:
    """Sums over workers."""
    summed = collective.allreduce(np.ascontiguousarray(values, np.float64), collective.Op.SUM)
    return summed.reshape(values.shape)


def _train(
    model: Estimator,
    settings: Settings,
    part: Piece,
    watched: Piece | None,
    told: dict[str, Any],
) -> Estimator:
    """One worker's share of the training."""
    model = copy(model)  # workers may be threads of one process
    if settings.n_jobs is None:
        settings = replace(settings, n_jobs=get_worker().state.nthreads)
    with CommunicatorContext(**told):
        tasks = task_codes(part.tasks, model.tasks_)
        targets, weights = model._encode_targets(part.targets), part.weights
        if model.task_balanced:
            weights = balanced_weights(weights, tasks, len(model.tasks_), _sum)
        values, held = part.values, np.zeros(len(part), dtype=bool)
        if watched is None and (model.early_stopping or model.schedule == "auto"):
            strata = np.zeros(len(part)) if model._numeric_targets() else targets
            held = hold_out(tasks, strata, fraction=model.validation_fraction, seed=model.seed_)
        rest = ~held
        train = model._rows(values[rest], targets[rest], weights[rest], tasks[rest])
        held_rows = None
        if watched is not None:
            held_rows = model._rows(
                watched.values, model._encode_targets(watched.targets), np.ones(len(watched)),
                task_codes(watched.tasks, model.tasks_), held=True,
            )  # fmt: skip
        elif _sum(np.array([float(held.sum())]))[0]:
            held_rows = model._rows(
                values[held], targets[held], weights[held], tasks[held], held=True
            )
        model._train(settings, train, held_rows, going_on=False, reduce=_sum)
    return model


def _results(futures: list[Future[Any]]) -> list[Any]:
    """What workers return; the error that came first where one fails."""
    for future, _ in as_completed(futures, with_results=True, raise_errors=False):
        if future.status == "error":
            break
    else:
        return [future.result() for future in futures]
    # The others lose the one that failed and fail, too: with an error of XGBoost's.
    with suppress(TimeoutError):
        wait(futures, timeout=20)
    errors = [future.exception() for future in futures if future.status == "error"]
    for future in futures:
        future.cancel()
    raise next((e for e in errors if not isinstance(e, XGBoostError)), errors[0])


def _take(model: RMTGBEstimator, parts: list[RMTGBEstimator]) -> None:
    """Give a model here what workers have learned."""
    first = parts[0]
    for part in parts[1:]:
        same = (
            all(
                np.array_equal(a, b)
                for a, b in zip(part.model_.thetas, first.model_.thetas, strict=True)
            )
            and part.model_.rounds == first.model_.rounds
        )
        if not same:
            raise WorkersDisagreeError
    forest = first.model_.own
    if isinstance(forest, TaskForest) and len(parts) > 1:
        forests = [p.model_.own for p in parts if isinstance(p.model_.own, TaskForest)]
        forest.trees = [
            [_joined([f.trees[k][o] for f in forests]) for o in range(forest.outputs)]
            for k in range(forest.rounds)
        ]
        forest.restore(forest.state())
    for name in (
        "model_",
        "chosen_",
        "plan_",
        "held_out_losses_",
        "task_report_",
        "outlier_score_",
    ):
        setattr(model, name, getattr(first, name))


def _joined(trees: list[Grown]) -> Grown:
    """One round's trees of all workers; every task has one on a single worker at most."""
    own = [np.flatnonzero(tree.roots >= 0) for tree in trees]
    parts = [replace(tree, roots=tree.roots[tasks]) for tree, tasks in zip(trees, own, strict=True)]
    return Grown.join(parts, own, len(trees[0].roots))
