import pytest
import torch
from torch import nn
from toys import ToyNetwork, toy_tasks

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.moe import ExpertBank, MoEFFN, PerTaskRouter
from mtl_core.nn import FeatureInfo, Features, LinearDecoder, MultiTaskNetwork, Outputs
from mtl_core.profile import profile_network

TRUNK = 6 * 16 + 16 * 8
HEADS = {"size": 8 * 1, "kind": 8 * 3, "marks": 8 * 2}


class Routed(MultiTaskNetwork):
    """Experts, a router and a decoder for every task."""

    border = False

    def __init__(self, tasks, *, leak=False):
        super().__init__(tasks)
        names = tuple(tasks)
        self.leak = leak
        self.ffn = MoEFFN(PerTaskRouter(names, 8, 4, 2), ExpertBank(4, 8, 16))
        info = FeatureInfo((8,), (1,))
        self.heads = nn.ModuleDict({n: LinearDecoder(info, t) for n, t in tasks.items()})

    def encode(self, inputs, tags=None):
        raise NotImplementedError

    def decode(self, features, task):
        return self.heads[task](features)

    def decoder_modules(self, task):
        return [self.heads[task], self.ffn.router.gate(task)]

    def run(self, inputs, *, tasks=None, tags=None, cut=False):
        out = Outputs({})
        for name in self.select(tasks):
            tokens, _ = self.ffn(inputs[:, None], name)
            features = Features([tokens[:, 0]])
            out.predictions[name] = self.decode(features, name)
            if self.leak:
                self.decode(features, next(iter(self.tasks)))
        return out


def test_shared_work_counts_once_and_decoders_by_task():
    network = ToyNetwork(toy_tasks())
    profile = profile_network(network, torch.rand(5, 6))
    assert {t: c.macs for t, c in profile.single.items()} == {
        t: TRUNK + own for t, own in HEADS.items()
    }
    assert profile.macs == TRUNK + sum(HEADS.values())
    assert profile.batch == 5
    assert profile.together.parts == {
        "trunk": TRUNK,
        **{f"decoders.{t}": own for t, own in HEADS.items()},
    }
    assert set(profile.single["kind"].parts) == {"trunk", "decoders.kind"}


def test_a_task_computes_its_own_path_and_nothing_else():
    network = ToyNetwork(toy_tasks())
    profile = profile_network(network, torch.rand(2, 6))
    for task, cost in profile.single.items():
        assert cost.foreign == ()
        decoders = {m.split(".")[1] for m in cost.modules if m.startswith("decoders.")}
        assert decoders == {task}
        own = sum(p.numel() for p in network.task_parameters(task))
        shared = sum(p.numel() for p in network.shared_parameters())
        assert cost.parameters == own + shared
        assert cost.weight_bytes == 4 * cost.parameters
    assert profile.together.parameters == profile.parameters


def test_who_computes_with_other_tasks_is_found_out():
    network = Routed(toy_tasks(), leak=True)
    single = profile_network(network, torch.rand(2, 8)).single
    assert single["size"].foreign == ()
    assert all(name.startswith("heads.size.") for name in single["kind"].foreign)
    assert len(single["kind"].foreign) == 2


def test_experts_cost_what_is_chosen_and_dense_ones_all():
    network = Routed(toy_tasks())
    profile = profile_network(network, torch.rand(3, 8))
    expert, router = 2 * 8 * 16, 8 * 4
    assert profile.single["kind"].macs == 2 * expert + router + HEADS["kind"]
    dense = profile.dense["kind"].macs
    mixing = 4 * 8  # all experts' outputs are weighed by a product, chosen ones one by one
    assert dense == 4 * expert + router + mixing + HEADS["kind"]
    assert network.ffn.backend == "sorted"
    assert profile.saving("kind")["all experts"] == pytest.approx(
        1 - profile.single["kind"].macs / dense
    )
    assert profile_network(network, torch.rand(3, 8), dense=False).dense == {}


def test_networks_of_one_task_and_others():
    tasks = toy_tasks()
    network = ToyNetwork(tasks)
    alone = {name: ToyNetwork({name: task}) for name, task in tasks.items()}
    wide = ToyNetwork(tasks)
    found = profile_network(network, torch.rand(4, 6), separate=alone, others={"wide": wide})
    assert found.saving("kind")["a network of its own"] == 0
    assert found.saving("kind")["wide"] == pytest.approx(1 - (TRUNK + 24) / found.macs)
    apart = 3 * TRUNK + sum(HEADS.values())
    assert found.saving()["separate networks"] == pytest.approx(1 - found.macs / apart)
    assert found.saving()["a call a task"] == pytest.approx(1 - found.macs / apart)


def test_modes_values_and_randomness_are_left_alone():
    network = ToyNetwork(toy_tasks(), dropout=0.5, norm=True)
    network.train()
    network.trunk[1].eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    modes = [m.training for m in network.modules()]
    state = torch.get_rng_state()
    profile_network(network, torch.rand(4, 6, generator=torch.Generator()), repeats=1)
    assert [m.training for m in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


def test_time_is_there_when_asked_for():
    network = ToyNetwork(toy_tasks())
    assert profile_network(network, torch.rand(4, 6)).together.seconds is None
    found = profile_network(network, torch.rand(4, 6), ["kind", "size"], repeats=2)
    assert found.tasks == ("size", "kind")
    assert found.together.time_ratio == 1
    assert all(cost.seconds > 0 for cost in found.single.values())


def test_arithmetic_does_not_depend_on_the_batch_and_memory_does():
    network = ToyNetwork(toy_tasks())
    one, many = (profile_network(network, torch.rand(b, 6)) for b in (1, 10))
    assert one.macs == many.macs
    assert many.together.peak_bytes == 10 * one.together.peak_bytes


def test_counting_needs_no_arithmetic():
    """On the meta device everything but time is what it is elsewhere."""
    network, x = Routed(toy_tasks()), torch.rand(3, 8)
    real = profile_network(network, x)
    found = profile_network(network.to("meta"), x.to("meta"))
    assert found.device == "meta"
    for task in real.tasks:
        assert found.single[task].macs == real.single[task].macs
        assert found.single[task].parameters == real.single[task].parameters


def test_mistakes():
    network = ToyNetwork(toy_tasks())
    with pytest.raises(UnknownNameError, match="kind"):
        profile_network(network, torch.rand(1, 6), ["kin"])
    with pytest.raises(ArgumentError, match="tasks"):
        profile_network(network, torch.rand(1, 6), [])
    with pytest.raises(ArgumentError, match="inputs"):
        profile_network(network, {})
