from functools import partial

import pytest
import torch
from dense_laws import NetworkLaws
from toy_maps import DENSE_TASKS, TINY_VIT, images, train_dense

from mtl_core.balancing import MGDAUB, UW
from mtl_core.errors import ArgumentError, BalancerError
from mtl_core.modules.compiling import compile_parts
from mtl_core.tasks import MultiLabel
from mtl_vision.networks.mlore import MLoRE
from mtl_vision.networks.mlore_block import MLoREBlock

TASKS = DENSE_TASKS
SMALL = {"encoder": TINY_VIT, "width": 16, "ranks": (1, 2, 3, 4), "top_k": 2}


class TestMLoRE(NetworkLaws):
    make = partial(MLoRE, width=16, ranks=(1, 2, 3, 4), top_k=2)


class TestFoldingMLoRE(TestMLoRE):
    make = partial(MLoRE, width=16, ranks=(1, 2, 3, 4), top_k=2, fold=True, noise=False, blocks=1)
    test_two_images_are_learned_by_heart = None


OPTIONS = [
    {},
    {"pre_softmax": True, "noise": False, "blocks": 1},
    {"norm": "group", "head": "pixelshuffle", "task_rank": 3},
    {"ranks": None, "top_k": 9, "head": "ds"},
]


def network(tasks=TASKS, **options):
    torch.manual_seed(0)
    return MLoRE(tasks, **{**SMALL, **options})


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_predictions_of_every_variant(options):
    net = network(**options)
    predictions, out = net(images()), net.run(images())
    for name, task in TASKS.items():
        assert predictions[name].shape == (2, task.out_channels, 64, 96)
        assert out.predictions[name].shape == (2, task.out_channels, 16, 24)
    (sum(p.square().mean() for p in out.predictions.values()) + out.aux["balance"]).backward()
    assert [k for k, p in net.named_parameters() if p.grad is None] == []


def test_parameters_are_either_shared_or_one_tasks():
    net = network()
    shared = {id(p) for p in net.shared_parameters()}
    own = [{id(p) for p in net.task_parameters(name)} for name in TASKS]
    inner = [m for layer in net.layers for block in layer for m in (block.experts, block.generic)]
    expected = [net.encoder, net.projections, *inner]
    assert shared == {id(p) for module in expected for p in module.parameters()}
    assert sum(map(len, [shared, *own])) == len(set().union(shared, *own))
    assert set().union(shared, *own) == {id(p) for p in net.parameters()}


def test_there_is_no_border():
    net = network()
    assert not net.independent_decoders()
    out = net.run(images(), cut=True)
    assert out.cut == {}
    assert out.features is None


def test_evaluation_is_deterministic_and_training_noisy():
    net = network()
    with torch.no_grad():
        noisy = [net.run(images()).predictions["depth"] for _ in range(2)]
        net.eval()
        first, second = net(images()), net(images())
    assert not torch.equal(*noisy)
    assert all(torch.equal(first[name], second[name]) for name in TASKS)
    assert net.run(images()).aux == {}


def test_folded_predictions_are_the_same():
    plain, folding = network().eval(), network(fold=True).eval()
    with torch.no_grad():
        expected, found = plain(images()), folding(images())
        single = folding(images(), tasks=["depth"])["depth"]
    for name in TASKS:
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(single, expected["depth"], atol=1e-5, rtol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        rounded = folding(images())["depth"]
    assert (rounded - expected["depth"]).abs().max() < 0.1 * expected["depth"].abs().max()


def test_tasks_of_whole_images():
    net = network({"depth": TASKS["depth"], "present": MultiLabel(num_labels=5)})
    assert net(images())["present"].shape == (2, 5)


def test_gates_stay_float32_under_autocast():
    net, seen = network(), []
    for layer in net.layers:
        for block in layer:
            block.router.register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net.run(images())
    assert len(seen) == 4 * 2 * 3
    assert all(part.dtype == torch.float32 for r in seen for part in (r.gate, r.probs, r.logits))
    sum(p.square().mean() for p in out.predictions.values()).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters())


def test_it_trains_in_bf16():
    train_dense(partial(MLoRE, **SMALL), UW(), precision="bf16-mixed")


def test_methods_at_the_border_are_refused():
    with pytest.raises(BalancerError, match="MLoRE does not have"):
        train_dense(partial(MLoRE, **SMALL), MGDAUB())


def test_contradictions_are_refused():
    with pytest.raises(ArgumentError, match="top_k"):
        network(top_k=5)
    with pytest.raises(ArgumentError, match="blocks"):
        network(blocks=0)


def test_whole_blocks_compile():
    net = network({"depth": TASKS["depth"]}, encoder="resnet10t", blocks=1, noise=False).eval()
    with torch.no_grad():
        expected = net(images())["depth"]
        blocks = [part for part in net.layers.modules() if isinstance(part, MLoREBlock)]
        compile_parts(blocks, backend="eager", fullgraph=True)
        torch.testing.assert_close(net(images())["depth"], expected)
