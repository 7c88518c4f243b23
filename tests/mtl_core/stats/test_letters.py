from itertools import combinations

import numpy as np
import pytest

from mtl_core.errors import ArgumentError
from mtl_core.stats import compact_letters
from mtl_core.stats.letters import insert_absorb, sweep

RNG = np.random.default_rng(0)


def relation(k, density):
    """Random symmetric significance matrix."""
    upper = np.triu(RNG.random((k, k)) < density, 1)
    return upper | upper.T


def fewest_letters(separated):
    """By brute force, over all sets of methods that are not separated from each other."""
    k = len(separated)
    cliques = [
        frozenset(c)
        for size in range(1, k + 1)
        for c in combinations(range(k), size)
        if not separated[np.ix_(c, c)].any()
    ]
    largest = [c for c in cliques if not any(c < other for other in cliques)]
    wanted = {c for c in cliques if len(c) <= 2}
    for count in range(1, len(largest) + 1):
        for chosen in combinations(largest, count):
            if all(any(pair <= c for c in chosen) for pair in wanted):
                return count
    raise AssertionError


def number_of(letters):
    return len(set("".join(letters.values())))


@pytest.mark.slow
def test_sharing_a_letter_is_not_being_separated():
    """1 000 random relations of up to eight methods; the fewest letters for up to six."""
    for case in range(1000):
        k = 2 + case % 7
        separated, means = relation(k, RNG.random()), RNG.random(k)
        names = [f"m{i}" for i in range(k)]
        letters = compact_letters(names, separated, means)
        for i, j in combinations(range(k), 2):
            shared = set(letters[names[i]]) & set(letters[names[j]])
            assert bool(shared) == (not separated[i, j])
        assert all(letters.values())
        assert list(letters) == [names[i] for i in np.argsort(-means)]
        if k <= 6:
            assert number_of(letters) == fewest_letters(separated)


@pytest.mark.slow
def test_sweep_is_needed():
    """Five cycles of six methods and the like leave columns that others cover."""
    before, after = [], []
    for _ in range(1500):
        separated = relation(6, 0.4)
        columns = insert_absorb(separated)
        before.append(len(columns))
        after.append(len(sweep(columns, separated)))
    assert sum(a < b for a, b in zip(after, before, strict=True)) > 0


def test_extremes():
    names, means = ["x", "y", "z"], [0.1, 0.3, 0.2]
    alike, apart = np.zeros((3, 3)), 1 - np.eye(3)
    assert compact_letters(names, alike, means) == {"y": "a", "z": "a", "x": "a"}
    assert compact_letters(names, apart, means) == {"y": "a", "z": "b", "x": "c"}
    assert compact_letters(names, apart, means, higher_is_better=False)["x"] == "a"
    assert compact_letters(["only"], [[False]], [0.5]) == {"only": "a"}


def test_order_of_methods_does_not_matter():
    separated, means = relation(7, 0.5), RNG.random(7)
    names = list("abcdefg")
    letters = compact_letters(names, separated, means)
    order = RNG.permutation(7)
    again = compact_letters(
        [names[i] for i in order], separated[np.ix_(order, order)], means[order]
    )
    assert letters == again


def test_many_methods():
    """A chain of thirty: only far ones are separated."""
    place = np.arange(30)
    separated = np.abs(place[:, None] - place) > 3
    letters = compact_letters([f"m{i}" for i in place], separated, -place)
    assert number_of(letters) == 27
    assert letters["m0"] == "a"
    assert letters["m29"] == "A"


def test_past_the_alphabet():
    k = 60
    letters = compact_letters([f"m{i}" for i in range(k)], 1 - np.eye(k), -np.arange(k))
    assert letters["m51"] == "Z"
    assert letters["m52"] == "(53)"
    assert len(set(letters.values())) == k


def test_large_sweeps_stay_right():
    """Past the subsets that are tried, columns are dropped one by one."""
    separated = relation(16, 0.5)
    columns = insert_absorb(separated)
    swept = sweep(columns, separated)
    assert 1 < len(swept) < len(columns)
    for i, j in combinations(range(16), 2):
        both = 1 << i | 1 << j
        assert any(c & both == both for c in swept) == (not separated[i, j])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["a", "a"]}, "names must be 2 different names"),
        ({"names": ["a"]}, "names must be 2 different names"),
        ({"means": [0.1, np.nan]}, "means must be finite"),
        ({"means": []}, "means must not be empty"),
        ({"separated": [[0, 1]]}, "separated must be 2 by 2"),
        ({"separated": [[0, 1], [0, 0]]}, "separated must be symmetric"),
        ({"separated": [[1, 0], [0, 0]]}, "separated must be symmetric and False on its diagonal"),
        ({"separated": [[0, 0.04], [0.04, 0]]}, "separated must hold booleans"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"names": ["a", "b"], "separated": [[0, 1], [1, 0]], "means": [1, 2]} | change
    with pytest.raises(ArgumentError, match=message):
        compact_letters(**arguments)
