"""Shares of sources and the order that follows from them."""

import numpy as np
import pytest

from mtl_core.data import MixtureSampler, mixing_shares
from mtl_core.data.mixture import apportion
from mtl_core.errors import ArgumentError, UnknownNameError

RUNS = (60, 20, 8)
ENDS = np.cumsum(RUNS)


def sampler(mixing="proportional", *, temperature=None, **options):
    shares = mixing_shares(RUNS, mixing, temperature=temperature)
    return MixtureSampler(RUNS, shares=shares, **{"batch_size": 4, **options})


def epoch_of(mixture, epoch=0):
    mixture.set_epoch(epoch)
    return [index for _, index in mixture]


def sources(indices):
    return np.searchsorted(ENDS, indices, side="right")


def test_temperature_lies_between_proportional_and_uniform():
    sizes = [900, 100]
    assert mixing_shares(sizes).tolist() == [0.9, 0.1]
    assert mixing_shares(sizes, "uniform").tolist() == [0.5, 0.5]
    assert np.allclose(mixing_shares(sizes, "temperature", temperature=1.0), [0.9, 0.1])
    assert np.allclose(mixing_shares(sizes, "temperature", temperature=2.0), [0.75, 0.25])
    assert np.allclose(mixing_shares(sizes, "temperature", temperature=1e9), [0.5, 0.5])


@pytest.mark.parametrize(
    ("mixing", "temperature", "error"),
    [
        ("temperature", None, "exactly with mixing: temperature"),
        ("uniform", 2.0, "exactly with mixing: temperature"),
        ("temperature", 0.0, "be positive"),
    ],
)
def test_temperature_is_given_where_it_means_something(mixing, temperature, error):
    with pytest.raises(ArgumentError, match=error):
        mixing_shares([1, 2], mixing, temperature=temperature)


def test_unknown_mixing():
    with pytest.raises(UnknownNameError, match="Did you mean uniform"):
        mixing_shares([1, 2], "unifrom")


def test_apportioned_parts_are_whole_positive_and_near():
    generator = np.random.default_rng(0)
    for _ in range(100):
        shares = generator.dirichlet(np.full(5, 0.5))
        total = int(generator.integers(50, 200))
        parts = apportion(shares, total)
        assert parts.sum() == total
        assert parts.min() >= 1
        assert (parts[parts > 1] <= np.ceil(shares * total)[parts > 1]).all()
    with pytest.raises(ArgumentError, match="total"):
        apportion(np.array([0.5, 0.5]), 1)


def test_a_proportional_epoch_is_every_sample_once():
    first, second = epoch_of(sampler()), epoch_of(sampler(), 1)
    assert sorted(first) == sorted(second) == list(range(88))
    assert first != second


def test_uniform_shares_are_exact_and_cover_a_source_before_repeating():
    mixture = sampler("uniform")
    epochs = [epoch_of(mixture, e) for e in range(4)]
    for indices in epochs:
        assert np.abs(np.bincount(sources(indices)) - 88 / 3).max() < 1
    for source, size in enumerate(RUNS):
        drawn = np.concatenate([np.array(e)[sources(e) == source] for e in epochs])
        for start in range(0, len(drawn) - size + 1, size):
            assert len(set(drawn[start : start + size])) == size


@pytest.mark.parametrize("ranks", [1, 2])
def test_alternating_steps_hold_one_source(ranks):
    shards = [
        sampler("uniform", alternating=True, num_replicas=ranks, rank=r) for r in range(ranks)
    ]
    together = np.array([epoch_of(s) for s in shards]).reshape(ranks, -1, 4)
    found = sources(together)
    steps = found.transpose(1, 0, 2).reshape(found.shape[1], -1)
    assert (steps == steps[:, :1]).all()
    assert set(steps[:, 0]) == {0, 1, 2}


@pytest.mark.parametrize("alternating", [False, True])
def test_two_ranks_see_together_what_one_process_sees(alternating):
    one = sampler("uniform", alternating=alternating, batch_size=8)
    two = [
        sampler("uniform", alternating=alternating, num_replicas=2, rank=rank) for rank in range(2)
    ]
    whole = epoch_of(one, 3)
    halves = [epoch_of(s, 3) for s in two]
    for step in range(len(halves[0]) // 4):
        together = halves[0][4 * step : 4 * step + 4] + halves[1][4 * step : 4 * step + 4]
        assert sorted(together) == sorted(whole[8 * step : 8 * step + 8])


def test_an_epoch_can_start_at_any_batch():
    mixture = sampler("temperature", temperature=3.0)
    whole = epoch_of(mixture, 2)
    mixture.start_batch = 5
    assert epoch_of(mixture, 2) == whole[20:]


def test_a_changed_mixture_has_another_signature():
    assert sampler().signature() != sampler("uniform").signature()
    assert sampler().signature() == sampler().signature()
