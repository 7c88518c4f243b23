import pytest
import torch
from gramian_laws import random_rows
from jacobian_laws import JacobianLaws
from torchjd.aggregation import TrimmedMean as Peer

from mtl_core.balancing import TrimmedMean
from mtl_core.errors import ArgumentError, UnknownNameError


class TestTrimmedMean(JacobianLaws):
    make = TrimmedMean


@pytest.mark.parametrize("trim", [0, 1, 2])
def test_agrees_with_torchjd(trim):
    rows = random_rows(6, trim)
    found = TrimmedMean(trim=trim, scale="paper").direction(rows)
    torch.testing.assert_close(found, Peer(trim)(rows))
    torch.testing.assert_close(TrimmedMean(trim=trim).direction(rows), 6 * found)


def test_one_wild_task_does_not_matter():
    rows = random_rows(5, 0)
    former = TrimmedMean().direction(rows)
    rows[rows.argmax(0), torch.arange(12)] = 1e9
    torch.testing.assert_close(TrimmedMean().direction(rows), former)


def test_few_tasks_are_trimmed_as_far_as_they_go():
    rows = random_rows(4, 0)
    torch.testing.assert_close(TrimmedMean(trim=9).direction(rows[:1]), rows[0])
    torch.testing.assert_close(TrimmedMean(trim=9).direction(rows[:2]), rows[:2].sum(0))
    median = TrimmedMean(trim=9, scale="paper").direction(rows[:3])
    torch.testing.assert_close(median, rows[:3].median(0).values)


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="trim must not be negative, found -1"):
        TrimmedMean(trim=-1)
    with pytest.raises(UnknownNameError, match="Did you mean sum"):
        TrimmedMean(scale="sums")
