"""Checkable properties of the specification, one module or a chain of four (numbers as there)."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mtl_core.errors import ArgumentError
from mtl_vision.networks.memorial import MemorialModule, MemorialOptions, Write

TASKS = ("a", "b", "c")
CHANNELS, WIDTH, EXPERTS, SIZE = 32, 16, 3, (4, 6)
OPTIONS = {"width": WIDTH, "num_experts": EXPERTS}


def module(seed=0, remembers=True, **options):
    torch.manual_seed(seed)
    return MemorialModule(
        TASKS, CHANNELS, MemorialOptions(**{**OPTIONS, **options}), remembers=remembers
    )


def tap(seed=0):
    return torch.randn(2, CHANNELS, *SIZE, generator=torch.Generator().manual_seed(seed))


def memory(seed=1, count=3):
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, 2, WIDTH, *SIZE, generator=generator).unbind(0))


def choose(layer, expert):
    """Make every static gate choose one expert, exactly."""
    for name in TASKS:
        with torch.no_grad():
            layer.router.bias(name).fill_(-torch.inf)
            layer.router.bias(name)[expert] = 0.0


@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize("granularity", ["sample", "token"])
def test_gates_over_experts_and_memory(granularity, top_k):
    layer = module(granularity=granularity, top_k=top_k)
    memories, gates = layer(*layer.share(tap()), memory(), TASKS)
    assert [m.shape for m in memories] == [(2, WIDTH, *SIZE)] * 3
    for gate in gates:
        # The specification puts the experts in front of the positions.
        first = gate.movedim(-1, 1)
        token = granularity == "token"
        assert first.shape == ((2, EXPERTS + 1, *SIZE) if token else (2, EXPERTS + 1))
        assert (gate >= 0).all()
        assert ((gate.sum(-1) - 1).abs() < 1e-6).all()


def test_one_expert_chosen_everywhere_is_the_sum_of_its_maps():
    layers = [module(i, remembers=i > 0, gate="static", write="identity") for i in range(4)]
    memories, expected = [torch.zeros(2, WIDTH, *SIZE)] * 3, torch.zeros(2, WIDTH, *SIZE)
    for i, layer in enumerate(layers):
        choose(layer, 1)
        x, experts = layer.share(tap(i))
        memories, _ = layer(x, experts, memories, TASKS)
        expected = expected + experts[:, WIDTH : 2 * WIDTH]
    for found in memories:
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_memory_only_doubles_at_every_tap():
    layers = [module(i, gate="static", read="identity", write="identity") for i in range(4)]
    memories = start = memory()
    for i, layer in enumerate(layers):
        choose(layer, EXPERTS)
        memories, _ = layer(*layer.share(tap(i)), memories, TASKS)
    for found, first in zip(memories, start, strict=True):
        assert torch.equal(found, 2**4 * first)


def test_a_closed_gate_of_the_writing_keeps_the_memory():
    layers = [module(i, write="gated") for i in range(4)]
    memories = start = memory()
    for i, layer in enumerate(layers):
        for name in TASKS:
            nn.init.zeros_(layer.write[name].gate.weight)
            nn.init.constant_(layer.write[name].gate.bias, -torch.inf)
        memories, _ = layer(*layer.share(tap(i)), memories, TASKS)
    for found, first in zip(memories, start, strict=True):
        assert torch.equal(found, first)


def test_an_open_gate_of_the_writing_forgets():
    write = Write(WIDTH, kind="gated", gain=1.0, norm="group")
    nn.init.constant_(write.gate.bias, torch.inf)
    old, new = memory(count=2)
    torch.testing.assert_close(write(old, new), write.conv(new))
    assert (Write(WIDTH, kind="gated", gain=1.0, norm="group").gate.bias == -1).all()


def test_tasks_with_equal_parameters_are_bit_identical():
    layer = module()
    for part in (layer.router.gates, layer.read, layer.write):
        part["b"] = copy.deepcopy(part["a"])
    same = [memory()[0]] * 3
    found, gates = layer(*layer.share(tap()), same, TASKS)
    assert torch.equal(found[0], found[1])
    assert torch.equal(gates[0], gates[1])
    assert not torch.equal(found[0], found[2])


def test_the_order_of_tasks_does_not_matter():
    layer, old = module().eval(), memory()
    shared = layer.share(tap())
    found, _ = layer(*shared, old, TASKS)
    turned, _ = layer(*shared, old[::-1], TASKS[::-1])
    for a, b in zip(found, turned[::-1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_one_task_reaches_its_own_parameters_and_all_experts():
    layer = module()
    found, _ = layer(*layer.share(tap()), memory(), TASKS)
    found[0].square().sum().backward()
    own = {name: [p for part in layer.own(name) for p in part.parameters()] for name in TASKS}
    assert all(p.grad is not None for p in own["a"])
    assert all(p.grad is None for name in ("b", "c") for p in own[name])
    by_expert = layer.experts.conv.weight.grad.unflatten(0, (EXPERTS, WIDTH))
    assert (by_expert.abs().amax((1, 2, 3, 4)) > 0).all()
    everyone = {id(p) for parameters in own.values() for p in parameters}
    shared = {id(p) for part in (layer.project, layer.experts) for p in part.parameters()}
    assert everyone | shared == {id(p) for p in layer.parameters()}
    assert not everyone & shared


@pytest.mark.parametrize("expert", ["conv_bn_gelu", "conv1x1", "lowrank_linear"])
@pytest.mark.parametrize("write", ["conv", "identity", "gated"])
def test_a_step_for_some_tasks_is_the_step_for_all(expert, write):
    layer = module(expert=expert, write=write).eval()
    shared, old = layer.share(tap()), memory()
    together, _ = layer(*shared, old, TASKS)
    alone, _ = layer(*shared, [old[1]], ["b"])
    torch.testing.assert_close(alone[0], together[1], atol=1e-6, rtol=1e-5)


def test_without_memory_nothing_is_read():
    layer = module(memory=False).eval()
    assert len(layer.read) == 0
    shared = layer.share(tap())
    zeros = [torch.zeros(2, WIDTH, *SIZE)] * 3
    from_zero, gates = layer(*shared, zeros, TASKS)
    from_some, same = layer(*shared, memory(), TASKS)
    assert gates[0].shape == (2, EXPERTS)
    for a, b, m in zip(from_zero, from_some, memory(), strict=True):
        torch.testing.assert_close(a + m, b)
    assert all(torch.equal(a, b) for a, b in zip(gates, same, strict=True))


def test_the_memory_starts_with_little_weight():
    layer = module(gate="static")
    _, gates = layer(*layer.share(tap()), memory(), TASKS)
    assert gates[0][0, -1] == gates[0].min()
    assert gates[0][0, 0].item() == pytest.approx(1 / (3 + torch.tensor(-2.0).exp().item()))


def test_what_is_written_is_scaled_down_in_deep_chains():
    write = Write(WIDTH, kind="conv", gain=0.5, norm="batch")
    assert (write.conv[1].weight == 0.5).all()


def test_cost_is_the_closed_form():
    """P·(D·C + 9·N·C² + T·(N+1)·C + 2·T·C²), and what a context gate costs."""
    positions, tasks = 24, 3
    experts = 9 * EXPERTS * WIDTH**2
    memories = tasks * (EXPERTS + 1) * WIDTH + 2 * tasks * WIDTH**2
    closed = 2 * positions * (CHANNELS * WIDTH + experts + memories)
    hidden = WIDTH // 4
    gate = positions * (WIDTH * hidden + 2 * WIDTH) + hidden**2 + WIDTH * hidden
    gate += 2 * hidden * (EXPERTS + 1)
    for kind, gates in (("static", 0), ("context", 2 * tasks * gate)):
        layer = module(gate=kind).eval()
        with FlopCounterMode(display=False) as counter:
            layer(*layer.share(tap()), memory(), TASKS)
        # The counter sees no element-wise product, which is how the memory is weighed.
        weighing = 2 * positions * tasks * WIDTH
        assert counter.get_total_flops() == 2 * (closed + gates) - 2 * weighing
        assert abs(counter.get_total_flops() / (2 * (closed + gates)) - 1) < 0.01


def test_contradictions_are_refused():
    with pytest.raises(ArgumentError, match="write"):
        MemorialOptions(**OPTIONS, memory=False, write="gated")
    with pytest.raises(ArgumentError, match="gate"):
        MemorialOptions(**OPTIONS, gate="linear")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gate": "static", "top_k": 2},
        {"gate": "gap", "expert": "lowrank_linear", "write": "gated"},
        {"granularity": "token", "top_k": 2},
    ],
)
def test_the_batch_stays_free_in_a_graph(options):
    layer = module(**options).eval()

    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, maps, old):
            return self.layer(*self.layer.share(maps), [old], ["b"])[0][0]

    def inputs(size):
        generator = torch.Generator().manual_seed(size)
        return tuple(torch.randn(size, c, *SIZE, generator=generator) for c in (CHANNELS, WIDTH))

    free = {0: torch.export.Dim("batch", min=1)}
    with torch.no_grad():
        program = torch.export.export(One(), inputs(3), dynamic_shapes=(free, free), strict=False)
        for size in (1, 5):
            found = program.module()(*inputs(size))
            torch.testing.assert_close(found, One()(*inputs(size)))
