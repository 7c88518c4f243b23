"""Building blocks of tabular networks."""

from mtl_tabular.nn.experts import Experts, Gate, GatedTower
from mtl_tabular.nn.extraction import Extractor
from mtl_tabular.nn.flat_input import FlatInput
from mtl_tabular.nn.perceptron import BatchNorm, build_tower, perceptron
from mtl_tabular.nn.tokenizer import Tokenizer

__all__ = [
    "BatchNorm",
    "Experts",
    "Extractor",
    "FlatInput",
    "Gate",
    "GatedTower",
    "Tokenizer",
    "build_tower",
    "perceptron",
]
