import pytest
import torch
from toys import ToyNetwork, toy_tasks

from mtl_core.errors import UnknownNameError
from mtl_core.nn import Decoded


def test_only_the_asked_decoders_run():
    network = ToyNetwork(toy_tasks())
    ran: list[str] = []
    for name, decoder in network.decoders.items():
        decoder.register_forward_hook(lambda *_, name=name: ran.append(name))
    out = network(torch.randn(2, 6), ["marks", "size"])
    assert ran == ["size", "marks"]
    assert list(out) == ["size", "marks"]


def test_unknown_task_names_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean marks"):
        ToyNetwork(toy_tasks())(torch.randn(2, 6), ["mark"])


def test_every_parameter_is_shared_or_one_tasks_own():
    network = ToyNetwork(toy_tasks())
    own = [p for t in network.tasks for p in network.task_parameters(t)]
    shared = network.shared_parameters()
    found = {id(p) for p in [*own, *shared]}
    assert len(found) == len(own) + len(shared)
    assert found == {id(p) for p in network.parameters()}
    assert network.independent_decoders()


def test_a_decoder_of_two_tasks_is_shared():
    network = ToyNetwork({"a": toy_tasks()["size"], "b": toy_tasks()["size"]})
    network.decoders["b"] = network.decoders["a"]
    assert network.task_parameters("a") == []
    assert len(network.shared_parameters()) == len(list(network.parameters()))
    assert not network.independent_decoders()


def test_frozen_parameters_are_nobodys():
    network = ToyNetwork(toy_tasks())
    network.trunk.requires_grad_(False)
    assert network.shared_parameters() == []


def test_cut_gives_each_task_a_side_of_its_own():
    network = ToyNetwork(toy_tasks())
    out = network.run(torch.randn(2, 6), cut=True)
    out.predictions["size"].sum().backward()
    assert out.cut["size"].maps[0].grad is not None
    assert out.cut["kind"].maps[0].grad is None
    assert network.trunk[0].weight.grad is None
    assert ToyNetwork(toy_tasks(), border=False).run(torch.randn(2, 6), cut=True).cut == {}


def test_intermediate_predictions_are_kept_apart():
    class Deep(ToyNetwork):
        def decode(self, features, task):
            out = super().decode(features, task)
            return Decoded(out, (out * 2,)) if task == "size" else out

    network = Deep(toy_tasks())
    out = network.run(torch.randn(2, 6))
    torch.testing.assert_close(out.intermediate["size"][0], out.predictions["size"] * 2)
    assert set(out.intermediate) == {"size"}
    assert set(network(torch.randn(2, 6))) == set(toy_tasks())


def test_parts_to_compile_cover_every_parameter_once():
    network = ToyNetwork(toy_tasks())
    parameters = [id(p) for part in network.compiled_parts() for p in part.parameters()]
    assert sorted(parameters) == sorted(id(p) for p in network.parameters())


def test_by_default_a_task_needs_itself_and_all_parameters_learn_alike():
    network = ToyNetwork(toy_tasks())
    assert network.required_tasks("kind") == ("kind",)
    assert network.learning_rates() == []
    with pytest.raises(UnknownNameError, match="Did you mean marks"):
        network.required_tasks("mark")
