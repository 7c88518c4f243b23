"""Building blocks of tabular networks."""

from mtl_tabular.nn.tokenizer import Tokenizer

__all__ = ["Tokenizer"]
