"""Networks for tables."""

from mtl_tabular.networks.base import TableNetwork
from mtl_tabular.networks.ft_transformer import FTTransformer
from mtl_tabular.networks.mmoe import MMoE
from mtl_tabular.networks.multitab import MultiTabNet
from mtl_tabular.networks.per_task import PerTask
from mtl_tabular.networks.ple import PLE
from mtl_tabular.networks.saint import Saint
from mtl_tabular.networks.shared_bottom import SharedBottom
from mtl_tabular.networks.stem import STEM
from mtl_tabular.networks.tab_transformer import TabTransformer

__all__ = [
    "PLE",
    "STEM",
    "FTTransformer",
    "MMoE",
    "MultiTabNet",
    "PerTask",
    "Saint",
    "SharedBottom",
    "TabTransformer",
    "TableNetwork",
]
