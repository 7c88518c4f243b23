import numpy as np
import pytest

from mtl_vision.rendering.draws import Draws
from mtl_vision.rendering.furniture import Item, box, cylinder, sphere
from mtl_vision.rendering.raycast import Body, nearest, occluded
from mtl_vision.rendering.scene import Camera, Scene, build
from mtl_vision.rendering.view import _rays

CAMERA = Camera((2.0, 0.1, 1.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0), 0.8)


def body_of(*parts, origin=(2.0, 2.0, 0.0), turn=(1.0, 0.0)) -> Body:
    scene = Scene((4.0, 4.0, 2.5), CAMERA, [], 0.1)
    scene.add("table", Item(tuple(parts), (1.0, 1.0, 1.0)), origin, turn)
    return scene.bodies[0]


def span(body, start, ray):
    rays = [np.array([c], np.float32) for c in ray]
    enter, leave = body.spans(body.local(start, rays))
    return enter[0, 0], leave[0, 0]


@pytest.mark.parametrize(
    ("part", "start", "ray", "expected"),
    [
        (box((-0.5, -0.5, 0), (0.5, 0.5, 1)), (2, 0, 0.5), (0, 1, 0), (1.5, 2.5)),
        (box((-0.5, -0.5, 0), (0.5, 0.5, 1)), (2, 2, 3), (0, 0, -2), (1.0, 1.5)),
        (sphere((0, 0, 1), 0.5), (2, 0, 1), (0, 1, 0), (1.5, 2.5)),
        (sphere((0, 0, 1), 0.5), (2.3, 0, 1), (0, 2, 0), (0.8, 1.2)),
        (cylinder((0, 0), 0.5, (0, 1)), (2.3, 0, 0.5), (0, 1, 0), (1.6, 2.4)),
        (cylinder((0, 0), 0.5, (0, 1)), (2.1, 2, 3), (0, 0, -1), (2.0, 3.0)),
    ],
)
def test_spans_along_axes(part, start, ray, expected):
    assert span(body_of(part), start, ray) == pytest.approx(expected, abs=1e-5)


def test_turned_box_is_met_at_its_corner():
    half = np.sqrt(0.5)
    body = body_of(box((-0.5, -0.5, 0), (0.5, 0.5, 1)), turn=(half, half))
    enter, leave = span(body, (2, 0, 0.5), (1e-4, 1, 0))
    assert (enter, leave) == pytest.approx((2 - half, 2 + half), abs=1e-3)


@pytest.mark.parametrize("part", [sphere((0, 0, 1), 0.5), cylinder((0, 0), 0.5, (0, 1))])
def test_a_ray_that_passes_by_leaves_before_it_enters(part):
    enter, leave = span(body_of(part), (2.6, 0, 0.7), (0, 1, 0))
    assert enter >= leave


def test_windows_hide_nothing():
    for index in range(4):
        scene = build(Draws([5, 0, index]))
        height, width = 40, 56
        rays, _ = _rays(scene, height, width)
        rays = rays.reshape(3, height, width)
        windows = scene.camera.windows(scene.bodies, height, width)
        whole = [(slice(None), slice(None))] * len(windows)
        results = []
        for limits in (windows, whole):
            depth = np.full((height, width), 50.0, np.float32)
            part = nearest(scene.bodies, scene.camera.position, rays, limits, depth)
            results.append((part, depth))
        np.testing.assert_array_equal(results[0][0], results[1][0])
        np.testing.assert_array_equal(results[0][1], results[1][1])
        assert len(np.unique(results[0][0])) > 3


def test_shadow_culling_changes_no_shadow():
    points = np.random.default_rng(0).uniform((0, 0, 0), (5, 5, 2), (3000, 3)).T.astype(np.float32)
    for index in range(4):
        scene = build(Draws([6, 0, index]))
        light = scene.lights[0].position
        rays = points - np.array(light, np.float32)[:, None]
        expected = np.zeros(rays.shape[1], bool)
        for body in scene.bodies:
            if body.casts:
                enter, leave = body.spans(body.local(light, list(rays)))
                expected |= ((enter < leave) & (leave > 0) & (enter < 0.998)).any(0)
        np.testing.assert_array_equal(occluded(scene.bodies, light, rays), expected)
        assert 0 < expected.mean() < 0.9


def test_a_shadow_lies_behind_and_not_in_front():
    body = body_of(box((-0.5, -0.5, 0), (0.5, 0.5, 1)))
    light = (2.0, 2.0, 2.0)
    ends = np.array([[2.0, 2.0, 0.0], [2.0, 2.0, 1.5], [0.1, 2.0, 0.5]]).T
    rays = (ends - np.array(light)[:, None]).astype(np.float32)
    assert occluded([body], light, rays).tolist() == [True, False, False]
