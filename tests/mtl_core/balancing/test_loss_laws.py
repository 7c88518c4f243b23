"""What holds for every method that only weighs losses."""

import math

import pytest
import torch
from balancing_methods import METHODS
from toys import fit, toy_tasks

from mtl_core.balancing import FAMO, LDCMTL, Equal, LossBalancer
from mtl_core.errors import BalancerError

LOSSES = torch.tensor([0.5, 2.0, 1.25], dtype=torch.float64)
ENTRIES = tuple(toy_tasks())


def plain(make):
    """Methods on numbers alone: the router gets free scalars in the place of features."""
    balancer = make()
    return LDCMTL(router="free") if isinstance(balancer, LDCMTL) else balancer


MAKERS = {name: make for name, make in METHODS.items() if isinstance(make(), LossBalancer)}
POSITIVE = [
    *("SI", "UWO", "UWSO", "GLS", "IMTLL", "IGB", "GO4Align", "STCH nadir", "LDCMTL"),
    *("FAMO", "FAMO next step", "RepMTL"),
]
PLACED = {
    "DTP",
    "Static",
    "UW paper",
    "COSMOS drawn",
    "LDCMTL",
    "LDCMTL free",
    "RLW",
    "RLW dirichlet",
}
AT_CONSENSUS = {"DWA", "Equal", "GLS", "GO4Align", "IMTLL", "PBI", "STCH", "UWO", "UWSO", "COSMOS"}


def started(name, entries=ENTRIES):
    balancer = plain(MAKERS[name])
    if name in ("DTP", "Static", "UW paper") and entries != ENTRIES:
        entries = ENTRIES[: len(entries)]
        balancer = type(balancer)() if name != "UW paper" else MAKERS["UW"]()
    balancer.start(entries)
    return balancer


def weigh(balancer, losses, entries=None):
    return balancer.weigh(losses, balancer.step(entries or balancer.entries))


def advanced(balancer, windows=4):
    for i in range(windows):
        balancer.advance(LOSSES * (1 + 0.1 * i), balancer.step(balancer.entries))
        balancer.index += 1
    return balancer


def test_the_catalogue_holds_all_of_them():
    kinds = {type(make()) for make in MAKERS.values()}
    assert len(kinds) >= 17
    assert all(kind.source for kind in kinds)


@pytest.mark.parametrize("name", MAKERS)
def test_weighing_leaves_the_state_alone(name):
    balancer = advanced(started(name))
    before = weigh(balancer, LOSSES)
    weigh(balancer, LOSSES * 3)
    assert torch.equal(weigh(balancer, LOSSES), before)
    assert before.dtype == torch.float64
    assert before.shape == (3,)


@pytest.mark.parametrize("name", MAKERS)
def test_state_round_trip_goes_on_identically(name):
    first = advanced(started(name))
    second = started(name)
    second.load_state_dict(first.state_dict())
    for one in (first, second):
        advanced(one, 3)
    assert torch.equal(weigh(first, LOSSES), weigh(second, LOSSES))
    first.start(ENTRIES)
    assert torch.equal(weigh(first, LOSSES), weigh(started(name), LOSSES))


@pytest.mark.parametrize("name", MAKERS)
def test_absent_tasks_keep_their_state(name):
    """A window without a task leaves what the method will make of that task alone."""
    balancer = advanced(started(name))
    before = balancer.state_dict()["method"]
    entries = (ENTRIES[0], ENTRIES[2])
    balancer.advance(LOSSES[[0, 2]], balancer.step(entries))
    after = balancer.state_dict()["method"]
    assert torch.isfinite(weigh(balancer, LOSSES[[0, 2]], entries)).all()
    for key, value in before.items():
        if isinstance(value, torch.Tensor) and value.shape[-1] == 3:
            assert torch.equal(value[..., 1].nan_to_num(), after[key][..., 1].nan_to_num())


@pytest.mark.parametrize("name", sorted(set(MAKERS) - PLACED))
def test_no_task_depends_on_its_place(name):
    """Without names, draws and neighbours, permuting the tasks permutes the weights."""
    order = torch.tensor([2, 0, 1])
    straight, turned = started(name), started(name)
    for i in range(4):
        losses = LOSSES * (1 + 0.1 * i)
        straight.advance(losses, straight.step(ENTRIES))
        turned.advance(losses[order], turned.step(ENTRIES))
    torch.testing.assert_close(weigh(straight, LOSSES)[order], weigh(turned, LOSSES[order]))


@pytest.mark.parametrize("name", MAKERS)
def test_one_task_is_itself(name):
    balancer = started(name, ENTRIES[:1])
    weight = float(weigh(balancer, LOSSES[:1]))
    over_loss = dict.fromkeys(["SI", "IGB", "STCH nadir", "RepMTL"], 1 / 0.5)
    expected = {**over_loss, "UW": 0.5, "UW paper": 0.5}
    assert weight == pytest.approx(expected.get(name, 1.0), rel=1e-6)


@pytest.mark.parametrize("name", sorted(AT_CONSENSUS))
@pytest.mark.parametrize("tasks", [2, 5])
def test_equal_losses_sum_to_the_number_of_tasks(name, tasks):
    entries = tuple("abcde"[:tasks])
    balancer = type(MAKERS[name]())()
    balancer.start(entries)
    ones = torch.ones(tasks, dtype=torch.float64)
    torch.testing.assert_close(weigh(balancer, ones), ones)


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e8])
@pytest.mark.parametrize("name", MAKERS)
def test_finite_at_any_scale(name, scale):
    balancer = started(name)
    for i in range(3):
        balancer.advance(LOSSES * scale * (1 + i), balancer.step(ENTRIES))
    assert torch.isfinite(weigh(balancer, LOSSES * scale)).all()


@pytest.mark.parametrize("name", POSITIVE)
@pytest.mark.parametrize("loss", [0.0, -1.0, math.nan])
def test_losses_that_are_not_positive_are_named(name, loss):
    balancer = started(name)
    if loss == 0 and isinstance(balancer, FAMO):
        loss = -2 * balancer.eps  # which FAMO adds to every loss
    losses = torch.tensor([1.0, loss, 1.0], dtype=torch.float64)
    with pytest.raises(BalancerError, match="positive losses, but that of kind is"):
        weigh(balancer, losses)


@pytest.mark.parametrize("name", sorted(set(MAKERS) - {*POSITIVE, "LDCMTL free", "DWA"}))
def test_negative_losses_are_weighed_by_the_others(name):
    balancer = started(name)
    assert torch.isfinite(
        weigh(balancer, torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64))
    ).all()


@pytest.fixture(scope="module")
def equally_trained():
    return fit(max_epochs=3)


@pytest.mark.parametrize("name", MAKERS)
def test_training_moves_and_weights_are_reported(name, equally_trained):
    balancer = MAKERS[name]()
    trained = fit(balancer, max_epochs=3)
    assert torch.isfinite(trained).all()
    assert set(balancer.weights) == set(ENTRIES)
    assert torch.equal(trained, equally_trained) == isinstance(balancer, Equal)
