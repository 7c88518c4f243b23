"""The checkable properties of the generator, numbered as in the spec of MultiTab-Bench (i)."""

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from mtl_core.errors import ArgumentError, CheckpointWriteError, UnknownNameError
from mtl_tabular.data.relatedness import block_correlation
from mtl_tabular.data.synthetic import BLOCK, SyntheticTable
from mtl_tabular.data.synthetic_spec import SyntheticSpec

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(24)  # exact to degree 47
BOTH = np.outer(WEIGHTS, WEIGHTS) / WEIGHTS.sum() ** 2


def same(one, two) -> bool:
    names = ("numeric", "categorical", "labels", "labelled")
    return all(
        np.ascontiguousarray(getattr(one, n)).tobytes()
        == np.ascontiguousarray(getattr(two, n)).tobytes()
        for n in names
    )


@pytest.mark.parametrize("p", [-1 / 6, -0.1, 0.0, 0.4, 0.9, 1.0])
def test_1_weights_have_the_correlation(p):
    W = SyntheticTable(SyntheticSpec(correlation=p), seed=3).weights
    assert np.abs(W @ W.T - SyntheticSpec(correlation=p).matrix).max() <= 1e-5


def test_1_any_matrix_and_distractors():
    matrix = block_correlation([3, 3, 1], 0.7, between=0.2, signs=[1, 1, -1, 1, 1, 1, 1])
    W = SyntheticTable(SyntheticSpec(correlation=matrix, num_distractors=10)).weights
    assert np.abs(W @ W.T - matrix).max() <= 1e-5
    assert np.all(W[:, -10:] == 0)
    assert np.all(np.abs(W[:, :-10]).max(0) > 0)


def test_1_the_directions_behind_the_weights_are_orthonormal():
    """With p = 0 the weights are a rotation of U."""
    W = SyntheticTable(SyntheticSpec(correlation=0.0), seed=1).weights
    assert np.abs(W @ W.T - np.eye(7)).max() <= 1e-5


@pytest.mark.parametrize("p", [-0.1, 0.0, 0.4, 0.9])
def test_2_variances_and_correlations_match_the_closed_forms(p):
    """Within 4 standard errors at n = 200k; the errors are exact, by quadrature."""
    n, noise = 200_000, 0.0
    spec = SyntheticSpec(
        num_tasks=4, num_features=6, degrees=[1, 2, 3, 4], noise=noise, correlation=p
    )
    raw = (
        SyntheticTable(SyntheticSpec(**{**spec.plain(), "standardize": False}), seed=11)
        .draw(n)
        .labels.astype(np.float64)
    )
    u = NODES[:, None] + 0 * NODES[None, :]
    v = p * NODES[:, None] + np.sqrt(1 - p**2) * NODES[None, :]

    def standard(degree, values):
        y = sum(values**m for m in range(1, degree + 1))
        y = y - (BOTH * y).sum()
        return y / np.sqrt((BOTH * y**2).sum())

    sample = np.corrcoef(raw.T)
    for i in range(4):
        variance = spec.covariance[i, i]
        error = variance * np.sqrt(((BOTH * standard(i + 1, u) ** 4).sum() - 1) / n)
        assert abs(raw[:, i].var() - variance) < 4 * error
        for j in range(i):
            r = spec.label_correlation[i, j]
            y, z = standard(i + 1, u), standard(j + 1, v)
            influence = y * z - r / 2 * (y**2 + z**2)
            error = np.sqrt((BOTH * influence**2).sum() / n)
            assert abs(sample[i, j] - r) < 4 * error


def test_2_noise_adds_its_square():
    spec = SyntheticSpec(num_tasks=1, num_features=2, degrees=1, noise=2.0, standardize=False)
    found = SyntheticTable(spec).draw(50_000).labels.var()
    assert abs(found - 5) < 4 * 5 * np.sqrt(2 / 50_000)


def test_3_least_squares_recovers_the_weights():
    spec = SyntheticSpec(degrees=1, noise=0.0, standardize=False)
    table = SyntheticTable(spec, seed=2)
    rows = table.draw(2000)
    found, *_ = np.linalg.lstsq(rows.numeric, rows.labels, rcond=None)
    assert np.abs(found.T - table.weights).max() < 1e-4


def test_4_equal_and_unrelated_tasks():
    spec = SyntheticSpec(degrees=2, correlation=1.0, noise=0.0)
    table = SyntheticTable(spec)
    assert np.abs(table.weights - table.weights[0]).max() < 1e-6
    labels = table.draw(1000).labels
    assert np.abs(labels - labels[:, :1]).max() < 1e-3
    n = 100_000
    for degree in (1, 2, 4):
        spec = SyntheticSpec(
            num_tasks=2, num_features=4, degrees=degree, correlation=0.0, noise=0.0
        )
        found = np.corrcoef(SyntheticTable(spec).draw(n).labels.T)[0, 1]
        assert abs(found) < 4 / np.sqrt(n)


EVERYTHING = {
    "num_tasks": 4,
    "num_features": 9,
    "degrees": [1, 2, 3, 4],
    "kinds": ["numeric", "binary", "multiclass", "numeric"],
    "num_categorical": 3,
    "num_distractors": 2,
    "missing_labels": 0.2,
    "missing_values": 0.1,
}


@pytest.mark.parametrize("layout", ["wide", "long"])
@pytest.mark.parametrize("chunk", [1000, BLOCK, 3 * BLOCK + 17])
def test_5_chunks_equal_one_shot_bit_for_bit(chunk, layout):
    spec = SyntheticSpec(**EVERYTHING, layout=layout)
    rows = 2 * BLOCK + 345
    whole = SyntheticTable(spec, seed=7).draw(rows)
    at = 0
    for piece in SyntheticTable(spec, seed=7).chunks(rows, chunk=chunk):
        assert same(piece, SyntheticTable(spec, seed=7).draw(len(piece), start=at))
        assert piece.labels.tobytes() == whole.labels[at : at + len(piece)].tobytes()
        assert piece.numeric.tobytes() == whole.numeric[at : at + len(piece)].tobytes()
        assert piece.categorical.tobytes() == whole.categorical[at : at + len(piece)].tobytes()
        assert piece.labelled.tobytes() == whole.labelled[at : at + len(piece)].tobytes()
        at += len(piece)
    assert at == rows


def test_5_same_seed_same_bytes_whatever_was_drawn_before():
    spec = SyntheticSpec(**EVERYTHING)
    one, two = SyntheticTable(spec, seed=5), SyntheticTable(spec, seed=5)
    two.draw(100, "test")
    np.random.default_rng().random()
    assert same(one.draw(300), two.draw(300))
    assert not same(one.draw(300), SyntheticTable(spec, seed=6).draw(300))


def test_5_components_do_not_disturb_each_other():
    """Noise and masks switched on leave features alone, and the labels that stay."""
    plain = SyntheticTable(SyntheticSpec()).draw(500)
    masked = SyntheticTable(SyntheticSpec(missing_labels=0.5, missing_values=0.5)).draw(500)
    assert plain.labels.tobytes() == masked.labels.tobytes()
    there = ~np.isnan(masked.numeric)
    assert np.array_equal(masked.numeric[there], plain.numeric[there])
    noisy = SyntheticTable(SyntheticSpec(noise=1.0)).draw(500)
    assert noisy.numeric.tobytes() == plain.numeric.tobytes()
    assert noisy.labels.tobytes() != plain.labels.tobytes()


def test_6_parts_share_weights_and_no_row():
    table = SyntheticTable(SyntheticSpec(degrees=1, noise=0.0, standardize=False))
    drawn = {part: table.draw(BLOCK + 10, part) for part in ("train", "val", "test")}
    for rows in drawn.values():
        np.testing.assert_allclose(rows.labels, rows.numeric @ table.weights.T, atol=1e-5)
    stacked = np.concatenate([rows.numeric for rows in drawn.values()])
    assert len(np.unique(stacked, axis=0)) == len(stacked)


@pytest.mark.parametrize("noise", [0.01, 1.0])
def test_7_standardised_labels_have_unit_variance(noise):
    spec = SyntheticSpec(noise=noise)
    labels = SyntheticTable(spec, seed=0).draw(1_000_000).labels
    np.testing.assert_allclose(labels.var(0), 1, atol=0.02)
    np.testing.assert_allclose(labels.mean(0), 0, atol=0.01)


def test_7_standardising_is_an_affine_map_of_the_raw_labels():
    spec = SyntheticSpec(noise=0.3)
    raw = SyntheticTable(SyntheticSpec(noise=0.3, standardize=False)).draw(2000).labels
    mean, std = np.array(spec.scaling).T
    np.testing.assert_allclose(
        SyntheticTable(spec).draw(2000).labels * std + mean, raw, rtol=1e-4, atol=1e-4
    )


def test_8_missing_labels_and_values():
    shares = [0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 0.9]
    spec = SyntheticSpec(missing_labels=shares, missing_values=0.25, num_categorical=2)
    rows = SyntheticTable(spec).draw(60_000)
    np.testing.assert_allclose(1 - rows.labelled.mean(0), shares, atol=0.01)
    frame = rows.frame()
    assert np.array_equal(frame[list(spec.task_names)].notna().to_numpy(), rows.labelled)
    names = [*spec.numeric_names, *spec.categorical_names]
    np.testing.assert_allclose(frame[names].isna().mean(), 0.25, atol=0.01)


def test_long_rows_carry_one_label():
    spec = SyntheticSpec(layout="long", kinds="binary")
    rows = SyntheticTable(spec).draw(20_000)
    assert np.all(rows.labelled.sum(1) == 1)
    np.testing.assert_allclose(rows.labelled.mean(0), 1 / 7, atol=0.01)
    long = rows.long_frame()
    assert len(long) == 20_000
    task = int(str(long["task"].iloc[5])[4:]) - 1
    assert rows.labelled[5, task]
    assert long["label"].iloc[5] == rows.labels[5, task]
    with pytest.raises(ArgumentError, match="kinds"):
        SyntheticTable(SyntheticSpec(**EVERYTHING)).draw(5).long_frame()


def test_class_balance_is_as_asked():
    spec = SyntheticSpec(
        kinds=["binary"] * 4 + ["multiclass"] * 3,
        positives=[0.01, 0.1, 0.5, 0.9, 0.5, 0.5, 0.5],
        classes=[2, 2, 2, 2, 3, 4, 10],
    )
    labels = SyntheticTable(spec).draw(100_000).labels
    np.testing.assert_allclose(labels[:, :4].mean(0), [0.01, 0.1, 0.5, 0.9], atol=0.007)
    for i, K in ((4, 3), (5, 4), (6, 10)):
        share = np.bincount(labels[:, i].astype(int), minlength=K) / 100_000
        np.testing.assert_allclose(share, 1 / K, atol=0.007)


def test_classes_are_bins_of_the_numeric_label():
    raw = SyntheticTable(SyntheticSpec(standardize=False)).draw(5000).labels
    spec = SyntheticSpec(kinds="multiclass")
    classes = SyntheticTable(spec).draw(5000).labels
    for i, borders in enumerate(spec.thresholds):
        assert np.array_equal(classes[:, i], np.searchsorted(np.float32(borders), raw[:, i]))


def test_categories_are_shuffled_bins_of_equal_frequency():
    spec = SyntheticSpec(num_categorical=2, levels=5)
    plain, binned = (SyntheticTable(s).draw(50_000) for s in (SyntheticSpec(), spec))
    assert list(binned.frame().columns[:3]) == ["c1", "c2", "x1"]
    assert binned.labels.tobytes() == plain.labels.tobytes()
    assert binned.numeric.tobytes() == plain.numeric[:, 2:].tobytes()
    order = []
    for i in range(2):
        share = np.bincount(binned.categorical[:, i]) / 50_000
        np.testing.assert_allclose(share, 0.2, atol=0.01)
        x = plain.numeric[:, i]
        ranges = [x[binned.categorical[:, i] == k] for k in range(5)]
        ends = sorted((r.min(), r.max()) for r in ranges)
        assert all(a[1] <= b[0] for a, b in pairwise(ends))
        order.append(tuple(np.argsort([r.min() for r in ranges])))
    assert order[0] != order[1]


def test_parquet_holds_the_same_rows_and_its_manifest_the_problem(tmp_path):
    spec = SyntheticSpec(**EVERYTHING)
    table = SyntheticTable(spec, seed=9)
    rows = BLOCK + 100
    manifest = table.write_parquet(tmp_path / "a" / "train.parquet", rows, chunk=1000)
    frame = pd.read_parquet(tmp_path / "a" / "train.parquet")
    whole = table.draw(rows).frame()
    assert list(frame.columns) == list(whole.columns)
    for name in whole:
        assert np.array_equal(frame[name].isna(), whole[name].isna())
        there = whole[name].notna()
        assert frame[name][there].tolist() == whole[name][there].tolist(), name
    content = json.loads(manifest.read_text())
    again = SyntheticTable(SyntheticSpec(**content["spec"]), seed=content["seed"])
    assert content["W"] == again.weights.tolist()
    assert content["P"] == spec.matrix.tolist()
    assert (content["rows"], content["part"]) == (rows, "train")
    assert {"degrees", "noise", "scaling", "thresholds"} <= content.keys()
    assert again.draw(50).frame().equals(table.draw(50).frame())


def test_an_unwritable_place_leaves_nothing(tmp_path):
    (tmp_path / "x.parquet").mkdir()
    with pytest.raises(CheckpointWriteError):
        SyntheticTable(SyntheticSpec()).write_parquet(tmp_path / "x.parquet", 10)
    assert [p.name for p in tmp_path.iterdir()] == ["x.parquet"]


def test_refusals():
    table = SyntheticTable(SyntheticSpec())
    with pytest.raises(UnknownNameError, match="Did you mean train"):
        table.draw(1, "trian")
    with pytest.raises(ArgumentError, match="rows"):
        table.draw(-1)
    with pytest.raises(ArgumentError, match="chunk"):
        next(table.chunks(5, chunk=0))
    with pytest.raises(ArgumentError, match="seed"):
        SyntheticTable(SyntheticSpec(), seed=-1)
