from functools import partial

import torch
from dense_laws import ENCODER, SIZE, NetworkLaws, first, turn

from mtl_vision.decoders import FPNDecoder
from mtl_vision.networks import NDDRCNN, HardSharing
from mtl_vision.networks.nddr import NDDRUnit

FPN = partial(FPNDecoder, width=16)


class TestNDDRCNN(NetworkLaws):
    make = partial(NDDRCNN, decoder=FPN, activation="none")

    def permute(self, state, order):
        found = {}
        for key, value in state.items():
            words = key.split(".")
            if words[0] == "mixers":
                at = 4
                words[at] = str(order.index(int(words[at])))
                if words[3] == "convs":
                    value = turn(value, 1, order)
            found[".".join(words)] = value
        return found


def test_identity_gives_the_single_task_networks_of_non_negative_features():
    """But for batch norm's epsilon: 1 / sqrt(1 + 1e-5) a stage."""
    tasks = first(2)
    made = {"encoder": "resnet10t", "decoder": FPN}
    network = NDDRCNN(tasks, **made, diagonal=1, off_diagonal=0).eval()
    for norm in (m for m in network.mixers.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.eps = 0.0
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        found = network(images)
        for name, task in tasks.items():
            single = HardSharing({name: task}, **made).eval()
            single.encoder.load_state_dict(network.encoders[name].state_dict())
            single.decoders[name].load_state_dict(network.decoders[name].state_dict())
            torch.testing.assert_close(found[name], single(images)[name], atol=1e-5, rtol=1e-4)


def test_a_unit_starts_as_weighted_sums_and_cuts_off_what_is_negative():
    weights = torch.tensor([[0.9, 0.1], [0.2, 0.7]])
    maps = list(torch.randn(2, 2, 3, 4, 5))
    for activation, expected in (("none", lambda x: x), ("relu", torch.relu)):
        unit = NDDRUnit(weights, 3, activation=activation).eval()
        for i, found in enumerate(unit(maps, [0, 1])):
            mixed = weights[i, 0] * maps[0] + weights[i, 1] * maps[1]
            torch.testing.assert_close(found, expected(mixed), atol=1e-4, rtol=1e-4)


def test_parameters_of_the_units():
    """T²·C² + 2·T·C a stage."""
    network = NDDRCNN(first(3), encoder="resnet10t", decoder=FPN)
    numbers = [sum(p.numel() for p in stage.parameters()) for stage in network.mixers]
    assert numbers == [9 * c * c + 6 * c for c in (64, 128, 256, 512)]


def test_the_last_stage_is_each_tasks_own():
    network = NDDRCNN(first(2), encoder=ENCODER, decoder=FPN)
    own = {id(p) for p in network.task_parameters("depth")}
    last = network.mixers[-1][0]
    assert {id(p) for p in [*last.convs[1].parameters(), *last.norms[1].parameters()]} <= own
    shared = {id(p) for p in network.shared_parameters()}
    assert {id(p) for stage in network.mixers[:-1] for p in stage.parameters()} <= shared
