"""Scenarios 1 to 4 of random Fourier functions: relations between tasks, seeds, classes."""

import numpy as np
import pandas as pd
import pytest

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_tabular.data.fourier_tasks import BLOCK, LEAST_CLASS, FourierTasks

POINTS = np.random.default_rng(0).uniform(-1, 1, (600, 5))


def correlation(scenario, seed=0, **options):
    tasks = FourierTasks(scenario, seed=seed, waves=200, **options)
    values = [tasks.values(POINTS, t) for t in range(tasks.num_tasks)]
    return np.corrcoef(values)


def between(matrix):
    """Entries above the diagonal."""
    return matrix[np.triu_indices(len(matrix), 1)]


def test_the_published_setting_is_the_default():
    tasks = FourierTasks(4)
    frame = tasks.draw(300)
    assert frame.groupby("task").size().tolist() == [300] * 10
    assert tasks.outliers == (8, 9)
    x = frame[[f"x{i}" for i in range(1, 6)]].to_numpy()
    assert x.min() >= -1
    assert x.max() <= 1
    assert np.abs(x.mean(0)).max() < 4 / np.sqrt(3 * 3000)
    assert np.abs(np.corrcoef(x.T) - np.eye(5)).max() < 4 / np.sqrt(3000)


def test_scenario_1_is_one_function():
    tasks = FourierTasks(1, num_tasks=3)
    first = tasks.values(POINTS, 0)
    assert np.array_equal(first, tasks.values(POINTS, 1))
    frame = tasks.draw(50)
    assert not frame["x1"][:50].equals(frame["x1"][50:100].reset_index(drop=True))


def test_scenario_2_is_uncorrelated_in_the_mean_and_never_the_same():
    """Smooth functions on a cube correlate by chance; their mean over draws does not."""
    found = np.concatenate([between(correlation(2, seed=s, num_tasks=8)) for s in range(8)])
    assert abs(found.mean()) < 4 * found.std() / np.sqrt(8 * 8)  # pairs that share a task are not
    assert found.max() < 0.95


def test_scenario_3_has_the_correlation_of_its_shares():
    """0.81 v / (0.81 v + 0.01 w) with v, w the variances of the functions: 0.988 if they agree."""
    found = np.concatenate([between(correlation(3, seed=s)) for s in range(5)])
    assert found.mean() == pytest.approx(0.81 / 0.82, abs=0.008)
    assert found.min() > 0.93


def test_scenario_4_has_two_groups():
    found = np.stack([correlation(4, seed=s, num_outliers=3) for s in range(12)])
    inliers, outliers, mixed = found[:, :7, :7], found[:, 7:, 7:], found[:, :7, 7:]
    assert inliers.min() > 0.93
    assert outliers.min() > 0.93
    assert np.abs(mixed).max() < 0.93
    assert abs(mixed.mean()) < 4 * mixed.mean((1, 2)).std() / np.sqrt(12)


def test_variance_is_one_over_draws_of_functions():
    """At a fixed place: the kernel's diagonal."""
    tasks = FourierTasks(2, num_tasks=600, waves=50)
    values = np.array([tasks.values(POINTS[:1], t)[0] for t in range(600)])
    assert np.mean(values**2) == pytest.approx(1, abs=5 * np.sqrt(2 / 600))


def test_kernel_is_squared_exponential():
    """E f(x) f(x') = exp(-|x - x'|² / 2 l²) with l = F / 4."""
    apart = POINTS[:2].copy()
    tasks = FourierTasks(2, num_tasks=1500, waves=50)
    values = np.array([tasks.values(apart, t) for t in range(1500)])
    expected = np.exp(-np.sum((apart[0] - apart[1]) ** 2) / (2 * 1.25**2))
    assert np.mean(values[:, 0] * values[:, 1]) == pytest.approx(expected, abs=5 / np.sqrt(1500))


@pytest.mark.parametrize("kind", ["numeric", "binary"])
def test_rows_depend_on_nothing_but_the_arguments(kind):
    options = {"kind": kind, "num_tasks": 4, "waves": 40, "seed": 5}
    tasks, rows = FourierTasks(3, **options), 2 * BLOCK + 7
    whole = tasks.draw(rows)
    assert whole.equals(FourierTasks(3, **options).draw(rows))
    for chunk in (100, rows, 3 * rows):
        pieces = list(tasks.chunks(rows, chunk=chunk))
        assert max(len(piece) for piece in pieces) <= chunk
        assert pd.concat(pieces, ignore_index=True).equals(whole)
    first = tasks.draw(10)
    assert (
        first[first["task"] == 2]
        .reset_index(drop=True)
        .equals(whole[whole["task"] == 2][:10].reset_index(drop=True))
    )
    more = FourierTasks(3, **{**options, "num_tasks": 9}).draw(10, tasks=range(4))
    assert more.equals(first)


def test_targets_are_the_functions_of_the_rows():
    numeric = FourierTasks(2, num_tasks=2, waves=60)
    frame = numeric.draw(300, "test", start=40)
    second = frame[frame["task"] == 1]
    again = numeric.values(second[["x1", "x2", "x3", "x4", "x5"]].to_numpy(), 1)
    np.testing.assert_allclose(again, second["y"], atol=1e-5)


def test_parts_and_seeds_differ():
    tasks = FourierTasks(1, num_tasks=1, waves=20)
    train, test = tasks.draw(50), tasks.draw(50, "test")
    assert not set(train["x1"]) & set(test["x1"])
    assert not FourierTasks(1, num_tasks=1, waves=20, seed=1).draw(50).equals(train)


@pytest.mark.parametrize("scenario", [1, 2, 3, 4])
def test_each_class_has_a_tenth_of_every_task(scenario):
    tasks = FourierTasks(scenario, kind="binary", num_tasks=20, waves=100, seed=3)
    shares = tasks.draw(2000).groupby("task")["y"].mean()
    assert LEAST_CLASS > 0.1
    assert shares.min() >= 0.1
    assert shares.max() <= 0.9
    assert sorted(set(tasks.draw(100)["y"])) == [0, 1]


def test_what_is_refused():
    for argument, wrong in (
        ("scenario", {"scenario": 5}),
        ("num_tasks", {"num_tasks": 0}),
        ("num_outliers", {"num_outliers": 10}),
        ("seed", {"seed": -1}),
    ):
        with pytest.raises(ArgumentError, match=argument):
            FourierTasks(**{"scenario": 4, **wrong})
    with pytest.raises(UnknownNameError, match="binary"):
        FourierTasks(1, kind="binry")
    tasks = FourierTasks(1, num_tasks=2, waves=5)
    for argument, call in (
        ("task", lambda: tasks.values(POINTS, 2)),
        ("features", lambda: tasks.values(POINTS[:, :4], 0)),
        ("rows", lambda: tasks.draw(-1)),
        ("tasks", lambda: tasks.draw(1, tasks=range(3))),
        ("chunk", lambda: list(tasks.chunks(1, chunk=0))),
    ):
        with pytest.raises(ArgumentError, match=argument):
            call()
    with pytest.raises(UnknownNameError, match="part"):
        tasks.draw(1, "trian")
