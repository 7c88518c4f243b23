import pytest
import torch

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.moe.context import Context, ContextRouter, dense_gates

TASKS = ("a", "b", "c")
KINDS = [
    {"gate": "context"},
    {"gate": "context", "granularity": "token"},
    {"gate": "gap"},
    {"gate": "static"},
]


def router(**options):
    torch.manual_seed(0)
    return ContextRouter(TASKS, 16, 4, options.pop("top_k", None), **options)


def maps(batch=3, size=(4, 6), seed=0):
    return torch.randn(batch, 16, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("top_k", [None, 1, 3])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_gates_are_weights_of_experts(kind, top_k):
    out = router(top_k=top_k, **kind)(maps(), "b")
    leading = (3, 4, 6) if kind.get("granularity") == "token" else (3,)
    assert out.gate.shape == out.idx.shape == (*leading, top_k or 4)
    assert out.probs.shape == out.logits.shape == (*leading, 4)
    dense = dense_gates(out, 4)
    assert dense.shape == (*leading, 4)
    assert (dense >= 0).all()
    assert ((dense.sum(-1) - 1).abs() < 1e-6).all()
    assert ((dense > 0).sum(-1) == (top_k or 4)).all()
    assert out.idx.dtype == torch.int64
    assert out.gate.dtype == torch.float32


def test_without_top_k_all_experts_come_in_order():
    out = router()(maps(), "a")
    assert torch.equal(out.idx, torch.arange(4).expand(3, 4))
    assert torch.equal(out.gate, out.probs)


def test_kept_weights_either_sum_to_one_or_stay_what_they_are():
    kept = router(top_k=2)(maps(), "a")
    same = router(top_k=2, norm="none")(maps(), "a")
    torch.testing.assert_close(same.gate, same.probs.gather(-1, same.idx))
    assert (same.gate.sum(-1) < 1).all()
    torch.testing.assert_close(kept.gate, same.gate / same.gate.sum(-1, keepdim=True))


@pytest.mark.parametrize("kind", KINDS[:3], ids=str)
def test_other_images_get_other_gates(kind):
    own = router(**kind)
    assert not torch.allclose(own(maps(), "a").gate, own(maps(seed=1), "a").gate)


def test_static_gates_do_not_look():
    own = router(gate="static")
    torch.nn.init.normal_(own.bias("a"))
    gates = own(maps(), "a").gate
    assert torch.equal(gates, own(maps(seed=1), "a").gate)
    assert torch.equal(gates[0], gates[1])


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_task_indices_are_the_same_as_names(kind):
    own = router(**kind)
    found = own(maps(), torch.tensor([2, 0, 2]))
    for i, name in enumerate(("c", "a", "c")):
        expected = own(maps()[i : i + 1], name)
        torch.testing.assert_close(found.logits[i : i + 1], expected.logits)


def test_every_task_has_a_gate_of_its_own():
    own = router()
    own(maps(), "b").gate.square().sum().backward()
    got = {name: [p.grad for p in own.gates[name].parameters()] for name in TASKS}
    assert all(g is None for name in ("a", "c") for g in got[name])
    assert all(g is not None for g in got["b"])


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_any_size_of_map_and_gates_that_ignore_its_scale(kind):
    own = router(**kind)
    small, large = maps(size=(3, 5)), maps(size=(8, 2))
    assert own(small, "a").gate.shape[-1] == own(large, "a").gate.shape[-1] == 4


def test_pooling_does_not_depend_on_where_things_are():
    """One choice an image: positions may be shuffled, and repeating a map changes nothing."""
    own, x = router(), maps()
    shuffled = x.flatten(2)[:, :, torch.randperm(24)].view_as(x)
    doubled = torch.cat([x, x], 3)
    for other in (shuffled, doubled):
        torch.testing.assert_close(own(x, "a").logits, own(other, "a").logits)


def test_the_mean_may_come_before_the_last_linear_layer():
    context = Context(16, 4)
    by_position = context.channel(context.local(maps())).mean((1, 2))
    torch.testing.assert_close(context(maps())[:, :4], by_position)


def test_gates_are_float32_under_autocast():
    own, x = router(), maps()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = own(x.bfloat16(), "a")
    assert rounded.logits.dtype == torch.float32
    torch.testing.assert_close(rounded.logits, own(x.bfloat16().float(), "a").logits)


def test_noise_is_learned_and_only_for_training():
    own = router(gate="context", noise="learned")
    quiet = own.eval()(maps(), "a").logits
    assert torch.equal(quiet, own(maps(), "a").logits)
    own.train()
    torch.manual_seed(1)
    out = own(maps(), "a")
    assert torch.equal(out.logits, quiet)
    torch.testing.assert_close(out.probs, out.noisy.softmax(-1))
    noisy = torch.stack([own(maps(), "a").noisy for _ in range(1000)])
    torch.testing.assert_close(noisy.mean(0), quiet, atol=0.1, rtol=0)
    torch.testing.assert_close(noisy.std(0), out.scale, atol=0.1, rtol=0.05)


def test_a_context_of_somebody_else():
    own = ContextRouter(TASKS, 6, 4, 2, gate="linear")
    vectors = torch.randn(3, 6)
    torch.testing.assert_close(own(vectors, "a").logits, own.gates["a"](vectors))


def test_impossible_options_are_refused():
    with pytest.raises(ArgumentError, match="top_k"):
        router(top_k=5)
    with pytest.raises(ArgumentError, match="granularity"):
        router(gate="gap", granularity="token")
    with pytest.raises(UnknownNameError, match="'d'"):
        router()(maps(), "d")
