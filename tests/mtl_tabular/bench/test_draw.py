import numpy as np
import pytest
from scipy import stats

from mtl_tabular.bench import Contender, Outcome, Plan, draw, markdown, points
from mtl_tabular.bench.draw import half_width
from mtl_tabular.networks import MMoE, SharedBottom


def plan(**given):
    networks = {"a": Contender(network=SharedBottom), "b": Contender(network=MMoE)}
    facts = {"networks": networks, "task_counts": (2,), "correlations": (0.0, 0.5), "seeds": 3}
    return Plan(**{**facts, **given})


def outcomes(plan, *, alone=0.5, together=lambda run: 0.6):
    """Every run of a plan with one made-up value."""
    found = {}
    for run in plan.runs():
        value = alone if run.task else together(run)
        names = [run.task] if run.task else plan.spec(run.setting).task_names
        found[run.digest] = Outcome({name: {"explained_variance": value} for name in names})
    return found


def test_gain_is_relative_to_the_references():
    held = plan()
    for point in points(held, outcomes(held)):
        np.testing.assert_allclose(point.gains, [20.0] * 3)
        np.testing.assert_allclose(point.multi, 0.6)
        np.testing.assert_allclose(point.single, 0.5)
        assert point.lost == ()


def test_interval_is_students():
    rng = np.random.default_rng(0)
    for n in (2, 3, 10):
        values = rng.normal(size=n)
        low, high = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
        assert half_width(values) == pytest.approx((high - low) / 2)
    assert np.isnan(half_width([1.0]))


def test_lost_seeds_are_counted_with_their_reason():
    held = plan(correlations=(0.0,))
    found = outcomes(held)
    runs = list(held.runs())
    first = next(run for run in runs if run.network == "a" and run.seed == 0 and run.task)
    found[first.digest] = Outcome({}, "NonFiniteLossError: NaN")
    del found[next(run for run in runs if run.network == "a" and run.seed == 1).digest]
    a, b = points(held, found)
    assert a.lost == ("NonFiniteLossError: NaN", "not trained yet")
    assert len(a.gains) == 1
    assert len(b.gains) == 3
    text = markdown(held, [a, b])
    assert "1 of 3" in text
    assert "- a, 2 tasks, p 0, mixed: NonFiniteLossError: NaN" in text


def test_a_reference_of_zero_has_no_gain():
    held = plan(correlations=(0.0,))
    point = points(held, outcomes(held, alone=0.0))[0]
    assert point.gains == ()
    assert all("reference must be finite and not zero" in reason for reason in point.lost)


def test_table_shows_mean_and_interval():
    held = plan(correlations=(0.0,))
    gains = [0.55, 0.6, 0.65]
    text = markdown(held, points(held, outcomes(held, together=lambda run: gains[run.seed])))
    row = text.splitlines()[2]
    assert f"+20.00 ± {half_width([10.0, 20.0, 30.0]):.2f}" in row
    assert "0.6000 ±" in row


def test_curves_show_every_network_and_value():
    held = plan(complexities={"easy": (1,), "hard": (4,)})
    figure = draw(held, points(held, outcomes(held)))
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == [
        "2 tasks, easy degrees",
        "2 tasks, hard degrees",
    ]
    for axes in panels:
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.0", "0.5"]
        assert "correlation" in axes.get_xlabel()
        assert len(axes.containers) == 2
        for curve in axes.containers:
            heights = np.array(curve.lines[0].get_ydata(), dtype=float)
            np.testing.assert_allclose(heights, [20, 20])
    names = [text.get_text() for text in panels[0].get_legend().get_texts()]
    assert names == ["a", "b"]


def test_nothing_trained_yet_draws_empty_panels(tmp_path):
    held = plan()
    draw(held, points(held, {})).savefig(tmp_path / "empty.png")
    assert "–" in markdown(held, points(held, {}))
