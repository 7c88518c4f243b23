import numpy as np
import pytest

from mtl_core.errors import ArgumentError
from mtl_core.stats import checks


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "scores must not be empty"),
        ([0.1, np.nan], "scores must be finite throughout, found 'nan at index 1'"),
        ([0.1, np.inf], "scores must be finite"),
        ([0.1], "scores must hold at least 2 values, found 1"),
        ([[0.1, 0.2]], r"scores must have 1 axis, found \(1, 2\)"),
        (["high", "low"], "scores must hold numbers"),
        ([[0.1], [0.1, 0.2]], "scores must hold numbers in rows of one length"),
        (None, "scores must"),
    ],
)
def test_vector_names_what_is_wrong(values, message):
    with pytest.raises(ArgumentError, match=message):
        checks.vector("scores", values, 2)


def test_matrix_says_where_the_nan_is():
    with pytest.raises(ArgumentError, match="nan at index 1, 0"):
        checks.array("scores", [[1.0, 2.0], [np.nan, 2.0]], 2)


def test_lengths_and_outcomes():
    with pytest.raises(ArgumentError, match=r"second must have as many .* first \(2\), found 3"):
        checks.same_length("second", np.zeros(3), "first", np.zeros(2))
    with pytest.raises(ArgumentError, match=r"first must hold 0 and 1 only, found 0\.5"):
        checks.outcomes("first", [0, 1, 0.5])
    assert checks.outcomes("first", [True, False]).tolist() == [True, False]


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, np.nan])
def test_open_range(value):
    with pytest.raises(ArgumentError, match="level must lie between 0 and 1"):
        checks.between("level", value, 0, 1)


def test_numbers():
    for bad in (-0.1, np.nan, np.inf):
        with pytest.raises(ArgumentError, match="margin must be finite and at least 0"):
            checks.not_negative("margin", bad)
    for bad in (0.0, np.nan):
        with pytest.raises(ArgumentError, match="sd must be finite and above 0"):
            checks.positive("sd", bad)
    for bad in (1, 2.5, np.nan):
        with pytest.raises(ArgumentError, match="seeds must be a whole number of at least 2"):
            checks.count("seeds", bad, 2)
    with pytest.raises(ArgumentError, match=r"successes must be at most n \(3\), found 4"):
        checks.successes_of("successes", 4, "n", 3)
