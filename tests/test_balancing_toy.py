"""The toy problem of the CAGrad paper: where methods get to, as the specification has it."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl_core.balancing import IMTLG, MGDA, CAGrad, NashMTL, PCGrad

ROOT = Path(__file__).parents[1]
EXAMPLE = runpy.run_path(str(ROOT / "examples/balancing_toy.py"))
METHODS = {
    "sum": lambda: None,
    "MGDA": MGDA,
    "PCGrad": PCGrad,
    "CAGrad": lambda: CAGrad(c=0.4),
    "IMTLG": IMTLG,
    "NashMTL": NashMTL,
}
# After 1000 steps of Adam at the learning rate 0.001.
NEAR = (-7.5, -0.5)
POINTS = {
    ((-8.5, 7.5), "sum"): (-7.436, 6.244),
    ((-8.5, 7.5), "NashMTL"): (-7.5032, 6.2784),
    ((9.0, 9.0), "sum"): (7.9459, 7.7423),
    (NEAR, "sum"): (-6.3378, -1.4542),
    (NEAR, "MGDA"): (-6.2784, -2.1273),
    (NEAR, "PCGrad"): (-6.8329, -1.5263),
    (NEAR, "CAGrad"): (-6.4490, -1.5408),
    (NEAR, "IMTLG"): (-6.3381, -1.8685),
    (NEAR, "NashMTL"): (-6.5932, -1.6421),
}


def cosine(point, scale=1.0):
    _, (first, second) = EXAMPLE["problem"](*point, scale=scale)
    return first @ second / np.linalg.norm(first) / np.linalg.norm(second)


def test_slopes_are_those_of_the_losses():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-9, 9, (2, 50))
    _, jacobian = EXAMPLE["problem"](a, b, scale=0.1)
    for i, (da, db) in enumerate(((1e-6, 0), (0, 1e-6))):
        above, _ = EXAMPLE["problem"](a + da, b + db, scale=0.1)
        below, _ = EXAMPLE["problem"](a - da, b - db, scale=0.1)
        np.testing.assert_allclose(jacobian[:, i], (above - below) / 2e-6, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("start", "name"), POINTS)
def test_points_after_a_thousand_steps(start, name):
    found = EXAMPLE["path"](METHODS[name](), start, steps=1000)[-1]
    np.testing.assert_allclose(found, POINTS[start, name], atol=1.5e-4)


@pytest.mark.parametrize("start", [(-8.5, 7.5), (9.0, 9.0)])
def test_the_plain_sum_gets_stuck(start):
    """In a ravine at |a| = 5, far above the set of compromises at b = -8.4."""
    points = EXAMPLE["path"](None, start, steps=6000)
    assert abs(abs(points[-1, 0]) - 5.02) < 0.06
    assert points[-1, 1] > 2.5
    assert np.abs(points[-1] - points[-1000]).max() < 0.1
    assert cosine(points[-1]) > -0.99


@pytest.mark.slow
def test_methods_end_at_compromises_and_nash_does_not_see_the_scale():
    """Fifty times the learning rate, so that few steps reach the end."""
    ends = {
        (name, scale): EXAMPLE["path"](METHODS[name](), NEAR, steps=1000, lr=0.05, scale=scale)[-1]
        for name, scale in (("MGDA", 1.0), ("IMTLG", 1.0), ("NashMTL", 1.0), ("NashMTL", 0.1))
    }
    for (name, scale), point in ends.items():
        assert cosine(point, scale) < -0.999, name
        assert -7 <= point[0] <= 7
        assert -8.45 <= point[1] <= -8.2
    np.testing.assert_allclose(ends["NashMTL", 1.0], ends["NashMTL", 0.1], atol=2e-2)
    np.testing.assert_allclose(ends["NashMTL", 1.0], (-3.268, -8.373), atol=2e-2)


def test_the_example_draws(tmp_path, monkeypatch, capsys):
    out = tmp_path / "toy.png"
    words = ["--methods", "Equal", "PCGrad", "GradDrop", "--steps", "20", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["balancing_toy.py", *words])
    EXAMPLE["main"]()
    assert "PCGrad" in capsys.readouterr().out
    picture = np.asarray(Image.open(out).convert("L"))
    assert picture.min() < 100 < 200 < picture.max()


@pytest.mark.parametrize("name", EXAMPLE["methods"]())
def test_every_method_takes_some_steps(name):
    points = EXAMPLE["path"](EXAMPLE["methods"]()[name](), (0.0, 0.0), steps=5)
    assert np.isfinite(points).all()
    assert not np.array_equal(points[0], points[-1])


def test_compromises_lie_where_they_are_said_to():
    points = EXAMPLE["best_compromises"]()
    middle = points[len(points) // 2]
    np.testing.assert_allclose(middle, (0, -8.355), atol=2e-3)
    np.testing.assert_allclose(np.abs(points[[0, -1]]), [(7, 8.434)] * 2, atol=2e-3)
