"""Shared ground of mtl-suite."""

__version__ = "0.1.0"
