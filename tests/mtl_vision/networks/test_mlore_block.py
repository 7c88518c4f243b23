import pytest
import torch
import torch.nn.functional as F
from toy_maps import randomised

from mtl_core.errors import ArgumentError
from mtl_vision.networks.mlore_block import MLoREBlock, MLoREOptions, TapFusion

TASKS = ("a", "b", "c")
WIDTH, SIZE = 16, (4, 6)


def block(**options):
    torch.manual_seed(0)
    given = {"ranks": (1, 2, 3, 5), "task_rank": 2, "top_k": 2, "gate_norm": "none"}
    given |= {"width": WIDTH, "noise": "learned", "norm": "batch"}
    return MLoREBlock(TASKS, MLoREOptions(**{**given, **options}))


def maps(count=3, batch=2):
    generator = torch.Generator().manual_seed(0)
    return list(torch.randn(count, batch, WIDTH, *SIZE, generator=generator).unbind(0))


@pytest.mark.parametrize("norm", ["topk", "none"])
def test_one_convolution_does_it_all(norm):
    """For fixed gates, up to the first non-linearity, normalisations included."""
    own = randomised(block(gate_norm=norm)).double()
    f = maps()[0].double()
    path = own.paths["b"]
    with torch.no_grad():
        z = path.enter(f)
        gates, mix = own.gate(z, "b")
        [found], _ = own([f], ["b"])
        kernels, bias = own.folded("b", gates, mix)
        assert tuple(kernels.shape) == (2, WIDTH, WIDTH, 3, 3)
        for i in range(len(f)):
            conv = F.conv2d(z[i : i + 1], kernels[i], bias, padding=1)
            after = path.leave(F.gelu(conv))
            assert (after - found[i : i + 1]).abs().max() < 1e-5
        own.fold = True
        [folded], _ = own([f], ["b"])
        assert (folded - found).abs().max() < 1e-5


def test_folding_needs_fixed_statistics():
    for own in (block(), block(norm="group").eval()):
        with pytest.raises(ArgumentError, match="evaluation mode"):
            own.folded("a", torch.ones(1, 4), torch.ones(1, 1))


def test_the_block_is_its_formula_expert_by_expert():
    own = randomised(block())
    with torch.no_grad():
        found, gates = own(maps(), TASKS)
        for t, name in enumerate(TASKS):
            path, z = own.paths[name], own.paths[name].enter(maps()[t])
            again, mix = own.gate(z, name)
            torch.testing.assert_close(again, gates[t])
            mixture = sum(
                again[:, j, None, None, None] * e for j, e in enumerate(own.experts(z).unbind(1))
            )
            pair = mix[..., None, None] * path.up(path.down(z))
            u = path.expert_norm(mixture) + pair + own.generic(z)
            expected = path.leave(F.gelu(path.norm(u)))
            torch.testing.assert_close(found[t], expected, atol=1e-4, rtol=1e-4)


def test_kept_gates():
    _, free = block(gate_norm="none").eval()(maps(), TASKS)
    _, tight = block(gate_norm="topk").eval()(maps(), TASKS)
    for gates in (*free, *tight):
        assert ((gates > 0).sum(-1) == 2).all()
    assert all((g.sum(-1) < 1).all() for g in free)
    assert all(((g.sum(-1) - 1).abs() < 1e-6).all() for g in tight)


def test_the_full_convolution_sends_nothing_back_but_learns():
    own = block(noise="none").eval()
    for path in own.paths.values():
        torch.nn.init.zeros_(path.mix.weight)
        torch.nn.init.zeros_(path.mix.bias)
        torch.nn.init.zeros_(path.expert_norm.weight)
    found, _ = own(maps(), TASKS)
    sum(f.square().sum() for f in found).backward()
    assert own.generic.weight.grad.abs().max() > 0
    for path in own.paths.values():
        # Neither experts nor the own pair let anything through here.
        assert not path.enter.weight.grad.any()


def test_tasks_of_one_batch_are_the_tasks_alone():
    own = block().eval()
    together, gates = own(maps(), TASKS)
    for i, name in enumerate(TASKS):
        [alone], [gate] = own([maps()[i]], [name])
        torch.testing.assert_close(alone, together[i], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(gate, gates[i])


def test_one_task_reaches_its_own_parameters_and_shared_experts():
    own = block()
    found, _ = own(maps(), TASKS)
    found[0].square().sum().backward()
    for name in ("b", "c"):
        for part in own.own(name):
            assert all(p.grad is None for p in part.parameters())
    assert own.experts.down.weight.grad.any()
    everyone = {id(p) for name in TASKS for part in own.own(name) for p in part.parameters()}
    shared = {id(p) for part in (own.experts, own.generic) for p in part.parameters()}
    assert everyone | shared == {id(p) for p in own.parameters()}
    assert not everyone & shared


def test_fusion_is_a_weighted_mean_of_taps_at_every_position():
    fusion = TapFusion(3, WIDTH).eval()
    same = [maps()[0]] * 3
    torch.testing.assert_close(fusion(same), same[0])
    found, taps = fusion(maps()), torch.stack(maps())
    assert (found <= taps.amax(0) + 1e-5).all()
    assert (found >= taps.amin(0) - 1e-5).all()


def test_only_fixed_normalisation_can_be_folded_away():
    with pytest.raises(ArgumentError, match="'batch' with fold"):
        block(fold=True, norm="group")


def test_the_batch_stays_free_in_a_graph_and_kernels_stay_constant():
    own = randomised(block(fold=True)).eval()
    batch = torch.export.Dim("batch", min=1)

    class One(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.block = own

        def forward(self, f):
            return self.block([f], ["b"])[0][0]

    with torch.no_grad():
        program = torch.export.export(
            One(), (maps(batch=3)[0],), dynamic_shapes=({0: batch},), strict=False
        )
        for size in (1, 5):
            f = maps(batch=size)[0]
            wanted = own([f], ["b"])[0][0]
            torch.testing.assert_close(program.module()(f), wanted, atol=1e-4, rtol=1e-4)
    convolutions = [n for n in program.graph.nodes if n.target is torch.ops.aten.conv2d.default]
    assert convolutions
    assert all(n.args[6:] in ((), (1,)) for n in convolutions)  # groups
