from pathlib import Path

import pytest

from mtl_core.compare import Comparison
from mtl_core.compare.comparison import differing
from mtl_core.errors import ArgumentError, UnknownNameError


def test_methods_are_words_or_parts_and_values(plan_file, tmp_path):
    (tmp_path / "part.yaml").write_text("a: 1\n")
    part = str(tmp_path / "part.yaml")
    methods = {
        "sum": None,
        "words": ["--x=1"],
        "parts": {
            "configs": [part],
            "set": {"lr": 0.1, "on": True, "name": "UW", "list": [1]},
            "words": ["--y"],
        },
    }
    found = Comparison.load(plan_file(methods=methods, run={"program": "mtl_vision"}))
    assert found.program == "mtl_vision.__main__"
    assert found.methods == {
        "sum": (),
        "words": ("--x=1",),
        "parts": ("-c", part, "--lr=0.1", "--on=true", "--name=UW", "--list=[1]", "--y"),
    }
    assert found.configs()[part] == "a: 1\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ["sum", "famo"]}, "a mapping from names to words"),
        ({"methods": {"sum": [], "famo": "x"}}, "methods.famo"),
        ({"methods": {"sum": [], "famo": [1]}}, "list of texts"),
        ({"methods": {"sum": [], "famo": {"config": []}}}, "Did you mean configs"),
        ({"methods": {"sum": [], "famo": {"configs": ["none.yaml"]}}}, "name a file"),
        ({"run": {"words": ["-c"]}}, "name a file"),
        ({"run": {"timeout": 0}}, "run.timeout"),
        ({"run": {"sead_keys": []}}, "Did you mean seed_keys"),
    ],
)
def test_mistakes_are_named(plan_file, change, message):
    with pytest.raises((ArgumentError, UnknownNameError), match=message):
        Comparison.load(plan_file(**change))


def test_a_plan_without_run_is_for_reports_only(plan_file):
    path = plan_file()
    text = path.read_text()
    path.write_text(text[: text.index("run:")])
    with pytest.raises(ArgumentError, match="run must have program"):
        Comparison.load(path)


def test_what_must_stay_the_same(plan_file, tmp_path):
    before = Comparison.load(plan_file()).definition
    more = {"sum": ["--who=sum"], "uw": []}
    assert differing(before, Comparison.load(plan_file(methods=more)).definition) == []
    assert differing(before, Comparison.load(plan_file(seeds=9, alpha=0.1)).definition) == []
    other = {"sum": ["--who=other"], "famo": ["--who=famo", "--gain=0.1"]}
    found = Comparison.load(plan_file(methods=other, run={"seed_keys": []})).definition
    assert differing(before, found) == ["seed_keys", "method sum"]
    path = plan_file()
    Path(tmp_path / "base.yaml").write_text("a: 2\n")
    assert differing(before, Comparison.load(path).definition) == [
        f"config {tmp_path / 'base.yaml'}"
    ]
