from functools import partial

import torch
from dense_laws import ENCODER, SIZE, NetworkLaws, first, scramble, turn, turn_others

from mtl_vision.networks import MTINet
from mtl_vision.networks.mti_net import FeaturePropagation


class TestMTINet(NetworkLaws):
    make = partial(MTINet, width=8)

    def permute(self, state, order):
        names = list(first(3))
        new = [names[i] for i in order]
        found = {}
        for key, value in state.items():
            words = key.split(".")
            if words[0] == "distillation":
                value = turn_others(value, new.index(words[1]), order)
            elif words[0] == "propagation":
                if words[2] == "excite":
                    words[3] = str(order.index(int(words[3])))
                else:
                    value = self.permute_propagation(".".join(words[2:]), value, order)
            found[".".join(words)] = value
        return found

    def permute_propagation(self, key, value, order):
        """The first convolutions read all tasks, the last of the bottleneck writes all."""
        if key.endswith(("residual.0.0.weight", "shortcut.0.weight")):
            return turn(value, 1, order)
        if key.startswith(("logits.residual.2", "logits.residual.3")) and value.ndim:
            return turn(value, 0, order)
        return value


def test_every_scale_predicts_every_task():
    network = MTINet(first(2), encoder="resnet10t").eval()
    with torch.no_grad():
        out = network.run(torch.randn(1, 3, *SIZE))
    for name, task in first(2).items():
        assert out.predictions[name].shape == (1, task.out_channels, 16, 24)
        shapes = [tuple(m.shape[1:]) for m in out.intermediate[name]]
        sizes = [(16, 24), (8, 12), (4, 6), (2, 3)]
        assert shapes == [(task.out_channels, *size) for size in sizes]


def test_maps_of_one_stride_are_spread_over_a_pyramid():
    network = MTINet(first(1), encoder=ENCODER, width=8).eval()
    with torch.no_grad():
        out = network.run(torch.randn(1, 3, *SIZE))
    sizes = [tuple(m.shape[2:]) for m in out.intermediate["semseg"]]
    assert sizes == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert [head.in_channels for head in network.initial_heads["semseg"]] == [8, 16, 32, 64]


def test_propagation_is_a_residual_and_its_masks_weigh_tasks():
    module = FeaturePropagation(3, 8).eval()
    maps = list(torch.randn(3, 2, 8, 4, 5))
    seen = []
    module.reduce.register_forward_hook(lambda m, x, y: seen.append(x[0]))
    with torch.no_grad():
        for excite in module.excite:
            excite.fc2.bias.fill_(-1e4)
        for found, given in zip(module(maps), maps, strict=True):
            assert torch.equal(found, given)
        # Equal logits weigh every task by a third.
        torch.nn.init.zeros_(module.logits.residual[3].weight)
        module([torch.full_like(maps[0], 2.0)] * 3)
    torch.testing.assert_close(seen[1], torch.full((2, 24, 4, 5), 2 / 3))


def test_coarse_scales_reach_fine_ones_and_not_the_other_way():
    network = scramble(MTINet(first(2), encoder="resnet10t", width=8))
    features = network.encode(torch.randn(1, 3, *SIZE))
    maps = [m.detach().requires_grad_() for m in features.maps]
    initial = network.decode(features.with_tensors(maps), "depth").intermediate
    reached = []
    for prediction in initial:
        found = torch.autograd.grad(prediction.sum(), maps, retain_graph=True, allow_unused=True)
        reached.append([g is not None for g in found])
    assert reached == [[j >= i for j in range(4)] for i in range(4)]


def test_one_task_has_no_others_to_distil_from():
    network = MTINet(first(1), encoder=ENCODER, width=8)
    assert list(network.distillation.parameters()) == []


def test_an_auxiliary_tasks_prediction_is_its_finest_initial_one():
    network = scramble(MTINet(first(2), encoder=ENCODER, width=8, auxiliary=("depth",)))
    assert set(network.heads) == {"semseg"}
    with torch.no_grad():
        out = network.run(torch.randn(1, 3, *SIZE))
    assert out.predictions["depth"].shape == (1, 1, 16, 24)
    assert [tuple(m.shape[2:]) for m in out.intermediate["depth"]] == [(8, 12), (4, 6), (2, 3)]
    assert len(out.intermediate["semseg"]) == 4
