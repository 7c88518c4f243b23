"""Stages are tested around two rules: the plain sum, and one that weighs the first row only."""

import pytest
import torch
from torch import Tensor

from mtl_core.balancing import GradientBalancer, PCGrad
from mtl_core.balancing.stages import Stages
from mtl_core.errors import ArgumentError, BalancerError, UnknownNameError


class Sum(GradientBalancer):
    def weigh(self, gramian, losses, step):
        self.seen, self.losses = gramian, losses
        return torch.ones_like(losses)


class Mean(Sum):
    """Consensus gain one."""

    def weigh(self, gramian, losses, step):
        return super().weigh(gramian, losses, step) / len(losses)

    def gain(self, tasks):
        return 1.0


class Drawn(Sum):
    """Other weights at every update."""

    def weigh(self, gramian, losses, step):
        return torch.rand(len(losses), generator=step.generator, dtype=torch.float64)


def rows(tasks: int = 3, n: int = 7, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tasks, n, generator=generator, dtype=torch.float64)


def direction(method, jacobian: Tensor, losses: Tensor | None = None) -> Tensor:
    return method.direction(jacobian.float(), losses).double()


def test_scale_sum_agrees_with_the_plain_sum_at_consensus():
    jacobian = rows(1).expand(4, 7)
    for stages, gain in ((Stages(), 4.0), (Stages(scale="paper"), 1.0)):
        torch.testing.assert_close(direction(Mean(stages=stages), jacobian), gain * jacobian[0])


@pytest.mark.parametrize("row_scale", ["none", "l2", "loss", "loss+", "ema_l2"])
def test_row_scaling_keeps_the_consensus(row_scale):
    """Equal rows of equal losses stay the plain sum, whatever they are divided by."""
    jacobian, losses = rows(1).expand(3, 7), torch.full((3,), 0.2)
    found = direction(Sum(stages=Stages(row_scale=row_scale)), jacobian, losses)
    torch.testing.assert_close(found, 3 * jacobian[0])


@pytest.mark.parametrize(
    ("row_scale", "power"), [("l2", 0), ("loss", 0), ("loss+", -1), ("none", 1)]
)
def test_rescaling_a_loss(row_scale, power):
    """A task's loss times a multiplies its row and its loss; its part of the sum by a^power."""
    jacobian, losses = rows(), torch.tensor([0.5, 2.0, 1.0])
    factor = torch.tensor([1.0, 1.0, 8.0])
    stages = Stages(row_scale=row_scale, scale="paper")
    method = Sum(stages=stages)
    before = method.solve(jacobian @ jacobian.T, losses)
    scaled = jacobian * factor.double()[:, None]
    after = method.solve(scaled @ scaled.T, losses * factor) * factor
    torch.testing.assert_close(after, before * factor.double() ** power)


def test_ema_lengths_move_slowly():
    method = Sum(stages=Stages(row_scale="ema_l2", scale="paper"))
    gramian = torch.eye(2, dtype=torch.float64)
    assert method.solve(gramian).tolist() == [1.0, 1.0]
    found = method.solve(gramian * torch.tensor([4.0, 1.0]))
    torch.testing.assert_close(found, torch.tensor([1 / 1.1, 1.0], dtype=torch.float64))


def test_log_transform_divides_rows_by_losses_and_decoders_follow():
    jacobian, losses = rows(), torch.tensor([0.5, 2.0, 4.0])
    method = Sum(stages=Stages(transform="log"))
    weights = method.solve(jacobian @ jacobian.T, losses)
    torch.testing.assert_close(weights, 1 / losses.double())
    torch.testing.assert_close(method.losses, losses.double().log())
    found = method.update(jacobian, losses.double(), method.step(method.entries))
    torch.testing.assert_close(found.decoders, 1 / losses.double())
    with pytest.raises(BalancerError, match="need positive losses, but that of 1 is -2"):
        method.solve(jacobian @ jacobian.T, torch.tensor([0.5, -2.0, 4.0]))


def test_learned_scales_end_at_the_inverse_loss():
    losses = torch.tensor([0.5, 2.0])
    method = Sum(stages=Stages(transform="exp_scale"))
    for _ in range(400):
        weights = method.solve(torch.eye(2), losses)
    torch.testing.assert_close(weights, 1 / losses.double(), atol=1e-3, rtol=0)


def test_weights_are_averaged_over_steps():
    gramian = torch.eye(2)
    plain, smooth = Drawn(seed=3), Drawn(seed=3, stages=Stages(ema=0.9))
    first, second = plain.solve(gramian), plain.solve(gramian)
    torch.testing.assert_close(smooth.solve(gramian), first)
    torch.testing.assert_close(smooth.solve(gramian), 0.9 * first + 0.1 * second)


def test_weights_are_clamped():
    jacobian = rows()
    method = Sum(stages=Stages(transform="log", clamp=(0.0, 0.5)))
    found = method.solve(jacobian @ jacobian.T, torch.ones(3))
    assert found.tolist() == [0.5] * 3


def test_length_of_the_update():
    jacobian = rows()
    total = jacobian.sum(0)
    found = direction(Mean(stages=Stages(norm="sum", scale="paper")), jacobian)
    torch.testing.assert_close(found, total)
    found = direction(Sum(stages=Stages(norm="max", max_norm=0.1)), jacobian)
    torch.testing.assert_close(found, 0.1 * total / total.norm())
    found = direction(Sum(stages=Stages(norm="max", max_norm=1e6)), jacobian)
    torch.testing.assert_close(found, total)


def test_a_stationary_update_is_not_blown_up():
    jacobian = torch.tensor([[1.0, 0.0], [-1.0, 1e-9]])
    found = direction(Mean(stages=Stages(norm="sum")), jacobian)
    assert found.norm() < 1e-6


def test_a_limit_binds_the_trunk_and_not_the_decoders():
    stages = Stages(norm="max", max_norm=0.1, weight_decoders=True)
    method, jacobian = Sum(stages=stages), rows()
    method.start("abc")
    found = method.update(jacobian, torch.ones(3).double(), method.step(method.entries))
    assert found.decoders.tolist() == [1.0] * 3
    torch.testing.assert_close(found.direction.norm(), found.direction.new_tensor(0.1))


def test_state_goes_on_after_a_round_trip():
    stages = Stages(row_scale="ema_l2", ema=0.5, transform="exp_scale")
    losses = torch.tensor([0.5, 2.0, 1.0])
    jacobians = [rows(seed=s) for s in range(6)]
    method = Drawn(stages=stages)
    for jacobian in jacobians[:3]:
        method.direction(jacobian, losses)
    other = Drawn(stages=stages)
    other.load_state_dict(method.state_dict())
    other.start(method.entries)
    other.load_state_dict(method.state_dict())
    for jacobian in jacobians[3:]:
        assert torch.equal(method.direction(jacobian, losses), other.direction(jacobian, losses))


def test_not_finite_rows_give_no_update_and_leave_the_state():
    method = PCGrad(stages=Stages(ema=0.5))
    method.direction(rows())
    before = str(method.state_dict())
    broken = rows()
    broken[1, 2] = float("nan")
    assert method.direction(broken).isnan().all()
    assert method.solve(broken @ broken.T).isnan().all()
    assert str(method.state_dict()) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"refresh": 0}, "stages.refresh must be at least 1"),
        ({"ema": 1.0}, r"stages.ema must lie in \[0, 1\)"),
        ({"max_norm": 0.0}, "stages.max_norm must be positive"),
        ({"clamp": (1.0, 0.0)}, "stages.clamp must be a pair"),
        ({"layer": "trunk"}, "stages.layer must go with gram: last_layer"),
        ({"group": "layer", "gram": "feature"}, "stages.gram must be exact or batched"),
        ({"group": "layer", "weight_decoders": True}, "weight_decoders must be false"),
        ({"group": "layer", "refresh": 2}, "stages.refresh must be 1"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ArgumentError, match=message):
        Stages(**options)


def test_unknown_choices_name_the_nearest():
    with pytest.raises(UnknownNameError, match="last_layer"):
        Stages(gram="lastlayer")
