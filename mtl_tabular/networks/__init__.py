"""Networks for tables."""

from mtl_tabular.networks.base import TableNetwork
from mtl_tabular.networks.shared_bottom import SharedBottom

__all__ = ["SharedBottom", "TableNetwork"]
