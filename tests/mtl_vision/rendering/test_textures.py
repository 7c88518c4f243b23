import numpy as np

from mtl_vision.rendering import Draws
from mtl_vision.rendering.textures import COLUMNS, PATTERNS, albedo, draw_materials, noise


def test_noise_stays_in_the_unit_interval_and_tiles():
    u = np.linspace(0, 40, 4001, dtype=np.float32)
    values = noise(u, u[::-1].copy())
    assert 0 <= values.min() < 0.2
    assert 0.8 < values.max() <= 1
    period = np.float32(16)  # 128 entries, 8 a unit
    np.testing.assert_array_equal(noise(u, u), noise(u + period, u))


def test_every_pattern_mixes_two_colours():
    patterns, materials = draw_materials(Draws([0]), 4)
    x = np.random.default_rng(0).random((2, 5000), dtype=np.float32) * 8 + 256
    for pattern in PATTERNS:
        mix = pattern(x[0], x[1])
        assert -0.01 <= mix.min() < mix.max() <= 1.01
        assert mix.std() > 0.02
    assert materials.shape == (4, len(COLUMNS))
    assert patterns.max() < len(PATTERNS)


def test_patterns_finer_than_a_pixel_fade_to_one_colour():
    patterns, materials = draw_materials(Draws([1]), 1)
    points = np.random.default_rng(0).random((2, 1000), dtype=np.float32)
    index = np.zeros(1000, np.int64)
    near, far = (
        albedo(materials, patterns, index, *points, np.full(1000, width, np.float32))[0]
        for width in (0.0, 100.0)
    )
    assert far.std(1).max() < 1e-6 < near.std(1).max()
