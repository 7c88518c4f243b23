import contextlib
from functools import partial

import pytest
import torch
from dense_laws import NetworkLaws
from torch.utils.flop_counter import FlopCounterMode
from toy_maps import DENSE_TASKS, TINY_VIT, images, train_dense

from mtl_core.balancing import MGDAUB, UW, PCGrad
from mtl_core.errors import ArgumentError, BalancerError
from mtl_core.modules.compiling import compile_parts
from mtl_core.tasks import MultiLabel
from mtl_vision.encoders import TimmEncoder
from mtl_vision.networks.task_expert import TaskExpert

TASKS, VIT = DENSE_TASKS, TINY_VIT


class TestTaskExpert(NetworkLaws):
    make = partial(TaskExpert, width=16, num_experts=3)


class TestRecomputedTokens(TestTaskExpert):
    make = partial(
        TaskExpert,
        width=16,
        num_experts=3,
        granularity="token",
        write="gated",
        checkpointing=True,
    )
    test_two_images_are_learned_by_heart = None


OPTIONS = [
    {},
    {"memory": False, "gate": "gap"},
    {"memory_init": "zero", "write": "gated", "read": "identity"},
    {"granularity": "token", "top_k": 2, "expert": "lowrank_linear"},
    {"gate": "static", "expert": "conv1x1", "head": "pixelshuffle", "norm": "group"},
    {"write": "identity", "head": "ds"},
    {"intermediate": 0.4, "balance": 1e-3},
    {"checkpointing": True},
]


def network(tasks=TASKS, **options):
    torch.manual_seed(0)
    return TaskExpert(tasks, **{"encoder": VIT, "width": 16, "num_experts": 3, **options})


def loss(out):
    return sum(p.square().mean() for p in out.predictions.values()) + sum(out.aux.values())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_predictions_of_every_variant(options):
    net = network(**options)
    predictions, raw = net(images()), net.run(images())
    for name, task in TASKS.items():
        assert predictions[name].shape == (2, task.out_channels, 64, 96)
        assert raw.predictions[name].shape == (2, task.out_channels, 16, 24)
    extra = [p.mean() for found in raw.intermediate.values() for p in found]
    (loss(raw) + sum(extra)).backward()
    assert [k for k, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("encoder", ["resnet10t", "swin_tiny"])
def test_pyramids_are_brought_to_one_grid(encoder):
    if encoder == "swin_tiny":
        small = {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}
        encoder = partial(
            TimmEncoder, "swin_tiny_patch4_window7_224", img_size=(64, 96), model_args=small
        )
    net = network(encoder=encoder).eval()
    with torch.no_grad():
        raw = net.run(images()).predictions
    assert raw["depth"].shape == (2, 1, 16, 24)


def test_tasks_of_whole_images_predict_from_their_memory():
    net = network({"depth": TASKS["depth"], "present": MultiLabel(num_labels=5)})
    assert {k: tuple(v.shape) for k, v in net(images()).items()} == {
        "depth": (2, 1, 64, 96),
        "present": (2, 5),
    }


@pytest.mark.parametrize("options", OPTIONS[:4], ids=str)
def test_one_task_alone_is_the_same_and_runs_nothing_of_the_others(options):
    net = network(**options).eval()
    calls = []
    for name in TASKS:
        for part in net.decoder_modules(name):
            for module in part.modules():
                module.register_forward_hook(lambda *_, name=name: calls.append(name))
    together = net(images())
    for name in TASKS:
        calls.clear()
        alone = net(images(), tasks=[name])
        assert set(calls) == {name}
        torch.testing.assert_close(alone[name], together[name], atol=1e-5, rtol=1e-4)
        assert list(alone) == [name]
        assert net.required_tasks(name) == (name,)


def test_evaluation_is_deterministic():
    net = network(top_k=2).eval()
    with torch.no_grad():
        first, second = net(images()), net(images())
    assert all(torch.equal(first[name], second[name]) for name in TASKS)


def test_parameters_are_either_shared_or_one_tasks():
    net = network(intermediate=0.4)
    shared = {id(p) for p in net.shared_parameters()}
    own = [{id(p) for p in net.task_parameters(name)} for name in TASKS]
    expected = [net.encoder, *(m for layer in net.layers for m in (layer.project, layer.experts))]
    assert shared == {id(p) for module in expected for p in module.parameters()}
    assert sum(map(len, [shared, *own])) == len(set().union(shared, *own))
    assert set().union(shared, *own) == {id(p) for p in net.parameters()}


def test_every_task_reaches_every_expert():
    net = network()
    net.run(images()).predictions["depth"].square().mean().backward()
    for layer in net.layers:
        by_expert = layer.experts.conv.weight.grad.unflatten(0, (3, 16))
        assert (by_expert.abs().amax((1, 2, 3, 4)) > 0).all()


def test_gradients_through_the_cut_add_up_to_ordinary_ones():
    """The border is honest: behind it nothing is shared, in front of it everything is."""
    net = network().eval()
    assert net.independent_decoders()
    loss(net.run(images())).backward()
    ordinary = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    out = net.run(images(), cut=True)
    assert set(out.cut) == set(TASKS)
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
        torch.testing.assert_close(parameter.grad, expected, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("options", [{"balance": 1.0}, {"entropy": 1.0}, {"checkpointing": True}])
def test_where_there_is_no_border_it_says_so(options):
    net = network(**options)
    assert not net.independent_decoders()
    assert net.run(images(), cut=True).cut == {}


def test_recomputed_modules_give_the_same_gradients_and_statistics():
    nets = [network(), network(checkpointing=True)]
    for net in nets:
        loss(net.run(images())).backward()
    plain, again = nets
    for (name, a), b in zip(plain.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name, atol=1e-6, rtol=1e-4)
    for (name, a), b in zip(plain.named_buffers(), again.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_gate_losses_are_auxiliary_and_only_in_training():
    net = network(balance=2.0, entropy=3.0, entropy_steps=1)
    first, second = net.run(images()).aux, net.run(images()).aux
    assert first["balance"] > 0
    assert first["entropy"] < 0
    assert second["entropy"] == 0
    assert net.eval().run(images()).aux == {}
    assert network().run(images()).aux == {}


def test_the_balance_loss_reaches_gates_alone_and_evens_them():
    net = network(gate="static", balance=1.0)
    for layer in net.layers:
        for name in TASKS:
            torch.nn.init.normal_(layer.router.bias(name))
    bias = [layer.router.bias(name) for layer in net.layers for name in TASKS]
    optimizer = torch.optim.SGD(bias, lr=1.0)
    values = []
    for _ in range(30):
        value = net.run(images()).aux["balance"]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.05 * values[0]


def test_intermediate_predictions_weigh_in_gradients():
    net = network(intermediate=0.4)
    found = net.run(images()).intermediate
    assert {name: [tuple(p.shape) for p in maps] for name, maps in found.items()} == {
        name: [(2, task.out_channels, 4, 6)] * 3 for name, task in TASKS.items()
    }
    weight = net.light_heads["depth"][0].weight
    (scaled,) = torch.autograd.grad(found["depth"][0].sum(), weight, retain_graph=True)
    net.intermediate = 1.0
    (whole,) = torch.autograd.grad(net.run(images()).intermediate["depth"][0].sum(), weight)
    torch.testing.assert_close(scaled, 0.4 * whole)
    assert net.eval().run(images()).intermediate == {}


def test_one_expert_without_memory_is_a_convolution_in_front_of_the_head():
    options = {"memory": False, "num_experts": 1, "write": "identity"}
    net = network(encoder=partial(VIT, out_indices=(3,)), **options).eval()
    (layer,) = net.layers
    [tap] = net.encoder(images()).maps
    for name, prediction in net.run(images()).predictions.items():
        baseline = net.heads[name](layer.experts(layer.project(tap))[:, 0])
        torch.testing.assert_close(prediction, baseline)


def test_any_size_with_the_same_weights():
    """No parameter depends on h·w, but the encoder's position embeddings."""
    net, turned = network(), network(encoder=partial(VIT, img_size=(96, 64)))
    rest = {k: v.shape for k, v in net.state_dict().items() if "pos_embed" not in k}
    assert rest == {k: v.shape for k, v in turned.state_dict().items() if "pos_embed" not in k}
    assert turned(images(size=(96, 64)))["depth"].shape == (2, 1, 96, 64)
    free = network(encoder="resnet10t").eval()
    assert free(images(size=(65, 51)))["depth"].shape == (2, 1, 65, 51)


def test_the_decoder_costs_what_the_closed_form_says():
    width, experts, positions, tasks = 16, 3, 24, 3
    net = network(gate="static").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.run(images(batch=1))
        whole = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.encoder(images(batch=1))
        encoder = counter.get_total_flops()
    inner = 32 * width + 9 * experts * width**2
    inner += tasks * (experts + 1) * width + 2 * tasks * width**2
    heads = sum(16 * (9 * width**2 + width * task.out_channels) for task in TASKS.values())
    closed = positions * (4 * inner + heads)
    assert abs((whole - encoder) / 2 / closed - 1) < 0.01


def test_the_decoder_may_learn_faster():
    net = network(decoder_lr=10.0)
    [(factor, parameters)] = net.learning_rates()
    assert factor == 10.0
    encoder = {id(p) for p in net.encoder.parameters()}
    assert {id(p) for p in parameters} == {id(p) for p in net.parameters()} - encoder
    assert network().learning_rates() == []


def test_gates_stay_float32_under_autocast():
    net, seen = network(), []
    for layer in net.layers:
        layer.router.register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net.run(images())
    assert len(seen) == 4 * 3
    assert all(part.dtype == torch.float32 for r in seen for part in (r.gate, r.probs, r.logits))
    loss(out).backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    with torch.no_grad():
        exact = network().run(images()).predictions
    for name in TASKS:
        near = out.predictions[name].float()
        assert (near - exact[name]).abs().max() < 0.1 * exact[name].abs().max()


def train(*callbacks, precision="32-true", **options):
    build = partial(TaskExpert, encoder=VIT, width=16, num_experts=3, **options)
    return train_dense(build, *callbacks, precision=precision)


@pytest.mark.parametrize("options", [{}, {"balance": 1e-3, "intermediate": 0.4}], ids=str)
@pytest.mark.parametrize("balancer", [PCGrad, UW, MGDAUB])
def test_it_trains_with_every_family_of_balancer(balancer, options):
    needs_border = balancer is MGDAUB and "balance" in options
    refused = pytest.raises(BalancerError, match="does not have")
    with refused if needs_border else contextlib.nullcontext():
        _, still = train(balancer(), **options)
        # The memory in front of the first tap starts at zero, and so does what reads it.
        assert all(name.startswith("layers.0.read") for name in still)


def test_it_trains_in_bf16():
    _, still = train(UW(), precision="bf16-mixed")
    assert all(name.startswith("layers.0.read") for name in still)


def test_compiled_parts_hold_no_border_back():
    shallow = partial(VIT, out_indices=(1,))
    net = network({"depth": TASKS["depth"]}, encoder=shallow).eval()
    with torch.no_grad():
        expected = net(images())
        compile_parts(net.compiled_parts(), backend="eager", fullgraph=True)
        found = net(images())
    torch.testing.assert_close(found["depth"], expected["depth"])


def test_contradictions_are_refused():
    with pytest.raises(ArgumentError, match="balance"):
        network(balance=-1.0)
    with pytest.raises(ArgumentError, match="write"):
        network(memory=False, write="gated")
