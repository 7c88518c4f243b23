"""Laws of dense multi-task networks; a test class derives from `NetworkLaws`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from toys import parameters_of, toy_trainer

from mtl_core.balancing import UW, PCGrad
from mtl_core.data.batch import collate
from mtl_core.errors import UnknownNameError
from mtl_core.hub import from_pretrained, save_pretrained
from mtl_core.modules import MultiTaskModule
from mtl_core.nn import MultiTaskNetwork
from mtl_core.tasks import Task
from mtl_vision.encoders import TimmEncoder
from mtl_vision.tasks import (
    BoundaryDetection,
    DepthEstimation,
    SaliencyDetection,
    SemanticSegmentation,
    SurfaceNormals,
)

TASKS: dict[str, Task] = {
    "semseg": SemanticSegmentation(num_classes=4),
    "depth": DepthEstimation(),
    "normals": SurfaceNormals(),
    "boundary": BoundaryDetection(),
    "saliency": SaliencyDetection(),
}
SIZE = (64, 96)
TINY = {"embed_dim": 24, "depth": 4, "num_heads": 2}
ENCODER = partial(TimmEncoder, "vit_tiny_patch16_224", img_size=SIZE, model_args=TINY)


def first(count: int) -> dict[str, Task]:
    return dict(list(TASKS.items())[:count])


def scramble(network: MultiTaskNetwork) -> MultiTaskNetwork:
    """Parameters and statistics without any symmetry, in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
        for m in network.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.add_(0.1 * torch.randn(m.running_mean.shape, generator=generator))
                m.running_var.mul_(0.5 + torch.rand(m.running_var.shape, generator=generator))
    return network.eval()


def turn(tensor: Tensor, axis: int, order: Sequence[int]) -> Tensor:
    """A tensor that holds a block per task along an axis, with its blocks in another order."""
    blocks = tensor.unflatten(axis, (len(order), -1))
    return blocks.index_select(axis, torch.tensor(order)).flatten(axis, axis + 1)


def turn_others(tensor: Tensor, task: int, order: Sequence[int]) -> Tensor:
    """Likewise for a block per other task along the first axis; `task` counts in the new order."""
    others = [i for i in range(len(order)) if i != order[task]]
    return turn(tensor, 0, [others.index(i) for i in order if i != order[task]])


def random_batch(tasks: Mapping[str, Task], count: int = 2, size: tuple[int, int] = SIZE) -> dict:
    """Images and targets that follow them."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, 3, *size, generator=generator)
    low = nn.functional.avg_pool2d(images, 8)
    smooth = nn.functional.interpolate(low, size=size, mode="bilinear")
    ordered = (smooth[:, :1] > smooth[:, 1:2]).long()[:, 0]
    targets = {
        "semseg": ordered + 2 * (smooth[:, 2] > 0.5).long(),
        "depth": 1 + smooth[:, 0],
        "normals": nn.functional.normalize(smooth - 0.5, dim=1),
        "boundary": ordered,
        "saliency": 1 - ordered,
    }
    return {"inputs": images, "targets": {name: targets[name] for name in tasks}}


class NetworkLaws:
    make: ClassVar[Callable[..., MultiTaskNetwork]]
    """Builds a small network from ``tasks`` and ``encoder=``."""

    def network(self, tasks: Mapping[str, Task], **arguments: object) -> MultiTaskNetwork:
        torch.manual_seed(0)
        return type(self).make(tasks, **{"encoder": ENCODER, **arguments})

    def permute(self, state: dict[str, Tensor], order: Sequence[int]) -> dict[str, Tensor]:
        """State of the network of tasks in another order: position i takes task order[i]."""
        return state

    @pytest.mark.parametrize("count", [1, 2, 3, 5])
    def test_predictions_have_the_inputs_size_and_all_parameters_learn(self, count: int) -> None:
        network = self.network(first(count))
        images = torch.randn(2, 3, *SIZE)
        predictions = network(images)
        assert list(predictions) == list(TASKS)[:count]
        for name, prediction in predictions.items():
            assert prediction.shape == (2, TASKS[name].out_channels, *SIZE)
        out = network.run(images)
        maps = [*out.predictions.values(), *(m for ms in out.intermediate.values() for m in ms)]
        torch.stack([m.square().mean() for m in maps]).sum().backward()
        assert [k for k, p in network.named_parameters() if p.grad is None] == []

    def test_any_size_goes_through_a_convolutional_encoder(self) -> None:
        network = self.network(first(2), encoder="resnet10t").eval()
        with torch.no_grad():
            predictions = network(torch.randn(1, 3, 65, 51))
        assert predictions["depth"].shape == (1, 1, 65, 51)

    def test_samples_do_not_meet(self) -> None:
        network = scramble(self.network(first(2)))
        images = torch.randn(3, 3, *SIZE)
        with torch.no_grad():
            together, alone = network(images), network(images[1:2])
        for name in alone:
            torch.testing.assert_close(together[name][1:2], alone[name], atol=1e-5, rtol=1e-4)

    def test_one_task_is_the_same_alone_and_runs_no_module_of_others(self) -> None:
        network = scramble(self.network(first(3)))
        images = torch.randn(1, 3, *SIZE)
        owners = network._owners()
        ran: list[str] = []
        for module in network.modules():
            if list(module.children()):
                continue
            serves = set().union(*(owners.get(id(p), set()) for p in module.parameters()))
            if len(serves) == 1:
                (task,) = serves
                module.register_forward_hook(lambda *_, task=task: ran.append(task))
        with torch.no_grad():
            together = network.run(images)
            for name in network.tasks:
                ran.clear()
                out = network.run(images, tasks=[name])
                assert set(ran) == {name}
                assert list(out.predictions) == [name]
                assert set(out.intermediate) <= {name}
                expected = together.predictions[name]
                torch.testing.assert_close(out.predictions[name], expected, atol=1e-6, rtol=1e-5)
                assert name in network.required_tasks(name)
        with pytest.raises(UnknownNameError, match="Did you mean depth"):
            network(images, tasks=["dept"])

    def test_parameters_serve_the_tasks_that_they_are_said_to(self) -> None:
        network = scramble(self.network(first(3)))
        out = network.run(torch.randn(2, 3, *SIZE))
        split = network.split_parameters()
        names = {id(p): key for key, p in network.named_parameters()}
        for task in network.tasks:
            maps = [out.predictions[task], *out.intermediate.get(task, ())]
            loss = torch.stack([m.square().mean() for m in maps]).sum()
            parameters = [*split.shared, *split.all_own()]
            found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            reached = {id(p) for p, g in zip(parameters, found, strict=True) if g is not None}
            own = {id(p) for p in split.own[task]}
            shared = {id(p) for p in split.shared}
            assert own <= reached
            assert reached <= own | shared
            assert sorted(names[i] for i in shared - reached) == []

    def test_the_order_of_the_tasks_is_of_no_account(self) -> None:
        order = [2, 0, 1]
        tasks = list(first(3))
        network = scramble(self.network(first(3)))
        other = self.network({tasks[i]: TASKS[tasks[i]] for i in order}).eval()
        other.load_state_dict(self.permute(network.state_dict(), order))
        images = torch.randn(1, 3, *SIZE)
        with torch.no_grad():
            expected, found = network(images), other(images)
        assert list(found) == [tasks[i] for i in order]
        for name in tasks:
            torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("balancer", [UW, PCGrad])
    def test_it_trains(self, balancer: type) -> None:
        tasks = first(3)
        module = MultiTaskModule(tasks, self.network, partial(torch.optim.SGD, lr=1e-3))
        batch = random_batch(tasks, 4)
        images, targets = batch["inputs"], batch["targets"]
        samples = [
            {"inputs": images[i], "targets": {name: t[i] for name, t in targets.items()}}
            for i in range(4)
        ]
        before = parameters_of(module.network)
        loader = DataLoader(samples, 2, collate_fn=collate)
        toy_trainer(balancer(), max_epochs=1).fit(module, loader, loader)
        after = parameters_of(module.network)
        assert torch.isfinite(after).all()
        assert (after != before).float().mean() > 0.9

    def test_a_saved_network_predicts_the_same(self, tmp_path) -> None:
        network = scramble(self.network(first(2)))
        loaded = from_pretrained(save_pretrained(network, tmp_path / "saved"))
        images = torch.randn(1, 3, *SIZE)
        with torch.no_grad():
            expected, found = network(images), loaded(images)
        for name in expected:
            assert torch.equal(found[name], expected[name])

    def test_parts_to_compile_hold_every_parameter_once(self) -> None:
        network = self.network(first(2))
        parts = network.compiled_parts()
        assert not any(isinstance(part, nn.ModuleDict | nn.ModuleList) for part in parts)
        found = [id(p) for part in parts for p in part.parameters()]
        assert len(found) == len(set(found))
        missing = [name for name, p in network.named_parameters() if id(p) not in set(found)]
        # Parameters that no module holds cannot be compiled with one.
        assert all(name.endswith(("cls_token", "pos_embed")) for name in missing)

    @pytest.mark.slow
    def test_two_images_are_learned_by_heart(self) -> None:
        tasks = {name: TASKS[name] for name in ("semseg", "depth")}
        network = self.network(tasks)
        generator = torch.Generator().manual_seed(2)
        images = torch.rand(2, 3, *SIZE, generator=generator)
        # What even the coarsest decoder can show: a class an image, and depth at stride 32.
        coarse = 1 + 4 * torch.rand(2, 1, 2, 3, generator=generator)
        depth = nn.functional.interpolate(coarse, SIZE, mode="bilinear")
        semseg = torch.tensor([0, 2]).view(2, 1, 1).expand(2, *SIZE)
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        values = []
        for _ in range(200):
            predictions = network(images)
            loss = nn.functional.cross_entropy(predictions["semseg"], semseg)
            loss = loss + (predictions["depth"] - depth).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            values.append(loss.item())
            if values[-1] < 0.1 * values[0]:
                return
        pytest.fail(f"the loss went from {values[0]:.3f} to {values[-1]:.3f} only")


def published_cost(make: Callable[..., MultiTaskNetwork], tasks: Sequence[str]) -> float:
    """Billions of multiply-accumulates at 480×640 with a dilated ResNet-50, all its heads but one.

    As the tables of M³ViT (Liang et al., NeurIPS 2022) count networks for NYUD's two tasks.
    """
    encoder = partial(TimmEncoder, "resnet50", output_stride=8)
    nyud = {"semseg": SemanticSegmentation(num_classes=40), "depth": DepthEstimation()}
    with torch.device("meta"):
        network = make({name: nyud[name] for name in tasks}, encoder=encoder).eval()
        images = torch.randn(1, 3, 480, 640)
    for name in tasks[1:]:
        network.decoders[name] = nn.Identity()
        network.decoders[name].forward = lambda features: features.maps[-1]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.run(images)
    return counter.get_total_flops() / 2e9
