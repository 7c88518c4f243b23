"""Experts outside of windows go without a trace; others go with a loss that is known."""

import pytest
import torch
from toy_experts import LAYER, make_network

from export.moe import MoESettings, convert, moe_layers
from export.prune import NOTHING, PruningError, can_remove, check_loss, measure_usage, prepare
from mtl_core.errors import UnknownNameError
from mtl_vision.tasks import DepthEstimation, SemanticSegmentation

WINDOWS = {"depth": [0, 2, 5]}


@pytest.fixture(scope="module")
def batches():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(2, 3, 32, 32, generator=generator) for _ in range(2)]


def test_outside_of_windows_removal_is_exact(batches):
    """Property 7: no difference at all to the windowed model in the same form."""
    network = make_network(task_windows=WINDOWS)
    assert can_remove(network, "depth") == {LAYER: [1, 3, 4]}
    whole = convert(network, "depth", MoESettings(form="dense"))
    settings, notes = prepare(network, "depth", MoESettings(form="dense", keep="window"), batches)
    small = convert(network, "depth", settings)
    assert len(small.network.get_submodule(LAYER).experts) == 3
    assert small.layers[0]["experts"] == [0, 2, 5]
    assert small.layers[0]["exact"]
    assert notes[0]["tokens"] == 5
    with torch.no_grad():
        for images in batches:
            found = small.network(images, tasks=["depth"])["depth"]
            assert torch.equal(found, whole.network(images, tasks=["depth"])["depth"])
            torch.testing.assert_close(found, network(images, tasks=["depth"])["depth"])


def test_without_windows_nothing_can_be_removed(batches):
    network = make_network(task_windows=WINDOWS)
    assert can_remove(network, "semseg") == {}
    with pytest.raises(PruningError, match=NOTHING):
        prepare(network, "semseg", MoESettings(keep="window"), batches)


def test_experts_are_ranked_by_the_gates_that_they_get(batches):
    network = make_network()
    usage = measure_usage(network, "depth", batches)[LAYER]
    seen = []
    router = moe_layers(network)[LAYER].router
    handle = router.register_forward_hook(lambda m, args, out: seen.append(out))
    with torch.no_grad():
        network(torch.cat(batches), tasks=["depth"])
    handle.remove()
    (out,) = seen
    mass = [float(out.gate[out.idx == e].sum()) for e in range(6)]
    assert usage.mass.tolist() == pytest.approx(mass, rel=1e-5)
    assert usage.ranking == sorted(range(6), key=lambda e: -mass[e])
    lengths = torch.stack([torch.bincount(i.flatten(), minlength=6) for i in out.idx])
    assert torch.equal(usage.lengths, lengths)
    assert usage.longest == lengths.max()
    assert usage.overflow_rate(usage.longest) == 0
    wanted = float((lengths - 1).clamp_min(0).sum() / lengths.sum())
    assert usage.overflow_rate(1) == pytest.approx(wanted)
    assert not router._forward_hooks
    with pytest.raises(UnknownNameError, match="Did you mean depth"):
        measure_usage(network, "dept", batches)


def test_lossy_settings_have_a_ranking_of_the_task(batches):
    network = make_network()
    settings, _ = prepare(network, "semseg", MoESettings(keep=3), batches)
    best = measure_usage(network, "semseg", batches)[LAYER].ranking[:3]
    (note,) = convert(network, "semseg", settings).layers
    assert note["experts"] == sorted(best)
    assert not note["exact"]


def test_capacities_come_from_the_longest_queue(batches):
    network = make_network()
    settings, notes = prepare(network, "depth", MoESettings(form="capacity"), batches)
    longest = measure_usage(network, "depth", batches)[LAYER].longest
    assert settings.capacities == {LAYER: longest}
    assert notes == [{"layer": LAYER, "tokens": 5, "calibrated_max": longest, "overflow_rate": 0.0}]
    found = convert(network, "depth", settings).network
    with torch.no_grad():
        for images in batches:
            wanted = network(images, tasks=["depth"])["depth"]
            torch.testing.assert_close(found(images, tasks=["depth"])["depth"], wanted)
    _, notes = prepare(network, "depth", MoESettings(form="capacity", capacity_factor=0.5), batches)
    assert notes[0]["overflow_rate"] > 0


def test_a_loss_above_the_bound_is_refused():
    tasks = {"semseg": SemanticSegmentation(num_classes=3), "depth": DepthEstimation()}
    before = {"semseg": {"miou": 0.8}, "depth": {"rmse": 2.0}}
    worse = {"semseg": {"miou": 0.7}, "depth": {"rmse": 2.1}}
    primaries = {name: task.primary for name, task in tasks.items()}
    before = {n: {primaries[n]: next(iter(v.values()))} for n, v in before.items()}
    worse = {n: {primaries[n]: next(iter(v.values()))} for n, v in worse.items()}
    found = check_loss(tasks, before, worse, 0.2)
    assert found == pytest.approx({"semseg": 0.1, "depth": 0.05})
    with pytest.raises(PruningError, match=r"semseg by 0\.1"):
        check_loss(tasks, before, worse, 0.06)
    with pytest.raises(PruningError, match="labels"):
        check_loss(tasks, {}, worse)
