"""Tables in docs and README are exactly what the report makes of the stored results."""

import re
from pathlib import Path

import pytest
import yaml

from mtl_core.compare import Comparison
from mtl_core.stats.command import marked_text
from mtl_core.stats.history import History
from mtl_core.stats.plan import Plan
from mtl_core.stats.render import between
from mtl_core.stats.report import make_report
from mtl_core.stats.table import Table

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
STORED = {
    "compare:digits": (
        "docs/results/compare_digits.csv",
        "configs/compare/digits_balancers.yaml",
        "comparing.md",
    ),
    "compare:rooms_networks": (
        "docs/results/compare_rooms_networks.csv",
        "configs/compare/rooms_networks.yaml",
        "networks.md",
    ),
    "compare:camvid_networks": (
        "docs/results/compare_camvid_networks.csv",
        "configs/compare/camvid_networks.yaml",
        "networks.md",
    ),
}
"""By marker: results, the plan they are of, and the page that has the whole report."""


def stored_report(marker: str):
    table, plan = (ROOT / path for path in STORED[marker.removesuffix(":summary")][:2])
    return make_report(Table.read(table), Plan.load(plan), History.of(table))


@pytest.mark.parametrize("marker", [m for name in STORED for m in (name, f"{name}:summary")])
def test_marked_tables_are_made_by_the_command(marker):
    text = marked_text(stored_report(marker), marker)
    held = {page.name: between(page.read_text(), marker) for page in PAGES}
    for name, found in held.items():
        assert found in ([], [text]), f"{name}: python -m mtl_core.stats report ... --into it"
    if not marker.endswith(":summary"):
        assert held[STORED[marker][2]] == [text]


def test_stored_results_are_those_of_the_plan_unchanged_and_looked_at_once():
    for marker in STORED:
        report = stored_report(marker)
        assert report.lines[0].startswith("Intervals")
        assert "looks at the results: 1 " in report.lines[-1]
        assert report.warnings == ()


def test_the_plan_in_the_docs_can_be_run(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / "comparing.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    comparison = Comparison.of(Plan.parse(yaml.safe_load(block)))
    assert comparison.plan.metrics == {"semseg": "miou", "depth": "rmse"}
    assert list(comparison.methods) == ["equal", "UW", "larger"]
