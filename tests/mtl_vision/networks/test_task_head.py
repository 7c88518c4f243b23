import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mtl_core.tasks import MultiLabel
from mtl_vision.networks.task_head import MapHead, build_head, light_head
from mtl_vision.tasks import DepthEstimation

WIDTH, CLASSES, POSITIONS = 32, 5, 24
MACS = {
    "full": POSITIONS * 16 * (9 * WIDTH**2 + WIDTH * CLASSES),
    "ds": POSITIONS * 16 * (9 * WIDTH + WIDTH**2 + WIDTH * CLASSES),
    "pixelshuffle": POSITIONS * (9 * WIDTH**2 + 16 * WIDTH * CLASSES),
}


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("kind", MACS)
def test_predictions_at_four_times_the_size(kind, norm):
    head = MapHead(WIDTH, CLASSES, kind=kind, norm=norm)
    found = head(torch.randn(2, WIDTH, 4, 6))
    assert found.shape == (2, CLASSES, 16, 24)
    found.square().sum().backward()
    assert all(p.grad is not None for p in head.parameters())


@pytest.mark.parametrize("kind", MACS)
def test_cost_is_the_closed_form(kind):
    head = MapHead(WIDTH, CLASSES, kind=kind).eval()
    with FlopCounterMode(display=False) as counter:
        head(torch.randn(1, WIDTH, 4, 6))
    assert counter.get_total_flops() == 2 * MACS[kind]


def test_pixel_shuffle_starts_without_a_chequerboard():
    found = MapHead(WIDTH, CLASSES, kind="pixelshuffle").eval()(torch.randn(1, WIDTH, 4, 6))
    blocks = found.unfold(2, 4, 4).unfold(3, 4, 4).flatten(-2)
    assert torch.equal(blocks.amin(-1), blocks.amax(-1))


def test_other_factors():
    for kind in MACS:
        head = MapHead(WIDTH, CLASSES, kind=kind, upsample=2)
        assert head(torch.randn(2, WIDTH, 4, 6)).shape == (2, CLASSES, 8, 12)


def test_tasks_of_whole_images_take_the_mean():
    x = torch.randn(2, WIDTH, 4, 6)
    for build in (build_head, light_head):
        found = build(WIDTH, MultiLabel(num_labels=3))(x)
        assert found.shape == (2, 3)
    assert light_head(WIDTH, DepthEstimation())(x).shape == (2, 1, 4, 6)
