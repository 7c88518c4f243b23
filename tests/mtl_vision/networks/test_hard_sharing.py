import copy
import json
import textwrap
from collections.abc import Callable, Mapping
from functools import partial

import pytest
import torch
from jsonargparse import ArgumentParser

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.modules.compiling import compile_parts
from mtl_core.nn import LinearDecoder, MultiTaskNetwork
from mtl_core.tasks import Classification, MultiLabel, Task
from mtl_vision.decoders import ASPPDecoder, FPNDecoder, LinearMapDecoder, MLPDecoder
from mtl_vision.encoders import TimmEncoder
from mtl_vision.networks import HardSharing
from mtl_vision.tasks import (
    BoundaryDetection,
    DepthEstimation,
    SaliencyDetection,
    SemanticSegmentation,
    SurfaceNormals,
)

TASKS = {
    "semseg": SemanticSegmentation(num_classes=4),
    "depth": DepthEstimation(),
    "normals": SurfaceNormals(),
    "boundary": BoundaryDetection(),
    "saliency": SaliencyDetection(),
}
TINY = {"embed_dim": 24, "depth": 4, "num_heads": 2}
ENCODER = partial(TimmEncoder, "vit_tiny_patch16_224", img_size=(64, 96), model_args=TINY)


def first(count):
    return dict(list(TASKS.items())[:count])


def network(tasks, **arguments):
    torch.manual_seed(0)
    arguments = {"encoder": ENCODER, "decoder": partial(FPNDecoder, width=16), **arguments}
    return HardSharing(tasks, **arguments)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_predictions_have_the_inputs_size_and_run_keeps_the_decoders(count):
    net = network(first(count))
    images = torch.randn(2, 3, 64, 96)
    predictions = net(images)
    raw = net.run(images).predictions
    assert list(predictions) == list(TASKS)[:count]
    for name, task in first(count).items():
        assert predictions[name].shape == (2, task.out_channels, 64, 96)
        assert raw[name].shape == (2, task.out_channels, 16, 24)
    sum(p.square().mean() for p in predictions.values()).backward()
    assert [k for k, p in net.named_parameters() if p.grad is None] == []


def test_any_size_goes_through_a_convolutional_encoder():
    net = network(first(2), encoder="resnet10t").eval()
    with torch.no_grad():
        assert net(torch.randn(1, 3, 65, 51))["depth"].shape == (1, 1, 65, 51)


def test_only_the_decoders_of_the_chosen_tasks_run():
    net = network(TASKS)
    calls = []
    for name, decoder in net.decoders.items():
        decoder.register_forward_hook(lambda *_, name=name: calls.append(name))
    chosen = net(torch.randn(1, 3, 64, 96), tasks=["normals", "depth"])
    assert calls == list(chosen) == ["depth", "normals"]
    with pytest.raises(UnknownNameError, match="Did you mean depth"):
        net(torch.randn(1, 3, 64, 96), tasks=["dept"])


def test_a_tasks_prediction_does_not_depend_on_who_else_is_asked():
    net = network(TASKS).eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        together = net(images)
        for name in TASKS:
            assert torch.equal(net(images, tasks=[name])[name], together[name])


def test_parameters_are_either_shared_or_one_tasks():
    net = network(first(3))
    shared = {id(p) for p in net.shared_parameters()}
    own = [{id(p) for p in net.task_parameters(name)} for name in net.tasks]
    assert shared == {id(p) for p in net.encoder.parameters()}
    assert sum(len(part) for part in [shared, *own]) == len(set().union(shared, *own))
    assert set().union(shared, *own) == {id(p) for p in net.parameters()}


def test_gradients_through_the_cut_add_up_to_ordinary_ones():
    net = network(first(3)).eval()
    images = torch.randn(2, 3, 64, 96)
    sum(p.square().mean() for p in net.run(images).predictions.values()).backward()
    ordinary = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    out = net.run(images, cut=True)
    for prediction in out.predictions.values():
        prediction.square().mean().backward()
    assert all(p.grad is None for p in net.shared_parameters())
    for features in out.cut.values():
        pairs = [
            (border, copy.grad)
            for border, copy in zip(out.features.tensors(), features.tensors(), strict=True)
            if copy.grad is not None
        ]
        torch.autograd.backward(*map(list, zip(*pairs, strict=True)), retain_graph=True)
    for parameter, expected in zip(net.parameters(), ordinary, strict=True):
        torch.testing.assert_close(parameter.grad, expected, atol=1e-6, rtol=1e-4)


def test_tasks_of_whole_images_take_the_linear_decoder():
    tasks = {"depth": TASKS["depth"], "scene": Classification(num_classes=3)}
    tasks["present"] = MultiLabel(num_labels=4)
    net = network(tasks)
    assert isinstance(net.decoders["scene"], LinearDecoder)
    assert {k: tuple(v.shape[1:]) for k, v in net(torch.randn(2, 3, 64, 96)).items()} == {
        "depth": (1, 64, 96),
        "scene": (3,),
        "present": (4,),
    }
    with pytest.raises(ArgumentError, match="must be dense"):
        network(tasks, decoders={"scene": FPNDecoder})


def test_exceptions_by_task_name():
    net = network(first(3), decoders={"depth": partial(ASPPDecoder, width=8)})
    kinds = [type(d) for d in net.decoders.values()]
    assert kinds == [FPNDecoder, ASPPDecoder, FPNDecoder]
    with pytest.raises(UnknownNameError, match=r"decoders .*'dpeth'.*Did you mean depth"):
        network(first(2), decoders={"dpeth": FPNDecoder})


def test_inputs_by_name_are_refused():
    with pytest.raises(ArgumentError, match="one image tensor"):
        network(first(1))({"image": torch.randn(1, 3, 64, 96)})


def test_compiled_in_parts_it_computes_the_same():
    net = network(first(1)).eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = net(images)
        compile_parts(net.compiled_parts(), backend="eager", fullgraph=True)
        found = net(images)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_a_copy_is_independent_and_remembers_its_arguments():
    net = network(first(2))
    twin = copy.deepcopy(net)
    assert twin.arguments()["encoder"].keywords == net.arguments()["encoder"].keywords
    with torch.no_grad():
        next(net.parameters()).add_(1.0)
    assert not torch.equal(next(net.parameters()), next(twin.parameters()))


def parser():
    made = ArgumentParser(exit_on_error=False)
    made.add_argument("--tasks", type=dict[str, Task])
    made.add_argument("--network", type=Callable[[Mapping[str, Task]], MultiTaskNetwork])
    return made


def build(config):
    made = parser()
    ready = made.instantiate(
        made.parse_object({"tasks": copy.deepcopy(CONFIG_TASKS), "network": config})
    )
    return ready.network(ready.tasks)


CONFIG_TASKS = {
    "semseg": {"class_path": "SemanticSegmentation", "init_args": {"num_classes": 4}},
    "depth": {"class_path": "DepthEstimation"},
}


def test_a_config_names_encoder_and_decoders_as_the_readme_does():
    net = build(
        {
            "class_path": "HardSharing",
            "init_args": {
                "encoder": "resnet10t",
                "decoder": {"class_path": "FPNDecoder", "init_args": {"width": 16}},
                "decoders": {"depth": {"class_path": "ASPPDecoder", "init_args": {"width": 8}}},
            },
        }
    )
    assert [type(d) for d in net.decoders.values()] == [FPNDecoder, ASPPDecoder]
    assert net.decoders["semseg"].classifier.in_channels == 16


def test_a_config_gives_an_encoder_all_its_options_and_leaves_the_decoder_out():
    init_args = {"name": "vit_tiny_patch16_224", "img_size": [64, 96], "model_args": TINY}
    encoder = {"class_path": "TimmEncoder", "init_args": init_args}
    net = build({"class_path": "HardSharing", "init_args": {"encoder": encoder}})
    assert net.encoder.info.size == (64, 96)
    assert net.encoder.info.channels == (24,) * 4
    assert isinstance(net.decoders["depth"], FPNDecoder)


def test_dotted_keys_reach_into_a_decoder_from_the_shell():
    arguments = ["--tasks", json.dumps(CONFIG_TASKS), "--network=HardSharing"]
    arguments += ["--network.encoder=resnet10t", "--network.decoder.width=7"]
    found = parser().parse_args(arguments).network.init_args.decoder.init_args.width
    assert found == 7
    arguments[-1:] = ["--network.decoder=MLPDecoder", "--network.decoder.width=9"]
    decoder = parser().parse_args(arguments).network.init_args.decoder
    assert decoder.class_path.endswith(MLPDecoder.__name__)
    assert decoder.init_args.width == 9


def test_a_decoder_of_a_file_outside_the_project_by_dotted_path(tmp_path, monkeypatch):
    code = """
        from torch import nn
        from mtl_core.nn import FeatureInfo
        from mtl_core.tasks import Task
        from mtl_vision.decoders import DenseDecoder

        class MyDecoder(DenseDecoder):
            def __init__(self, info: FeatureInfo, task: Task, *, scale: float = 1.0):
                super().__init__(info, task)
                self.scale = scale
                self.conv = nn.Conv2d(info.channels[-1], task.out_channels, 3, padding=1)

            def forward(self, features):
                return self.scale * self.conv(features.maps[-1])
    """
    (tmp_path / "own_decoders.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    decoder = {"class_path": "own_decoders.MyDecoder", "init_args": {"scale": 2.0}}
    init_args = {
        "encoder": "resnet10t",
        "decoder": decoder,
        "decoders": {"depth": "LinearMapDecoder"},
    }
    net = build({"class_path": "HardSharing", "init_args": init_args})
    assert net.decoders["semseg"].scale == 2.0
    assert isinstance(net.decoders["depth"], LinearMapDecoder)
    assert net.eval()(torch.randn(1, 3, 32, 32))["semseg"].shape == (1, 4, 32, 32)
