import pytest
import torch

from mtl_core.balancing.row_state import RowState, load_into, row_norms, state_of
from mtl_core.errors import BalancerError

ALL = torch.arange(3)


def filled():
    state = RowState(3)
    state.read(torch.ones(3, 2), ALL)
    state.write(torch.arange(6.0).reshape(3, 2), ALL)
    return state


def test_state_begins_with_zeros_of_the_rows_type():
    state = RowState(3)
    assert state.values is None
    found = state.read(torch.ones(1, 4, dtype=torch.float64), torch.tensor([1]))
    assert found.dtype == torch.float64
    assert found.tolist() == [[0.0] * 4]
    assert state.values.shape == (3, 4)


def test_absent_entries_keep_their_state():
    state, at = filled(), torch.tensor([0, 2])
    found = state.read(torch.ones(2, 2), at)
    assert found.tolist() == [[0.0, 1.0], [4.0, 5.0]]
    found.mul_(10)
    assert state.values.tolist() == [[0, 1], [2, 3], [4, 5]]  # a copy until it is written
    state.write(found, at)
    assert state.values.tolist() == [[0, 10], [2, 3], [40, 50]]


def test_another_type_of_rows_moves_the_state():
    found = filled().read(torch.ones(3, 2, dtype=torch.float64), ALL)
    assert found.dtype == torch.float64
    assert found.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_another_number_of_parameters_is_refused():
    with pytest.raises(BalancerError, match="2 shared numbers does not fit the 5"):
        filled().read(torch.ones(3, 5), ALL)


def test_round_trip_of_several_states():
    states = [filled(), filled()]
    states[1].values += 1
    others = [RowState(3), RowState(3)]
    load_into(others, state_of(states))
    for state, other in zip(states, others, strict=True):
        assert torch.equal(other.values, state.values)
        state.values += 1  # what was loaded is its own
        assert not torch.equal(other.values, state.values)


def test_nothing_is_kept_of_states_without_rows():
    assert state_of([RowState(3), RowState(3)]) == []
    state = filled()
    load_into([state], [])
    assert state.values is None


def test_a_state_of_another_method_is_refused():
    with pytest.raises(ValueError, match="zip"):
        load_into([RowState(3), RowState(3)], [torch.ones(3, 2)])


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_norms_neither_under_nor_overflow(scale):
    found = row_norms(torch.tensor([[3.0, 4.0], [0.0, 0.0]]) * scale)
    assert found.dtype == torch.float64
    expected = torch.tensor([5.0 * scale, 0.0], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)
