"""The example that draws the picture in docs/moe.md, cut short."""

import runpy
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_picture_is_drawn_by_the_stored_script(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["routing"])
    monkeypatch.chdir(tmp_path)
    draw = runpy.run_path(str(ROOT / "examples/routing.py"))["draw"]
    draw(tmp_path / "run", tmp_path / "made.png", epochs=1, samples=8)
    with (
        Image.open(tmp_path / "made.png") as made,
        Image.open(ROOT / "docs/images/routing.png") as kept,
    ):
        assert made.size == kept.size, "the kept picture is that of the script as it is"
    assert (ROOT / "docs/images/routing.png").stat().st_size < 200_000
