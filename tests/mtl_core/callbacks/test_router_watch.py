import pytest
import torch
from torch import nn
from toy_routed import RoutedToy, routers
from toys import toy_tasks

from mtl_core.callbacks.router_watch import RouterWatch, RoutingCounts, short_names
from mtl_core.moe import PerTaskRouter, RouterOut, SingleRouter

NAMES = ("size", "kind", "marks")


def test_sees_every_routing_while_it_is_on():
    seen = []
    network = RoutedToy(toy_tasks())
    watch = RouterWatch(network, lambda name, router, task, out: seen.append((name, task)))
    network(torch.rand(3, 6))
    assert seen == []
    watch.on = True
    network(torch.rand(3, 6), tasks=["kind"])
    assert seen == [("blocks.0.router", "kind"), ("blocks.1.router", "kind")]
    watch.remove()
    network(torch.rand(3, 6))
    assert len(seen) == 2
    assert not any(m._forward_hooks for m in network.modules())


def test_task_may_be_given_by_keyword():
    seen = []
    router = PerTaskRouter(("a", "b"), 6, 4, 2)
    watch = RouterWatch(nn.ModuleList([router]), lambda *given: seen.append(given[2]))
    watch.on = True
    router(x=torch.rand(2, 6), task="b")
    router(torch.rand(2, 6), task="a")
    assert seen == ["b", "a"]


@pytest.mark.parametrize("tokens", [(), (7,), (3, 5)])
def test_counts_of_names_and_of_indices_agree(tokens):
    """Both with counting by hand, for samples, tokens and maps."""
    router = PerTaskRouter(NAMES, 6, 4, 2)
    given = {"r": router}
    x = torch.rand(5, *tokens, 6)
    which = torch.tensor([0, 2, 2, 0, 2])
    stacked, named = (RoutingCounts(given, torch.device("cpu")) for _ in range(2))
    out = router(x, which)
    stacked.add("r", which, out)
    for i, task in enumerate(which.tolist()):
        named.add("r", NAMES[task], router(x[i : i + 1], NAMES[task]))
    assert torch.allclose(stacked.flat(), named.flat())
    chosen, weight = stacked.split(stacked.flat())["r"]
    assert chosen.sum() == out.idx.numel()
    assert chosen[1].sum() == 0
    by_hand = torch.zeros(3, 4)
    for i, task in enumerate(which.tolist()):
        for expert, gate in zip(out.idx[i].flatten(), out.gate[i].flatten(), strict=True):
            by_hand[task, expert] += gate.detach()
    assert torch.allclose(weight, by_hand, atol=1e-6)


@pytest.mark.parametrize("task", ["b", torch.tensor([0, 0, 1])])
def test_a_router_without_tasks_chooses_for_all_of_them(task):
    router = SingleRouter(("a", "b"), 6, 4, 2)
    counts = RoutingCounts({"r": router}, torch.device("cpu"))
    counts.add("r", task, router(torch.rand(3, 7, 6), task))
    chosen = counts.split(counts.flat())["r"][0]
    assert torch.equal(chosen[0], chosen[1])
    assert chosen[0].sum() == 3 * 7 * 2


def test_processes_add_up():
    network = RoutedToy(toy_tasks())
    found = routers(network)
    halves = torch.rand(6, 6).chunk(2)
    parts = [RoutingCounts(found, torch.device("cpu")) for _ in range(3)]
    for part, x in zip(parts, (*halves, torch.cat(halves)), strict=True):
        watch = RouterWatch(network, lambda n, r, t, out, part=part: part.add(n, t, out))
        watch.on = True
        network(x)
        watch.remove()
    assert torch.allclose(parts[0].flat() + parts[1].flat(), parts[2].flat(), atol=1e-6)


def test_gradients_do_not_stay_alive():
    router = PerTaskRouter(("a",), 6, 4, 2)
    counts = RoutingCounts({"r": router}, torch.device("cpu"))
    counts.add("r", "a", router(torch.rand(3, 6), "a"))
    assert not counts.flat().requires_grad


def test_uneven_routings_are_taken_as_they_are():
    idx, gate = torch.tensor([[1], [1], [3]]), torch.tensor([[0.5], [0.25], [1.0]])
    out = RouterOut(idx, gate, torch.zeros(3, 4), torch.zeros(3, 4))
    counts = RoutingCounts({"r": PerTaskRouter(("a",), 6, 4, 1)}, torch.device("cpu"))
    counts.add("r", "a", out)
    assert counts.flat().tolist() == [0, 2, 0, 1, 0, 0.75, 0, 1.0]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["e.blocks.1.mlp.router", "e.blocks.11.mlp.router"], ["blocks.1", "blocks.11"]),
        (["layers.0.0.router", "layers.1.0.router"], ["layers.0", "layers.1"]),
        (["a.router", "b.c.router"], ["a", "b.c"]),
        (["router"], ["router"]),
        (["net.blocks.3.router"], ["blocks.3"]),
        (["x", "x.y"], ["x", "x.y"]),
    ],
)
def test_short_names(names, expected):
    assert list(short_names(names).values()) == expected
