from toys import toy_module

from mtl_core.nn.parts import ParameterSplit


def test_every_trainable_parameter_has_one_place():
    network = toy_module().network
    network.trunk[0].weight.requires_grad_(False)
    split = network.split_parameters()
    assert isinstance(split, ParameterSplit)
    assert list(split.own) == list(network.tasks)
    everything = [*split.shared, *split.all_own()]
    assert {id(p) for p in everything} == {id(p) for p in network.parameters() if p.requires_grad}
    assert len(everything) == len({id(p) for p in everything})
    assert split.shared[0] is network.trunk[0].bias
