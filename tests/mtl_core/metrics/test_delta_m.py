import math

import pytest

from mtl_core.errors import ArgumentError, MissingTaskError, MixedProtocolError, UnknownNameError
from mtl_core.metrics import delta_m, relative_gain, task_gains

REFERENCES = {"seg": {"miou": 0.4, "acc": 0.8}, "depth": {"rmse": 0.5, "rel": 0.2}}
HIGHER = {"seg": {"miou": True, "acc": True}, "depth": {"rmse": False, "rel": False}}
PRIMARY = {"seg": "miou", "depth": "rmse"}


def scaled(up: float, down: float) -> dict[str, dict[str, float]]:
    return {
        task: {m: v * (up if HIGHER[task][m] else down) for m, v in held.items()}
        for task, held in REFERENCES.items()
    }


@pytest.mark.parametrize("primary", [PRIMARY, None])
def test_zero_where_nothing_changed_and_ten_where_all_is_ten_percent_better(primary):
    assert delta_m(REFERENCES, REFERENCES, HIGHER, primary=primary) == 0
    better, worse = scaled(1.1, 0.9), scaled(0.9, 1.1)
    assert delta_m(better, REFERENCES, HIGHER, primary=primary) == pytest.approx(10)
    assert delta_m(worse, REFERENCES, HIGHER, primary=primary) == pytest.approx(-10)


def test_unit_of_a_metric_does_not_matter():
    values = {"seg": {"miou": 0.5}, "depth": {"rmse": 0.45}}
    percent = {t: {m: 100 * v for m, v in held.items()} for t, held in values.items()}
    scaled_up = {t: {m: 100 * v for m, v in held.items()} for t, held in REFERENCES.items()}
    expected = delta_m(values, REFERENCES, HIGHER, primary=PRIMARY)
    assert delta_m(percent, scaled_up, HIGHER, primary=PRIMARY) == pytest.approx(expected)
    assert expected == pytest.approx((25 + 10) / 2)


def test_a_task_with_many_metrics_weighs_no_more_than_one_with_one():
    higher = {"a": {"x": True}, "b": {f"y{i}": True for i in range(9)}}
    references = {t: dict.fromkeys(held, 1.0) for t, held in higher.items()}
    values = {"a": {"x": 1.2}, "b": dict.fromkeys(higher["b"], 1.0)}
    assert delta_m(values, references, higher) == pytest.approx(10)


def test_published_table():
    # MTL baseline of the survey's line on PASCAL-Context with ResNet-18, as M³ViT reports it:
    # Δm = -2.86 %. The metrics are rounded to 0.1, of normals to 0.4 % of their value.
    single = {"seg": 66.2, "parts": 59.9, "sal": 66.3, "normals": 13.9, "edge": 68.8}
    multi = {"seg": 63.8, "parts": 58.6, "sal": 65.1, "normals": 14.9, "edge": 69.2}
    higher = {t: {"m": t != "normals"} for t in single}
    wrap = lambda held: {t: {"m": v} for t, v in held.items()}  # noqa: E731
    assert delta_m(wrap(multi), wrap(single), higher) == pytest.approx(-2.86, abs=0.05)


def test_mean_of_task_gains():
    values = {"seg": {"miou": 0.5}, "depth": {"rmse": 0.6}}
    gains = task_gains(values, REFERENCES, HIGHER, primary=PRIMARY)
    assert list(gains) == ["seg", "depth"]
    assert delta_m(values, REFERENCES, HIGHER, primary=PRIMARY) == sum(gains.values()) / 2


def test_refusals_name_what_is_wrong():
    with pytest.raises(MixedProtocolError, match=r"survey.*atrc"):
        delta_m(REFERENCES, REFERENCES, HIGHER, protocol="survey", reference_protocol="atrc")
    with pytest.raises(MissingTaskError, match=r"'depht'.*mean 'depth'"):
        delta_m({"depht": {"rmse": 1.0}}, REFERENCES, {"depht": {"rmse": False}})
    with pytest.raises(UnknownNameError, match="metric of task 'seg' in values"):
        delta_m({"seg": {"acc": 0.5}}, REFERENCES, HIGHER, primary=PRIMARY)
    with pytest.raises(UnknownNameError, match="metric of task 'seg' in references"):
        delta_m({"seg": {"miou": 1.0}}, {"seg": {}}, HIGHER, primary=PRIMARY)
    with pytest.raises(ArgumentError, match="at least one task"):
        delta_m({}, REFERENCES, HIGHER)


@pytest.mark.parametrize("reference", [0.0, math.nan, math.inf])
def test_reference_must_be_a_number_to_divide_by(reference):
    with pytest.raises(ArgumentError, match="finite and not zero"):
        relative_gain(1.0, reference, higher_is_better=True)
