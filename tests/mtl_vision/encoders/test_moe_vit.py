"""mtl_vision.encoders.moe_vit: routing by task, the shared prefix, timm's variants."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.modules.compiling import compile_parts
from mtl_core.moe import ExpertBank, MoEFFN, Router
from mtl_vision.encoders import MoEViT, TimmEncoder

TASKS = ("semseg", "depth", "normals")
SIZE = (16, 24)
SHAPE = {"patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 4}
ROUTINGS = ["multi_gate", "conditioned", "single"]


def vit(**arguments):
    torch.manual_seed(0)
    arguments = {"model_args": SHAPE, "num_experts": 8, "top_k": 2, **arguments}
    tasks = arguments.pop("tasks", TASKS)
    return MoEViT(tasks, name="vit_tiny_patch16_224", img_size=SIZE, **arguments)


def scrambled(**arguments):
    """Without ties between experts or symmetry between tasks, in evaluation mode."""
    encoder = vit(**arguments)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return encoder.eval()


def images(count=2):
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(2))


def same(found, expected, **tolerance):
    for a, b in zip(found.tensors(), expected.tensors(), strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def count_calls(encoder):
    """Tokens that every router and bank saw, and runs of blocks, by name."""
    seen = []
    for name, module in encoder.named_modules():
        if isinstance(module, Router):
            module.register_forward_hook(
                lambda m, args, out, name=name: seen.append(("router", out.idx.shape[:-1].numel()))
            )
        elif name.endswith(".attn"):
            module.register_forward_hook(
                lambda m, args, out: seen.append(("attn", args[0].shape[:-1].numel()))
            )
    return seen


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"model_args": {**SHAPE, "reg_tokens": 3}},
        {"model_args": {**SHAPE, "class_token": False, "global_pool": "avg"}},
        {"model_args": {**SHAPE, "init_values": 0.1, "pre_norm": True}},
        {"model_args": {**SHAPE, "qk_norm": True, "no_embed_class": True}, "drop_path": 0.2},
        {"gate_input_ahead": True, "experts": "random"},
        {"out_indices": (0, 2), "moe_layers": (1, 2), "expert_ratio": 1.0, "experts": "random"},
    ],
)
def test_features_have_the_shapes_of_info_and_every_parameter_learns(routing, arguments):
    encoder = vit(routing=routing, **arguments)
    found = encoder.forward_tasks(images(), TASKS)
    assert list(found) == list(TASKS)
    total = 0.0
    for features in found.values():
        assert [m.shape[1] for m in features.maps] == list(encoder.info.channels)
        assert all(m.shape[-2:] == (2, 3) for m in features.maps)
        assert features.tokens.shape == (2, 6 + encoder.model.num_prefix_tokens, 32)
        total = total + sum(m.square().mean() for m in features.maps)
        total = total + sum(features.aux.values())
    total.backward()
    assert [k for k, p in encoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("batch_tasks", [True, False])
@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("ahead", [True, False])
def test_all_tasks_with_a_shared_prefix_are_the_separate_passes(routing, ahead, batch_tasks):
    encoder = scrambled(routing=routing, gate_input_ahead=ahead, batch_tasks=batch_tasks)
    with torch.no_grad():
        found = encoder.forward_tasks(images(), TASKS)
        turned = encoder.forward_tasks(images(), TASKS[::-1])
        for name in TASKS:
            alone = encoder(images(), name)
            same(found[name], alone, atol=1e-6, rtol=1e-5)
            same(turned[name], alone, atol=1e-6, rtol=1e-5)
    if routing != "single":
        assert not torch.allclose(found["depth"].maps[-1], found["normals"].maps[-1], atol=1e-3)


def test_samples_do_not_meet():
    encoder = scrambled()
    with torch.no_grad():
        together = encoder.forward_tasks(images(3), TASKS)["depth"]
        alone = encoder(images(3)[1:2], "depth")
    torch.testing.assert_close(together.maps[-1][1:2], alone.maps[-1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("batch_tasks", [True, False])
def test_the_prefix_runs_once_and_of_other_tasks_nothing(batch_tasks):
    """Two images of 7 tokens; the prefix is block 0 and the attention of block 1."""
    encoder = scrambled(batch_tasks=batch_tasks)
    seen = count_calls(encoder)
    with torch.no_grad():
        encoder(images(), "depth")
    assert seen == [("attn", 14)] * 2 + [("router", 14), ("attn", 14), ("attn", 14), ("router", 14)]
    seen.clear()
    with torch.no_grad():
        encoder.forward_tasks(images(), TASKS)
    tokens = {kind: sum(n for k, n in seen if k == kind) for kind in ("attn", "router")}
    assert seen[:2] == [("attn", 14)] * 2
    assert tokens == {"attn": 14 * (2 + 2 * 3), "router": 14 * 2 * 3}


def test_routers_of_other_tasks_have_no_effect_at_all():
    encoder = scrambled()
    with torch.no_grad():
        before = encoder(images(), "depth")
        together = encoder.forward_tasks(images(), TASKS)
        for module in encoder.task_modules("normals"):
            for p in module.parameters():
                p.add_(torch.randn_like(p))
        after = encoder(images(), "depth")
        assert torch.equal(before.maps[-1], after.maps[-1])
        again = encoder.forward_tasks(images(), TASKS)
    # Experts of a batch of tasks have queues of other lengths, hence other rounding.
    same(again["depth"], together["depth"], atol=1e-6, rtol=1e-5)
    assert not torch.equal(together["normals"].maps[-1], again["normals"].maps[-1])


def test_routers_belong_to_their_tasks_and_are_small():
    encoder = vit()
    sizes = {
        n: sum(p.numel() for m in encoder.task_modules(n) for p in m.parameters()) for n in TASKS
    }
    assert set(sizes.values()) == {2 * 32 * 8}
    assert vit(routing="conditioned").task_modules("depth") == []
    assert vit(routing="single").task_modules("depth") == []


def test_single_routing_is_one_pass_and_serves_as_an_ordinary_encoder():
    encoder = scrambled(routing="single")
    seen = count_calls(encoder)
    with torch.no_grad():
        found = encoder.forward_tasks(images(), TASKS)
        assert len(seen) == 6
        assert found["depth"].maps[-1] is found["normals"].maps[-1]
        assert torch.equal(encoder(images()).maps[-1], found["depth"].maps[-1])
    with pytest.raises(ArgumentError, match="task must name one of the tasks"):
        scrambled()(images())
    with pytest.raises(UnknownNameError, match="Did you mean depth"):
        scrambled()(images(), "dept")


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize(
    "model_args",
    [
        SHAPE,
        {**SHAPE, "reg_tokens": 2, "init_values": 0.5},
        {**SHAPE, "proj_bias": False, "class_token": False, "global_pool": ""},
    ],
)
def test_upcycled_it_is_the_dense_network(routing, model_args):
    """Test 5 of the specification, for every task and map."""
    dense = TimmEncoder("vit_tiny_patch16_224", img_size=SIZE, model_args=model_args).eval()
    with torch.no_grad():
        for p in dense.parameters():
            p.add_(0.1 * torch.randn_like(p))
    encoder = vit(routing=routing, model_args=model_args).eval()
    encoder.load_dense(dense.state_dict())
    with torch.no_grad():
        expected = dense(images(4))
        for features in encoder.forward_tasks(images(4), TASKS).values():
            same(features, expected, atol=1e-5, rtol=1e-5)


def test_the_constructor_upcycles_what_timm_made():
    torch.manual_seed(0)
    dense = TimmEncoder("vit_tiny_patch16_224", img_size=SIZE, model_args=SHAPE).eval()
    with torch.no_grad():
        same(vit().eval()(images(), "depth"), dense(images()), atol=1e-5, rtol=1e-5)


def test_ties_between_the_slices_break_in_training():
    encoder = vit()
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    for _ in range(3):
        features = encoder.forward_tasks(images(), TASKS)
        loss = sum(f.maps[-1].square().mean() + f.aux["balance"] for f in features.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    (columns,) = encoder.task_modules("depth")[0].parameters()
    groups = columns.reshape(32, 4, 2) if columns.shape[0] == 32 else columns.t().reshape(32, 4, 2)
    assert (groups[..., 0] != groups[..., 1]).any(0).any()


def test_a_dense_network_that_does_not_fit_is_refused():
    dense = TimmEncoder("vit_tiny_patch16_224", img_size=(32, 32), model_args=SHAPE)
    with pytest.raises(ArgumentError, match=r"start_from must .*pos_embed"):
        vit().load_dense(dense.state_dict())
    with pytest.raises(ArgumentError, match=r"blocks\.1\.mlp\.fc1\.weight"):
        vit().load_dense({k: v for k, v in dense.state_dict().items() if "blocks.1.mlp" not in k})
    with pytest.raises(ArgumentError, match="experts must be upcycle"):
        vit(experts="random").load_dense(dense.state_dict())


@pytest.mark.parametrize("experts", ["upcycle", "random"])
def test_patches_without_positions_are_a_set(experts):
    """Permuting patches (test 10): the tokens of the permuted image are the permuted tokens."""
    encoder = scrambled(experts=experts)
    with torch.no_grad():
        encoder.model.pos_embed[:, 1:] = encoder.model.pos_embed[:, 1:2]
        patches = images(1).unflatten(2, (2, 8)).unflatten(4, (3, 8)).permute(0, 2, 4, 1, 3, 5)
        order = torch.tensor([4, 2, 0, 5, 1, 3])
        turned = patches.flatten(1, 2)[:, order].unflatten(1, (2, 3)).permute(0, 3, 1, 4, 2, 5)
        turned = turned.reshape(1, 3, *SIZE)
        for name, features in encoder.forward_tasks(images(1), TASKS).items():
            found = encoder(turned, name).maps[-1].flatten(2)
            torch.testing.assert_close(
                found, features.maps[-1].flatten(2)[..., order], atol=1e-5, rtol=1e-4
            )


@pytest.mark.parametrize("noise", ["none", "vmoe", "shazeer"])
def test_evaluation_has_no_noise_and_training_is_reproducible(noise):
    encoder = vit(gate_noise=noise)
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(encoder(images(), "depth").maps[-1])
    assert torch.equal(*drawn)
    encoder.eval()
    assert torch.equal(encoder(images(), "depth").maps[-1], encoder(images(), "depth").maps[-1])
    assert encoder(images(), "depth").aux == {}


@pytest.mark.parametrize("noise", ["none", "vmoe"])
def test_checkpointing_recomputes_and_changes_no_gradient(noise):
    gradients, calls = [], []
    for flag in (False, True):
        encoder = vit(grad_checkpointing=flag, gate_noise=noise, drop_path=0.3)
        seen = count_calls(encoder)
        torch.manual_seed(4)
        found = encoder.forward_tasks(images(), TASKS)
        sum(f.maps[-1].square().mean() + f.aux["balance"] for f in found.values()).backward()
        gradients.append([p.grad for p in encoder.parameters()])
        calls.append(len(seen))
    assert calls[1] == 2 * calls[0]
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_checkpointing_keeps_fewer_activations():
    kept = []
    for flag in (False, True):
        encoder = vit(grad_checkpointing=flag)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: (sizes.append(t.numel()), t)[1], lambda t: t
        ):
            encoder.forward_tasks(images(), TASKS)
        kept.append(sum(sizes))
    assert kept[1] < 0.5 * kept[0]


def test_the_balance_loss_is_summed_over_blocks_and_tasks():
    encoder = vit(balance_weight=0.5, experts="random")
    doubled = vit(balance_weight=1.0, experts="random")
    one, two = (e.forward_tasks(images(), TASKS) for e in (encoder, doubled))
    for name in TASKS:
        assert one[name].aux["balance"] > 0
        torch.testing.assert_close(2 * one[name].aux["balance"], two[name].aux["balance"])
        torch.testing.assert_close(encoder(images(), name).aux["balance"], one[name].aux["balance"])
    single = vit(routing="single").forward_tasks(images(), TASKS)
    assert [list(f.aux) for f in single.values()] == [["balance"], [], []]
    assert vit(balance_weight=0.0)(images(), "depth").aux == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"moe_layers": (3, 1)}, r"moe_layers must ascend within 0\.\.3"),
        ({"moe_layers": (4,)}, r"moe_layers must ascend within 0\.\.3"),
        ({"moe_layers": ()}, "moe_layers must ascend"),
        ({"out_indices": (0, 1), "moe_layers": (3,)}, r"moe_layers must ascend within 0\.\.1"),
        ({"routing": "multi-gate"}, "Did you mean multi_gate"),
        ({"tasks": ("a", "a")}, "tasks must be different names"),
        ({"num_experts": 6, "top_k": 4}, "num_experts must be a multiple of top_k"),
        ({"expert_ratio": 1.0}, "expert_ratio must be left out"),
        ({"model_args": {**SHAPE, "patch_drop_rate": 0.5}}, "patch_drop_rate"),
        ({"model_args": {**SHAPE, "proj_drop_rate": 0.5}}, "proj_drop_rate"),
        ({"model_args": {**SHAPE, "scale_mlp_norm": True}}, "experts must be random"),
        ({"balance_weight": -1.0}, "balance_weight must not be negative"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises((ArgumentError, UnknownNameError), match=message):
        vit(**arguments)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("resnet10t", "ResNet"),
        ("swin_tiny_patch4_window7_224", "Swin"),
        ("eva02_tiny_patch14_224", "Eva"),
    ],
)
def test_other_models_are_refused_by_name(name, what):
    with pytest.raises(ArgumentError, match=f"plain ViT.*{what}"):
        MoEViT(TASKS, name=name)


def test_other_blocks_are_refused_by_name():
    arguments = {"model_args": {"embed_dim": 32, "depth": 2, "num_heads": 2}, "img_size": (32, 32)}
    with pytest.raises(ArgumentError, match="ResPostBlock"):
        MoEViT(TASKS, name="vit_base_patch16_rpn_224", **arguments)


def test_distilled_deit_has_two_prefix_tokens():
    shape = {"embed_dim": 32, "depth": 2, "num_heads": 2}
    encoder = MoEViT(
        TASKS, name="deit_tiny_distilled_patch16_224", img_size=(32, 32), model_args=shape
    )
    features = encoder(torch.randn(1, 3, 32, 32), "depth")
    assert features.tokens.shape == (1, 6, 32)
    assert features.maps[-1].shape == (1, 32, 2, 2)


def gmacs(encoder, size):
    """Where no expert takes more than its share, whatever the back end's default."""
    for m in encoder.modules():
        if isinstance(m, MoEFFN):
            m.capacity = 1.0
    picture = torch.empty(1, 3, *size, device="meta")
    with FlopCounterMode(display=False, depth=None) as counter:
        encoder(picture, TASKS[0])
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize(
    ("size", "blocks", "patch"), [((512, 512), 31.45, 0.30), ((480, 640), 38.79, 0.35)]
)
def test_multiplications_of_vit_s_are_those_of_the_dense_network_and_the_routers(
    size, blocks, patch
):
    """Test 8 of the specification. With a capacity of 1 experts take their shares, rounded up."""
    with torch.device("meta"):
        make = partial(MoEViT, TASKS, name="deit_small_patch16_224", img_size=size)
        encoder = make(backend="capacity").eval()
    width, positions = 384, size[0] * size[1] // 256
    tokens = positions + 1
    dense = 12 * (12 * tokens * width**2 + 2 * tokens**2 * width)
    assert dense / 1e9 == pytest.approx(blocks, abs=0.005)
    embedding = positions * 3 * 256 * width
    assert embedding / 1e9 == pytest.approx(patch, abs=0.005)
    routers = 6 * tokens * width * 16
    assert routers / 1e9 == pytest.approx(0.038 if size == (512, 512) else 0.044, abs=0.001)
    padding = 6 * 2 * width**2 * (16 * math.ceil(4 * tokens / 16) - 4 * tokens)
    expected = (dense + embedding + routers + padding) / 1e9
    assert gmacs(encoder, size) == pytest.approx(expected, rel=1e-6)


def test_an_expert_of_vit_s_has_295680_parameters_and_a_router_6144():
    with torch.device("meta"):
        encoder = MoEViT(TASKS, name="deit_small_patch16_224", img_size=(512, 512))
    banks = [m for m in encoder.modules() if isinstance(m, ExpertBank)]
    sizes = [sum(p.numel() for p in bank.parameters()) for bank in banks]
    assert encoder.moe_layers == (1, 3, 5, 7, 9, 11)
    assert sizes == [16 * 295_680] * 6
    assert sum(sizes) == pytest.approx(28.4e6, rel=2e-3)
    own = [sum(p.numel() for p in m.parameters()) for m in encoder.task_modules("depth")]
    assert own == [6_144] * 6
    mlp = sum(
        p.numel() for p in TimmEncoder("deit_small_patch16_224").model.blocks[1].mlp.parameters()
    )
    assert 6 * mlp == pytest.approx(7.1e6, rel=3e-3)


def test_compiled_parts_leave_the_routing_out_and_compute_the_same():
    encoder = scrambled()
    parts = encoder.compiled_parts()
    assert all(isinstance(part, nn.Module) for part in parts)
    assert not any(isinstance(m, Router | ExpertBank) for p in parts for m in p.modules())
    with torch.no_grad():
        expected = encoder(images(), "depth")
        compile_parts(parts, backend="eager", fullgraph=True)
        same(encoder(images(), "depth"), expected)
