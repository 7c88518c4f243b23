"""The former place of `mtl_tabular.levels`."""

from mtl_tabular.levels import as_text, encode_levels, sorted_levels

__all__ = ["as_text", "encode_levels", "sorted_levels"]
