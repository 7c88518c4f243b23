import pytest

from mtl_core.stats import Chances, Interval, Test


def test_interval_holds_its_bounds():
    interval = Interval(estimate=0.5, low=0.4, high=0.7, level=0.95)
    assert 0.4 in interval
    assert 0.7 in interval
    assert 0.39 not in interval
    assert interval.width == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("chances", "decision"),
    [
        (Chances(0.96, 0.03, 0.01), "worse"),
        (Chances(0.02, 0.95, 0.03), "equal"),
        (Chances(0.0, 0.04, 0.96), "better"),
        (Chances(0.0, 0.06, 0.94), "undecided"),
    ],
)
def test_decision_needs_its_probability(chances, decision):
    assert chances.decision() == decision
    assert Chances(0.0, 0.06, 0.94).decision(0.9) == "better"


def test_records_are_frozen():
    with pytest.raises(AttributeError):
        Test(1.0, 0.5, "t").p_value = 0.01
