"""Training regimes: Lightning modules that carry any network."""

from mtl_core.modules.multitask import MultiTaskModule

__all__ = ["MultiTaskModule"]
