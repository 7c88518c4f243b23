import torch
from toy_columns import COLUMNS, column_inputs, column_tasks

from mtl_tabular.networks import MMoE, SharedBottom


def copied(network: MMoE) -> SharedBottom:
    """The shared perceptron that is the network's only expert."""
    tasks = column_tasks()
    other = SharedBottom(
        tasks, schema=COLUMNS, token_width=4, shared=(6, 5), tower=(3,), dropout=0.0
    )
    other.front.load_state_dict(network.front.state_dict())
    with torch.no_grad():
        for layer in range(2):
            linear, norm = other.shared[4 * layer], other.shared[4 * layer + 1]
            linear.weight.copy_(network.experts.weights[layer][0].t())
            linear.bias.copy_(network.experts.biases[layer][0])
            norm.load_state_dict(network.experts.norms[layer].state_dict())
    for name in tasks:
        other.towers[name].load_state_dict(network.heads[name].tower.state_dict())
    return other


def small(experts: int) -> MMoE:
    torch.manual_seed(0)
    return MMoE(
        column_tasks(),
        schema=COLUMNS,
        token_width=4,
        experts=experts,
        expert=(6, 5),
        tower=(3,),
        dropout=0.0,
    )


def test_one_expert_is_the_shared_perceptron():
    network = small(1)
    other = copied(network)
    for _ in range(2):  # training, then evaluation
        found, expected = network(column_inputs()), other(column_inputs())
        for name, prediction in found.items():
            torch.testing.assert_close(prediction, expected[name], rtol=1e-4, atol=1e-5)
        network.eval(), other.eval()


def test_a_gate_that_chooses_gives_that_expert():
    network = small(3).eval()
    features = network.encode(column_inputs())
    outputs = features.maps[0].unflatten(1, (3, -1))
    head = network.heads["kind"]
    with torch.no_grad():
        head.gate.linear.weight.zero_()
        head.gate.linear.bias.copy_(torch.tensor([0.0, 200.0, 0.0]))
    torch.testing.assert_close(network.decode(features, "kind"), head.tower(outputs[:, 1]))


def test_gates_sum_to_one_for_every_task():
    network = small(3)
    flat = network.encode(column_inputs()).maps[1]
    for name in network.tasks:
        torch.testing.assert_close(network.heads[name].gate.shares(flat).sum(1), torch.ones(12))
