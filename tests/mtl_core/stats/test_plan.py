import json

import pytest
import yaml
from result_tables import make_plan

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.stats.plan import Plan, changes


def test_hash_depends_on_the_content_and_not_on_how_it_is_written(tmp_path):
    plan = make_plan()
    text = json.dumps(dict(reversed(plan.content.items())), indent=3)
    path = tmp_path / "toy.yaml"
    path.write_text(f"# a comment\n{text}\n")
    assert Plan.load(path) == plan
    assert Plan.load(path).hash == plan.hash
    hashes = {
        make_plan(**change).hash
        for change in (
            {},
            {"alpha": 0.1},
            {"seeds": 6},
            {"margins": {"accuracy": 0.005, "error": 0.06}},
            {"blind": True},
            {"stopping": "sign"},
            {"tasks": {"left": "accuracy"}, "margins": {"accuracy": 0.005}},
        )
    }
    assert len(hashes) == 7


def test_name_is_the_files_where_it_has_none(tmp_path):
    content = {k: v for k, v in make_plan().content.items() if k != "name"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    assert Plan.load(tmp_path / "mine.yaml").name == "mine"


def test_what_it_holds():
    plan = make_plan(
        seeds=[3, 1], stopping={"rule": "bounded", "widths": {"accuracy": 1, "error": 9}}
    )
    assert plan.seeds == (3, 1)
    assert plan.stopping.widths == {"accuracy": 1.0, "error": 9.0}
    assert (plan.alpha, plan.correction, plan.split, plan.blind) == (0.05, "holm", "test", False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ["one"]}, "methods"),
        ({"methods": ["a", "a"]}, "different names"),
        ({"methods": ["a", "single"]}, "other names than 'single'"),
        ({"baseline": "sun"}, "Did you mean sum"),
        ({"tasks": {}}, "tasks"),
        ({"tasks": {"all": "accuracy"}}, "other names than 'all'"),
        ({"margins": {"accuracy": 0.1}}, "which difference of error"),
        ({"margins": {"accuracy": 0.1, "error": -1}}, "margins.error"),
        ({"margins": {"accuracy": 0.1, "eror": 1}}, "Did you mean error"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": [1, 1]}, "different ones"),
        ({"seeds": True}, "seeds"),
        ({"alpha": 1.0}, "alpha"),
        ({"correction": "Holm"}, "Did you mean holm"),
        ({"test": "t"}, "test must be a known name"),
        ({"split": "train"}, "split"),
        ({"blind": "yes"}, "true or false"),
        ({"stopping": "sing"}, "Did you mean sign"),
        ({"stopping": {"rule": "sign"}, "baseline": None}, "have a baseline"),
        ({"stopping": {"rule": "bounded"}}, "stopping.widths"),
        ({"stopping": {"rule": "sign", "sides": 3}}, "stopping.sides"),
        ({"marginz": {}}, "Did you mean margins"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises((ArgumentError, UnknownNameError), match=message):
        make_plan(**change)


def test_no_file_and_no_mapping(tmp_path):
    with pytest.raises(ArgumentError, match="be a file"):
        Plan.load(tmp_path / "none.yaml")
    with pytest.raises(ArgumentError, match="be a mapping"):
        Plan.parse(["a"])


def test_codes_are_different_and_say_nothing():
    plan = make_plan(methods=[f"balancer{i}" for i in range(12)])
    assert len(set(plan.codes.values())) == 12
    assert not any(name in code for name, code in plan.codes.items())
    assert [int(code.split()[1]) for code in plan.codes.values()] != list(range(1, 13))
    assert make_plan(methods=[f"balancer{i}" for i in range(12)]).codes == plan.codes


def test_changes_in_words():
    old = make_plan().content
    new = make_plan(methods=("sum", "pcgrad", "uw"), alpha=0.1).content
    assert changes(old, new) == ["method famo dropped", "method uw added", "alpha changed"]
    assert changes(old, old) == []
    assert changes({"methods": {"a": ["--x=1"]}}, {"methods": {"a": ["--x=2"]}}) == [
        "method a changed"
    ]
    assert changes({"methods": ["a", "b"]}, {"methods": ["b", "a"]}) == ["order of methods changed"]
    assert changes(old, new, lambda name: "X")[0] == "X dropped"
