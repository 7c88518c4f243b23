from dataclasses import replace

import numpy as np
import pytest
from result_tables import make_plan, score_rows, table_of

from mtl_core.stats.analysis import task_results
from mtl_core.stats.figures import draw, draw_intervals, letters_used, png, save_figures
from mtl_core.stats.report import make_report

EFFECTS = {"sum": 0.0, "famo": 0.1, "pcgrad": 0.0}


def result_of(effects=EFFECTS, seeds=5, **more):
    plan = make_plan(tuple(effects), seeds=seeds, **more)
    return task_results(table_of(score_rows(effects, seeds=range(seeds))), plan)[0]


def labels(result):
    return {cell.method: cell.method for cell in result.cells}


def test_a_figure_shows_names_letters_and_all_seeds():
    result = result_of()
    (axes,) = draw_intervals(result, labels(result)).axes
    assert [t.get_text() for t in axes.get_xticklabels()] == [c.method for c in result.cells]
    assert [t.get_text() for t in axes.texts] == [c.letters for c in result.cells]
    points = [line for line in axes.lines if line.get_marker() == "."]
    assert sorted(len(line.get_xdata()) for line in points) == [5, 5, 5]
    assert len(axes.collections) == 3  # a violin each


def test_violins_are_the_interval():
    """A violin's mass between the bounds is the level of the interval."""
    result = result_of()
    (axes,) = draw_intervals(result, labels(result)).axes
    interval = result.cells[0].interval
    outline = axes.collections[0].get_paths()[0].vertices
    right = outline[outline[:, 0] > 1e-9]
    order = np.argsort(right[:, 1])
    y, width = right[order, 1], right[order, 0]
    inside = (y >= interval.low) & (y <= interval.high)
    share = np.trapezoid(width[inside], y[inside]) / np.trapezoid(width, y)
    assert share == pytest.approx(0.95, abs=0.02)


def test_two_seeds_have_no_violin_and_one_has_no_interval():
    for seeds in (1, 2):
        result = result_of(seeds=seeds)
        (axes,) = draw_intervals(result, labels(result)).axes
        assert len(axes.collections) == 0


def test_above_eight_letters_a_matrix_is_drawn():
    result = result_of()
    assert letters_used(result) == 2
    many = [
        replace(cell, letters=text)
        for cell, text in zip(result.cells, ("abc", "defg", "hi(53)"), strict=True)
    ]
    crowded = replace(result, cells=tuple(many))
    assert letters_used(crowded) == 10
    axes = draw(crowded, labels(result)).axes[0]
    assert len(axes.images) == 1
    assert [t.get_text() for t in axes.get_yticklabels()] == [c.method for c in result.cells]
    rings = sum(len(line.get_xdata()) for line in axes.lines)
    assert rings == int((result.p_values <= 0.05).sum())
    assert len(draw(result, labels(result)).axes[0].images) == 0


def test_pictures_are_the_same_each_time(tmp_path):
    plan = make_plan()
    report = make_report(table_of(score_rows(EFFECTS, digest=plan.hash)), plan)
    paths = save_figures(report, tmp_path, "toy")
    assert [p.name for p in paths.values()] == ["toy_left.png", "toy_right.png", "toy_all.png"]
    again = png(draw(report.results[0], report.labels))
    assert paths["left"].read_bytes() == again


def test_codes_stand_in_figures_of_a_blind_plan():
    plan = make_plan(blind=True)
    report = make_report(table_of(score_rows(EFFECTS)), plan)
    (axes,) = draw(report.results[0], report.labels).axes
    texts = [t.get_text() for t in (*axes.get_xticklabels(), *axes.texts)]
    assert not set(texts) & set(EFFECTS)
