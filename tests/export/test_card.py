"""The model card says what the manifest says."""

import pytest

from export.card import main, model_card
from export.manifest import FolderError

MANIFEST = {
    "producer": {"name": "mtl-suite", "version": "0.1.0"},
    "model": {"class": "a.b.HardSharing", "parameters": 12345},
    "inputs": [{"name": "image", "dtype": "float32", "shape": ["batch", 3, 32, 48]}],
    "tasks": [
        {
            "name": "depth",
            "kind": "depth",
            "outputs": [{"name": "depth", "shape": ["batch", 32, 48], "unit": "m"}],
            "primary": "rmse",
            "higher_is_better": False,
        },
        {"name": "size", "kind": "Custom", "outputs": [{"name": "size", "shape": ["batch", 1]}]},
    ],
    "variants": [
        {
            "id": "fp32",
            "files": [{"path": "w", "bytes": 2_500_000, "sha256": ""}],
            "parity": {"depth": {"max_abs": 1.5e-6}},
            "metrics": {"depth": {"rmse": 0.51234}},
        },
        {"id": "int8-dynamic", "metrics": {"depth": {"rmse": 0.52}}, "drop": {"depth": 0.00766}},
    ],
    "created": "2026-01-02",
}


def test_every_task_and_variant_has_its_row():
    card = model_card(MANIFEST)
    assert "# HardSharing: depth, size" in card
    assert "12,345 parameters" in card
    assert "| image | float32 | (batch, 3, 32, 48) |" in card
    assert "| depth | depth | (batch, 32, 48) | m | rmse ↓ |" in card
    assert "| size | Custom | (batch, 1) | – | – |" in card
    assert "### fp32 (2.50 MB)" in card
    assert "| depth | 1.5e-06 | 0.5123 | – |" in card
    assert "| depth | – | 0.52 | 0.00766 |" in card
    assert "allowed" not in card


def test_drift_is_not_hidden():
    card = model_card({**MANIFEST, "drift": ["task 'depth' differs by 1"]})
    assert "- task 'depth' differs by 1" in card


def test_the_verb_reads_a_folder(tmp_path):
    with pytest.raises(FolderError, match=r"must hold manifest\.json"):
        main([str(tmp_path)])
