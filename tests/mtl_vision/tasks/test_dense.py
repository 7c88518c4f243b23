import pytest
import torch
from torchmetrics import MetricCollection

from mtl_core.errors import ArgumentError, LabelError, MixedProtocolError
from mtl_core.tasks import check_tasks, reduce_loss
from mtl_vision.tasks import (
    IGNORE,
    BoundaryDetection,
    DepthEstimation,
    HumanParts,
    SaliencyDetection,
    SemanticSegmentation,
    SurfaceNormals,
)
from mtl_vision.tasks.dense import weighted_binary_loss

SIZE = (6, 9)
TASKS = [
    SemanticSegmentation(num_classes=5, protocol="atrc"),
    SemanticSegmentation(num_classes=5, protocol="libmtl"),
    HumanParts(protocol="survey"),
    DepthEstimation(protocol="survey"),
    DepthEstimation(protocol="libmtl"),
    SurfaceNormals(protocol="survey"),
    SurfaceNormals(protocol="atrc"),
    SurfaceNormals(protocol="libmtl"),
    BoundaryDetection(),
    SaliencyDetection(protocol="survey"),
    SaliencyDetection(protocol="atrc", double_sigmoid=True),
]
tasks = pytest.mark.parametrize("task", TASKS, ids=lambda t: f"{type(t).__name__}-{t.protocol}")


def unlabelled(task, b=2):
    if isinstance(task, SurfaceNormals):
        return torch.zeros(b, 3, *SIZE)
    if isinstance(task, DepthEstimation):
        return torch.zeros(b, *SIZE)
    return torch.full((b, *SIZE), IGNORE, dtype=torch.uint8)


def labelled(task, b=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    if isinstance(task, SurfaceNormals):
        return torch.nn.functional.normalize(torch.randn(b, 3, *SIZE, generator=g), dim=1)
    if isinstance(task, DepthEstimation):
        return torch.rand(b, *SIZE, generator=g) * 5 + 0.5
    classes = task.num_classes if isinstance(task, SemanticSegmentation) else 2
    return torch.randint(classes, (b, *SIZE), generator=g, dtype=torch.uint8)


def holed(task, b=2, seed=0):
    """Labelled, except for a region of every sample."""
    target = labelled(task, b, seed)
    target[..., :2, :] = unlabelled(task, b)[..., :2, :]
    return target


def prediction(task, b=2, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(b, task.out_channels, *SIZE, generator=g)


def batch_loss(task, raw, target):
    valid = task.valid(target)
    total, count = reduce_loss(task.element_loss(raw, target, valid), valid)
    return total.sum() / count.sum().clamp(min=1)


@tasks
def test_without_labels_the_loss_is_zero_and_its_gradient_finite(task):
    raw = prediction(task).requires_grad_()
    loss = batch_loss(task, raw, unlabelled(task))
    loss.backward()
    assert loss == 0
    assert raw.grad is not None
    assert (raw.grad == 0).all()


@tasks
def test_doubling_the_batch_leaves_the_mean_loss(task):
    raw, target = prediction(task), holed(task)
    twice = batch_loss(task, torch.cat([raw, raw]), torch.cat([target, target]))
    torch.testing.assert_close(twice, batch_loss(task, raw, target))


@tasks
def test_unlabelled_pixels_change_neither_loss_nor_metrics(task):
    target, raw = holed(task), prediction(task)
    other = torch.where(task.valid(target)[:, None], raw, raw.flip(0) * 3 - 1)
    torch.testing.assert_close(batch_loss(task, other, target), batch_loss(task, raw, target))
    if isinstance(task, BoundaryDetection):
        return  # predictions beside an ignored region take part in finding ridges
    for metric, same in zip(task.metrics().values(), task.metrics().values(), strict=True):
        metric.update(task.activate(raw), target, valid=task.valid(target))
        same.update(task.activate(other), target, valid=task.valid(target))
        torch.testing.assert_close(metric.compute(), same.compute())


@tasks
def test_metrics_do_not_depend_on_batches_and_processes(task):
    raw, target = prediction(task, 5), holed(task, 5)
    activated, valid = task.activate(raw), task.valid(target)
    for name in task.metrics():
        whole, pieces, other = (task.metrics()[name] for _ in range(3))
        whole.update(activated, target, valid=valid)
        for part in (slice(0, 1), slice(1, 3)):
            pieces.update(activated[part], target[part], valid=valid[part])
        other.update(activated[3:], target[3:], valid=valid[3:])
        for state, reduce in pieces._reductions.items():
            assert reduce is not None, "states are summed over processes"
            merged = reduce(torch.stack([getattr(pieces, state), getattr(other, state)]))
            torch.testing.assert_close(merged, getattr(whole, state))
        pieces.merge_state(other)
        torch.testing.assert_close(pieces.compute(), whole.compute())


@tasks
def test_metrics_of_a_task_in_one_collection_equal_those_alone(task):
    """Collections merge metrics with equal states; an unlabelled batch must not mislead them."""
    alone, together = task.metrics(), MetricCollection(dict(task.metrics()))
    for target in (unlabelled(task), holed(task)):
        task.update(together, prediction(task), target, task.valid(target))
        for metric in alone.values():
            metric.update(task.activate(prediction(task)), target, valid=task.valid(target))
    for name, value in together.compute().items():
        torch.testing.assert_close(value, alone[name].compute())


@tasks
def test_metrics_of_nothing_are_nan(task):
    target = unlabelled(task)
    for metric in task.metrics().values():
        metric.update(task.activate(prediction(task)), target, valid=task.valid(target))
        assert metric.compute().isnan()


@tasks
def test_primary_is_a_metric_with_a_direction(task):
    assert task.primary in task.metrics()
    assert set(task.higher_is_better()) == set(task.metrics())


@tasks
def test_match_resamples_to_the_target(task):
    target = holed(task)
    low = torch.ones(2, task.out_channels, 2, 3)
    assert task.match(low, target).shape == (2, task.out_channels, *SIZE)
    assert (task.match(low, target) == 1).all()


def test_match_is_bilinear_with_corners_not_aligned():
    ramp = torch.tensor([[[[0.0, 1.0]]]]).bfloat16()
    wide = DepthEstimation().match(ramp, torch.zeros(1, 1, 4))
    assert wide.dtype == torch.float32
    torch.testing.assert_close(wide, torch.tensor([[[[0, 0.25, 0.75, 1]]]]))


@tasks
def test_check_accepts_good_targets_and_refuses_other_shapes(task):
    task.check(labelled(task))
    task.check(holed(task))
    task.check(unlabelled(task))
    with pytest.raises(LabelError, match="be maps"):
        task.check(labelled(task)[0])


@tasks
def test_half_precision_predictions_give_float32_losses(task):
    target = holed(task)
    loss = task.element_loss(prediction(task).bfloat16(), target, task.valid(target))
    assert loss.dtype == torch.float32
    assert loss.shape == task.valid(target).shape


@pytest.mark.parametrize("kind", [BoundaryDetection, SaliencyDetection, HumanParts])
def test_libmtl_does_not_define_it(kind):
    with pytest.raises(ArgumentError, match="protocol must be survey or atrc"):
        kind(protocol="libmtl")


def test_protocols_do_not_mix():
    mixed = {"a": DepthEstimation(protocol="survey"), "b": SurfaceNormals(protocol="atrc")}
    with pytest.raises(MixedProtocolError):
        check_tasks(mixed)


def test_weighted_binary_loss_equals_its_closed_forms():
    z, y = torch.randn(3, 4, 5) * 3, torch.rand(3, 4, 5) > 0.6
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    torch.testing.assert_close(
        weighted_binary_loss(z, y, 0.5), 0.5 * bce(z, y.float(), reduction="none")
    )
    w = 0.95
    with_factor = (1 - w) * bce(
        z, y.float(), pos_weight=torch.tensor(w / (1 - w)), reduction="none"
    )
    torch.testing.assert_close(weighted_binary_loss(z, y, w), with_factor)
