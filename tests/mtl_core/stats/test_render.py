import pytest

from mtl_core.errors import ArgumentError
from mtl_core.stats.grids import Grid
from mtl_core.stats.render import between, latex, markdown, page, put_between, summary_markdown, tex
from mtl_core.stats.report import Report

GRID = Grid(
    "left", ("method", "score ↑"), (("a|b_c", "**0.9 ± 0.1**"), ("<d>", "≈ 5 %")), ("Note.",)
)
REPORT = Report("toy_1", ("First & foremost.",), ("Careful.",), GRID, (GRID,), ())


def test_markdown():
    text = markdown(REPORT, {"left": "left.png"})
    assert text.startswith("# toy_1\n\n- First & foremost.\n- **Note:** Careful.\n")
    assert "| method | score ↑ |\n| --- | ---: |\n| a\\|b_c | **0.9 ± 0.1** |\n" in text
    assert text.endswith("![left](left.png)\n")
    assert not markdown(REPORT, heading=False).startswith("#")
    short = summary_markdown(REPORT)
    assert short.count("| method |") == 1
    assert short.startswith("- First & foremost.\n- Note: Careful.\n")


def test_latex():
    text = latex(REPORT, {"left": "left.png"})
    assert text.startswith("% toy_1\n% First & foremost.\n% Careful.\n")
    assert r"a|b\_c & \textbf{0.9 $\pm$ 0.1} \\" in text
    assert r"$<$d$>$ & $\approx$ 5 \% \\" in text
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    assert r"\includegraphics[width=\linewidth]{left.png}" in text


def test_every_sign_of_a_report_is_ascii_in_latex():
    assert tex("± ≈ − ↑ ↓ Δ α – 50 % a_b").isascii()


def test_page():
    text = page(REPORT, {"left": b"png"})
    assert "<td>a|b_c</td><td><b>0.9 ± 0.1</b></td>" in text
    assert "<td>&lt;d&gt;</td>" in text
    assert "data:image/png;base64,cG5n" in text
    assert "First &amp; foremost." in text


def test_text_between_marks_is_replaced_and_nothing_else(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("a\n<!-- x -->\nold\n<!-- /x -->\n<!-- xy -->\nb\n<!-- /xy -->\n")
    assert put_between(path, "x", "new\n")
    assert path.read_text() == "a\n<!-- x -->\nnew\n<!-- /x -->\n<!-- xy -->\nb\n<!-- /xy -->\n"
    assert not put_between(path, "x", "new\n")
    assert between(path.read_text(), "xy") == ["b\n"]
    with pytest.raises(ArgumentError, match="hold <!-- z -->"):
        put_between(path, "z", "new\n")
