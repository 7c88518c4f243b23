"""mtl_vision.networks.m3vit: single-task paths, warm starts, distillation, training."""

import copy
import math
from functools import partial
from typing import ClassVar

import pytest
import torch
from dense_laws import SIZE, TASKS, TINY, NetworkLaws, first, random_batch, scramble, turn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from toys import parameters_of, toy_trainer

from mtl_core.balancing import MGDA, MGDAUB, UW, PCGrad
from mtl_core.data.batch import collate
from mtl_core.errors import ArgumentError, BalancerError
from mtl_core.hub import from_pretrained, save_pretrained
from mtl_core.modules import MultiTaskModule
from mtl_core.moe import ExpertBank, MoEFFN, Router
from mtl_core.nn import LinearDecoder
from mtl_core.tasks import Classification
from mtl_vision.decoders import FPNDecoder, PUPDecoder, PUPLightDecoder
from mtl_vision.encoders import MoEViT, TimmEncoder
from mtl_vision.networks import HardSharing, M3ViT
from mtl_vision.tasks import SemanticSegmentation

NAME = "vit_tiny_patch16_224"
PUP = partial(PUPDecoder, width=8, stages=3)
ENCODER = partial(MoEViT, name=NAME, img_size=SIZE, model_args=TINY, num_experts=8, top_k=2)


def m3vit(tasks, *, encoder=ENCODER, decoder=PUP, **arguments):
    torch.manual_seed(0)
    return M3ViT(tasks, encoder=encoder, decoder=decoder, **arguments)


def hard_sharing(tasks, decoder=PUP):
    dense = partial(TimmEncoder, NAME, img_size=SIZE, model_args=TINY)
    return scramble(HardSharing(tasks, encoder=dense, decoder=decoder))


def images(count=2):
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(3))


class ExpertLaws(NetworkLaws):
    """Laws of dense networks, for experts instead of the encoder that the laws name."""

    experts: ClassVar[partial[MoEViT]] = ENCODER
    make = m3vit
    test_any_size_goes_through_a_convolutional_encoder: ClassVar[None] = None
    test_parts_to_compile_hold_every_parameter_once: ClassVar[None] = None  # routing stays out

    def network(self, tasks, **arguments):
        return m3vit(tasks, encoder=self.experts, decoder=partial(PUP, width=16))

    def test_parameters_serve_the_tasks_that_they_are_said_to(self):
        """In a batch of tasks other routers are reached too, by a gradient of zero."""
        network = scramble(self.network(first(3)))
        out = network.run(images())
        split = network.split_parameters()
        parameters = [*split.shared, *split.all_own()]
        for task, prediction in out.predictions.items():
            loss = prediction.square().mean()
            found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            reached = {
                id(p) for p, g in zip(parameters, found, strict=True) if g is not None and g.any()
            }
            assert reached == {id(p) for p in [*split.shared, *split.own[task]]}


class TestMultiGate(ExpertLaws):
    pass


class TestConditioned(ExpertLaws):
    experts = partial(ENCODER, routing="conditioned", experts="random", num_experts=4)
    test_two_images_are_learned_by_heart: ClassVar[None] = None  # the first of both tells

    def permute(self, state, order):
        return {
            k: turn(v, 1, order) if k.endswith("router.embedding.weight") else v
            for k, v in state.items()
        }


def executed(network):
    """Names of the modules without children that ran."""
    names = []
    for name, module in network.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *_, name=name: names.append(name))
    return names


def test_one_task_runs_its_routers_decoder_and_nothing_else():
    network = m3vit(first(3), distillation=(-1,)).eval()
    ran = executed(network)
    with torch.no_grad():
        network(images(), tasks=["depth"])
    own = {id(m) for part in network.decoder_modules("depth") for m in part.modules()}
    theirs = {
        id(m)
        for name in ("semseg", "normals")
        for part in network.decoder_modules(name)
        for m in part.modules()
    }
    assert network.distillation is not None
    theirs |= {id(m) for m in network.distillation.modules()}
    modules = dict(network.named_modules())
    assert not {id(modules[name]) for name in ran} & theirs
    assert {id(modules[name]) for name in ran} & own
    assert len(ran) == len(set(ran)), "nothing runs twice"


def test_multiplications_of_one_task_at_the_papers_setting():
    """83.7 G at 512², 100.5 G at 480×640 (test 8) but for routers and rounding; light: ≤ 45 G."""

    def gmacs(size, decoder, classes=21):
        tasks = {"semseg": SemanticSegmentation(num_classes=classes), "depth": TASKS["depth"]}
        make = partial(MoEViT, name="deit_small_patch16_224", img_size=size, backend="capacity")
        with torch.device("meta"):
            network = M3ViT(tasks, encoder=make, decoder=decoder, distillation=(-1,)).eval()
            for m in network.modules():
                if isinstance(m, MoEFFN):
                    m.capacity = 1.0
            with FlopCounterMode(display=False) as counter:
                network.run(torch.empty(1, 3, *size), tasks=["semseg"])
        tokens = size[0] * size[1] // 256 + 1
        routers = 6 * tokens * 384 * 16
        padding = 6 * 2 * 384**2 * (16 * math.ceil(4 * tokens / 16) - 4 * tokens)
        return counter.get_total_flops() / 2e9 - (routers + padding) / 1e9

    light = PUPLightDecoder
    assert gmacs((512, 512), PUPDecoder) == pytest.approx(83.7, abs=0.05)
    assert gmacs((480, 640), PUPDecoder, classes=40) == pytest.approx(100.5, abs=0.06)
    assert gmacs((512, 512), light) == pytest.approx(36.3, abs=0.05)
    assert gmacs((512, 512), partial(light, stages=4)) == pytest.approx(41.0, abs=0.05)


# Warm starts


@pytest.mark.parametrize("routing", ["multi_gate", "conditioned", "single"])
def test_started_from_hard_sharing_it_is_hard_sharing(routing, tmp_path):
    dense = hard_sharing(first(3))
    save_pretrained(dense, tmp_path / "dense")
    module = MultiTaskModule(first(3), lambda tasks: dense)
    torch.save({"state_dict": module.state_dict()}, tmp_path / "dense.ckpt")
    with torch.no_grad():
        expected = dense(images())
    for source in ("dense", "dense.ckpt"):
        network = m3vit(
            first(3), encoder=partial(ENCODER, routing=routing), start_from=tmp_path / source
        ).eval()
        with torch.no_grad():
            found = network(images())
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-5)


def test_some_tasks_or_the_encoder_alone_can_be_taken(tmp_path):
    source = save_pretrained(hard_sharing(first(3)), tmp_path / "dense")
    network = m3vit(first(1), start_from=source)
    assert list(network.decoders) == ["semseg"]
    wide = partial(PUPDecoder, width=16)
    with pytest.raises(ArgumentError, match="start_from must hold semseg's decoder"):
        m3vit(first(1), decoder=wide, start_from=source)
    network = m3vit(first(1), decoder=wide, start_from=source, start_decoders=False)
    norm = network.encoder.model.norm.weight
    assert not torch.equal(norm, torch.ones_like(norm))


def test_a_network_that_was_started_can_be_rebuilt_without_its_source(tmp_path):
    source = save_pretrained(hard_sharing(first(2)), tmp_path / "dense")
    network = m3vit(first(2), start_from=source, distillation=(-1,)).eval()
    saved = save_pretrained(network, tmp_path / "experts")
    for file in source.iterdir():
        file.unlink()
    loaded = from_pretrained(saved)
    with torch.no_grad():
        expected, found = network(images()), loaded(images())
    for name in expected:
        assert torch.equal(found[name], expected[name])


# Distillation


def test_further_predictions_are_made_in_training_alone():
    network = m3vit(first(3), distillation=(-2, -1))
    out = network.run(images())
    for name, found in out.intermediate.items():
        channels = TASKS[name].out_channels
        assert [tuple(m.shape) for m in found] == [(2, channels, 8, 12), (2, channels, 16, 24)]
    assert list(out.intermediate) == list(first(3))
    some = network.run(images(), tasks=["depth"])
    assert list(some.predictions) == list(some.intermediate) == ["depth"]
    plain = copy.deepcopy(network).eval()
    plain.remove_distillation()
    network.eval()
    with torch.no_grad():
        assert network.run(images()).intermediate == {}
        for name, prediction in network(images()).items():
            assert torch.equal(prediction, plain(images())[name])
    names = set(plain.state_dict())
    assert not any("distillation" in name for name in names)
    assert names < set(network.state_dict())


def test_a_removed_distillation_stays_away_after_saving(tmp_path):
    network = m3vit(first(2), distillation=(-1,)).eval()
    network.remove_distillation()
    loaded = from_pretrained(save_pretrained(network, tmp_path / "saved"))
    assert loaded.distillation is None
    assert set(loaded.state_dict()) == set(network.state_dict())


def test_one_dense_task_is_not_distilled_and_tasks_of_whole_images_stay_out():
    assert m3vit(first(1), distillation=(-1,)).distillation is None
    tasks = {**first(2), "scene": Classification(num_classes=3)}
    network = m3vit(tasks, distillation=(-1,))
    assert isinstance(network.decoders["scene"], LinearDecoder)
    out = network.run(images())
    assert out.predictions["scene"].shape == (2, 3)
    assert list(out.intermediate) == ["semseg", "depth"]
    assert list(network.run(images(), tasks=["scene"]).intermediate) == []
    with pytest.raises(ArgumentError, match="must work in stages"):
        m3vit(first(2), decoder=partial(FPNDecoder, width=16), distillation=(-1,))


def test_losses_of_further_predictions_reach_the_features_of_all_tasks():
    network = m3vit(first(3), distillation=(-1,))
    out = network.run(images())
    out.intermediate["depth"][0].square().mean().backward()
    for name in first(3):
        assert network.decoders[name].stages[-1][0].weight.grad is not None
        assert network.decoders[name].classifier.weight.grad is None


# Training


def loader(tasks, count=4):
    batch = random_batch(tasks, count)
    samples = [
        {"inputs": batch["inputs"][i], "targets": {n: t[i] for n, t in batch["targets"].items()}}
        for i in range(count)
    ]
    return DataLoader(samples, 2, collate_fn=collate)


def trained(balancers, *, epochs=2, path=None, root=None, **arguments):
    tasks = first(3)
    module = MultiTaskModule(
        tasks, partial(m3vit, **arguments), partial(torch.optim.SGD, lr=1e-3, momentum=0.9)
    )
    options = {} if root is None else {"default_root_dir": root}
    trainer = toy_trainer(*balancers, max_epochs=epochs, **options)
    trainer.fit(module, loader(tasks), loader(tasks), ckpt_path=path)
    return module, trainer


@pytest.mark.parametrize("balancer", [UW, PCGrad, MGDA])
@pytest.mark.parametrize("distillation", [(), (-1,)])
def test_balancers_train_it(balancer, distillation):
    module, _ = trained([balancer()], epochs=1, distillation=distillation)
    assert torch.isfinite(parameters_of(module.network)).all()


def test_methods_that_need_a_border_say_so():
    with pytest.raises(BalancerError, match="border"):
        trained([MGDAUB()], epochs=1)


def test_the_balance_loss_trains_the_routers():
    """Twice the weight, twice the gradient that no task's loss explains."""
    rows = []
    for weight in (0.0, 1.0, 2.0):
        network = m3vit(
            first(2), encoder=partial(ENCODER, experts="random", balance_weight=weight)
        ).eval()
        network.encoder.train()
        out = network.run(images())
        assert (list(out.aux) == ["balance"]) == bool(weight)
        loss = sum(p.square().mean() for p in out.predictions.values()) + sum(out.aux.values())
        routers = [
            p for n in first(2) for m in network.encoder.task_modules(n) for p in m.parameters()
        ]
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, routers)]))
    torch.testing.assert_close(rows[2] - rows[0], 2 * (rows[1] - rows[0]), atol=1e-5, rtol=1e-3)
    assert (rows[1] - rows[0]).abs().max() > 1e-4


def test_a_resumed_fit_ends_where_the_whole_one_does(tmp_path):
    whole, _ = trained([PCGrad()], epochs=2, distillation=(-1,))
    _, trainer = trained([PCGrad()], epochs=1, distillation=(-1,), root=tmp_path)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _ = trained([PCGrad()], epochs=2, path=tmp_path / "half.ckpt", distillation=(-1,))
    torch.testing.assert_close(
        parameters_of(resumed.network), parameters_of(whole.network), rtol=1e-6, atol=1e-7
    )


def test_encode_serves_one_task_or_one_router():
    network = m3vit(first(1)).eval()
    with torch.no_grad():
        features = network.encode(images())
        assert torch.equal(
            network.decode(features, "semseg"), network.run(images()).predictions["semseg"]
        )
    with pytest.raises(ArgumentError, match="task must name one of the tasks"):
        m3vit(first(2)).encode(images())


def test_compiled_parts_are_everything_but_norms_and_routing():
    network = m3vit(first(2))
    parts = network.compiled_parts()
    assert {id(d) for d in network.decoders.values()} < {id(p) for p in parts}
    inside = [m for part in parts for m in part.modules()]
    assert not any(isinstance(m, Router | ExpertBank) for m in inside)
    assert len(inside) == len({id(m) for m in inside})
