import pytest
import torch

from mtl_vision.networks.assembly import assemble

TASKS, EXPERTS, WIDTH, SIZE = 3, 4, 5, (2, 3)
GRANULARITY = pytest.mark.parametrize("sizes", [(), SIZE], ids=["sample", "token"])


def drawn(sizes, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    experts = torch.randn(2, EXPERTS * WIDTH, *SIZE, generator=generator, dtype=dtype)
    shape = (TASKS, 2, *sizes, EXPERTS)
    gates = torch.rand(shape, generator=generator, dtype=dtype).softmax(-1)
    return experts.requires_grad_(), [g.clone().requires_grad_() for g in gates.unbind(0)]


def looped(experts, *gates):
    """Task by task, expert by expert."""
    found = []
    for gate in gates:
        mixed = torch.zeros(2, WIDTH, *SIZE, dtype=experts.dtype)
        for i, expert in enumerate(experts.split(WIDTH, 1)):
            weight = gate[..., i]
            mixed = mixed + expert * weight.view(2, 1, *(weight.shape[1:] or (1, 1)))
        found.append(mixed)
    return found


@GRANULARITY
def test_the_product_equals_a_double_loop_in_values_and_gradients(sizes):
    experts, gates = drawn(sizes)
    found, expected = assemble(experts, gates), looped(experts, *gates)
    weights = torch.randn(TASKS, 2, WIDTH, *SIZE, dtype=torch.float64)
    gradients = []
    for maps in (found, expected):
        total = (torch.stack(maps) * weights).sum()
        gradients.append(torch.autograd.grad(total, [experts, *gates]))
    for a, b in zip([*found, *gradients[0]], [*expected, *gradients[1]], strict=True):
        torch.testing.assert_close(a, b)


@GRANULARITY
def test_gradients_of_gradients(sizes):
    experts, gates = drawn(sizes)
    assert torch.autograd.gradcheck(lambda e, *g: tuple(assemble(e, g)), (experts, *gates))
    assert torch.autograd.gradgradcheck(lambda e, *g: tuple(assemble(e, g)), (experts, *gates))


@GRANULARITY
def test_a_task_without_gradient_gives_none(sizes):
    experts, gates = drawn(sizes)
    found = assemble(experts, gates)
    inputs = [experts, *gates]
    total = found[1].square().sum()
    got = torch.autograd.grad(total, inputs, allow_unused=True, retain_graph=True)
    assert [g is not None for g in got] == [True, False, True, False]
    expected = torch.autograd.grad(looped(experts, *gates)[1].square().sum(), [experts, gates[1]])
    torch.testing.assert_close(got[0], expected[0])
    torch.testing.assert_close(got[2], expected[1])


@GRANULARITY
def test_many_gradients_at_once(sizes):
    experts, gates = drawn(sizes)
    found = assemble(experts, gates)
    rows = torch.randn(6, *found[0].shape, dtype=torch.float64)
    (together,) = torch.autograd.grad(
        found[0], experts, rows, is_grads_batched=True, retain_graph=True
    )
    for row, expected in zip(rows, together, strict=True):
        (alone,) = torch.autograd.grad(found[0], experts, row, retain_graph=True)
        torch.testing.assert_close(alone, expected)


@GRANULARITY
def test_autocast_computes_in_its_type_and_gives_gradients_in_the_inputs(sizes):
    experts, gates = drawn(sizes, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = assemble(experts, gates)
    assert found[0].dtype == torch.bfloat16
    torch.stack(found).float().sum().backward()
    assert experts.grad.dtype == gates[0].grad.dtype == torch.float32
    torch.testing.assert_close(found[0].float(), looped(experts, *gates)[0], atol=0.05, rtol=0.05)
