import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mtl_core.moe import ExpertBank, dispatch


def layer(frozen=(), dtype=torch.float64):
    """Eight experts on 13 tokens; experts 6 and 7 have none."""
    torch.manual_seed(0)
    bank = ExpertBank(8, dim=6, hidden=5).to(dtype)
    bank.freeze(frozen)
    idx = torch.rand(13, 6).topk(3, -1).indices
    x = torch.randn(13, 6, dtype=dtype, requires_grad=True)
    gate = torch.rand(13, 3, dtype=dtype, requires_grad=True)
    return bank, x, idx, gate


@pytest.mark.parametrize("frozen", [(), (0, 5), (7,), range(8)])
def test_first_and_second_derivatives(frozen):
    bank, x, idx, gate = layer(frozen)
    names, weights = zip(*bank.named_parameters(), strict=True)

    def call(x, gate, *weights):
        held = {f"bank.{n}": w for n, w in zip(names, weights, strict=True)}
        return torch.func.functional_call(Dispatch(bank), held, args=(x, idx, gate))

    torch.autograd.gradcheck(call, (x, gate, *weights))
    torch.autograd.gradgradcheck(call, (x, gate, *weights))


class Dispatch(torch.nn.Module):
    def __init__(self, bank):
        super().__init__()
        self.bank = bank

    def forward(self, x, idx, gate):
        return dispatch(self.bank, x, idx, gate)


@pytest.mark.parametrize("frozen", [(), (0, 5)])
def test_several_signals_at_once(frozen):
    """As balancers ask for the gradients of all tasks."""
    bank, x, idx, gate = layer(frozen)
    y = dispatch(bank, x, idx, gate)
    inputs, signals = [x, gate, *bank.parameters()], torch.randn(4, *y.shape, dtype=y.dtype)
    together = torch.autograd.grad(y, inputs, signals, is_grads_batched=True, retain_graph=True)
    mapped = torch.func.vmap(lambda s: torch.autograd.grad(y, inputs, s, retain_graph=True))(
        signals
    )
    for number, signal in enumerate(signals):
        alone = torch.autograd.grad(y, inputs, signal, retain_graph=True)
        for one, some, others in zip(alone, together, mapped, strict=True):
            torch.testing.assert_close(some[number], one)
            torch.testing.assert_close(others[number], one)


def test_one_product_a_pair_is_kept():
    """Inputs, weights and P·h numbers; neither gathered tokens nor outputs."""
    bank, x, idx, gate = layer()
    kept = {}

    def pack(tensor):
        kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        dispatch(bank, x, idx, gate)
    given = {t.data_ptr() for t in (x, gate, *bank.parameters())}
    extra = [t for at, t in kept.items() if at not in given]
    assert sum(t.numel() for t in extra) == idx.numel() * bank.hidden


def test_nothing_is_kept_without_gradients():
    bank, x, idx, gate = layer()
    wanted = dispatch(bank, x, idx, gate)
    with torch.no_grad():
        found = dispatch(bank, x, idx, gate)
    assert found.grad_fn is None
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("still", ["x", "bank"])
def test_only_what_learns_is_multiplied(still):
    """As where routers learn and their experts do not, or experts and the encoder does not."""
    bank, x, idx, gate = layer()
    inputs = {"x": [x], "bank": list(bank.parameters())}
    found = [t for name, held in inputs.items() if name != still for t in held]
    wanted = torch.autograd.grad(dispatch(bank, x, idx, gate).square().sum(), [gate, *found])
    for tensor in inputs[still]:
        tensor.requires_grad_(False)
    y = dispatch(bank, x, idx, gate)
    with FlopCounterMode(display=False) as counter:
        slopes = torch.autograd.grad(y.square().sum(), [gate, *found])
    for one, other in zip(slopes, wanted, strict=True):
        torch.testing.assert_close(one, other)
    products = {"x": 3, "bank": 2}[still] * 2 * idx.numel() * bank.dim * bank.hidden
    assert counter.get_total_flops() == products


@pytest.mark.parametrize("frozen", [(), (0, 5)])
def test_autocast(frozen):
    """Values and gradients to the rounding of bfloat16; parameters keep their own type."""
    bank, x, idx, gate = layer(frozen, torch.float32)
    inputs = [x, gate, *bank.parameters()]
    wanted = dispatch(bank, x, idx, gate)
    slopes = torch.autograd.grad(wanted.square().sum(), inputs)
    with torch.autocast("cpu", torch.bfloat16):
        found = dispatch(bank, x, idx, gate)
    assert found.dtype == torch.bfloat16
    others = torch.autograd.grad(found.float().square().sum(), inputs)
    assert all(g.dtype == torch.float32 for g in others)
    for one, other in zip((found, *others), (wanted, *slopes), strict=True):
        assert (one - other).norm() <= 0.02 * other.norm()
