import copy

from toys import ToyNetwork, toy_tasks

from mtl_core.nn.recorded import RecordsArguments


class Scale(RecordsArguments):
    def __init__(self, factor, *, bias=0.0) -> None:
        self.weight = factor


def test_arguments_have_names_and_defaults():
    assert Scale(2.0).arguments() == {"factor": 2.0, "bias": 0.0}
    assert Scale(factor=2.0, bias=1.0).arguments() == {"factor": 2.0, "bias": 1.0}


def test_networks_remember_theirs_outside_of_the_state_dict_and_through_copies():
    network = ToyNetwork(toy_tasks(), dropout=0.5)
    found = copy.deepcopy(network).arguments()
    assert found["dropout"] == 0.5
    assert list(found["tasks"]) == list(toy_tasks())
    assert not any("given" in key for key in network.state_dict())
