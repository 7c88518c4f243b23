"""Exports in tests share what torch's exporter would read anew for every graph (two seconds)."""

import functools

import pytest


@pytest.fixture(autouse=True, scope="session")
def translations_read_once():
    """Torch 2.15 rebuilds its table of translations for every graph; where it can, keep one."""
    from torch.onnx._internal.exporter import _registration

    registry = getattr(_registration, "ONNXRegistry", None)
    original = getattr(registry, "from_torchlib", None)
    if original is None:
        yield
        return
    patch = pytest.MonkeyPatch()
    patch.setattr(registry, "from_torchlib", staticmethod(functools.cache(original)))
    yield
    patch.undo()
