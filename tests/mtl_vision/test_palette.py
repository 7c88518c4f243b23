import numpy as np
import pytest

from mtl_vision.palette import oklab, palette


@pytest.mark.parametrize("count", [1, 5, 13, 40])
def test_as_many_distinct_colours_as_asked_for(count):
    colours = palette(count)
    assert len(set(colours)) == count
    assert all(0 <= value <= 255 for colour in colours for value in colour)
    assert palette(count + 3)[:count] == colours


def test_classes_differ_in_sight():
    """Twenty colours stay well above a just noticeable difference (about 0.02 in OKLab)."""
    srgb = np.array(palette(20)) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = oklab(linear)
    distance = np.linalg.norm(seen[:, None] - seen, axis=2)
    assert distance[~np.eye(20, dtype=bool)].min() > 0.06


def test_oklab_of_white_and_black():
    np.testing.assert_allclose(
        oklab(np.array([[1.0, 1, 1], [0, 0, 0]])), [[1, 0, 0], [0, 0, 0]], atol=1e-4
    )
