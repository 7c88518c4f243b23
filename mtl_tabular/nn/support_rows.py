"""Rows of the training data that a network keeps and reads: raw inputs, saved with its weights."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mtl_core.errors import ArgumentError, MTLError
from mtl_core.types import Inputs
from mtl_tabular.data.schema import TableSchema


class EmptyMemoryError(MTLError, RuntimeError):
    """A network with a memory is used before the memory was filled."""

    def __init__(self) -> None:
        super().__init__(
            "a network with inter_sample: memory must have its support rows before it is used: add "
            "the callback MemoryRows to the trainer, or call network.set_memory(inputs) with "
            "training rows."
        )


class SupportRows(nn.Module):
    """M rows as the schema encodes them. Persistent buffers, so they are in every checkpoint.

    Args:
        schema: the columns.
        rows: M.

    Raises:
        ArgumentError: M is not positive.
    """

    numeric: Tensor
    categorical: Tensor
    filled: Tensor

    def __init__(self, schema: TableSchema, rows: int) -> None:
        super().__init__()
        if rows < 1:
            raise ArgumentError("memory_rows", "be at least 1", rows)
        self.rows = rows
        self.names = [n for n in ("numeric", "categorical") if getattr(schema, n)]
        self.register_buffer("numeric", torch.zeros(rows, len(schema.numeric)))
        codes = torch.zeros(rows, len(schema.categorical), dtype=torch.long)
        self.register_buffer("categorical", codes)
        self.register_buffer("filled", torch.tensor(False))
        self._known_filled = False

    def set(self, inputs: Inputs, seed: int = 0) -> None:
        """Keep M of the rows of `inputs`, drawn by `draw_rows`.

        Raises:
            ArgumentError: an input that the schema asks for is absent, or there is no row.
        """
        if isinstance(inputs, Tensor) or any(name not in inputs for name in self.names):
            found = "one tensor" if isinstance(inputs, Tensor) else sorted(inputs)
            raise ArgumentError("inputs", f"hold {' and '.join(self.names)}", found)
        chosen = draw_rows(len(inputs[self.names[0]]), self.rows, seed)
        for name in self.names:
            buffer: Tensor = getattr(self, name)
            buffer.copy_(inputs[name][chosen])
        self.filled.fill_(1)

    def forward(self) -> Mapping[str, Tensor]:
        """The rows, as inputs of a network.

        Raises:
            EmptyMemoryError: nothing was kept yet.
        """
        # Read from the device once; a graph that is traced cannot branch on it.
        if not self._known_filled and not torch.compiler.is_compiling():
            self._known_filled = bool(self.filled)
            if not self._known_filled:
                raise EmptyMemoryError
        return {name: getattr(self, name) for name in self.names}


def draw_rows(available: int, wanted: int, seed: int) -> list[int]:
    """Indices of rows, in ascending order, the same wherever it is called.

    Without repetition if there are enough rows; otherwise every row is taken equally often, some
    once more. Repeated support rows weigh more in attention and change nothing else.

    Raises:
        ArgumentError: no row is available.

    Example:
        >>> len(set(draw_rows(100, 10, seed=0))), draw_rows(2, 4, seed=0)
        (10, [0, 0, 1, 1])
    """
    if available < 1:
        raise ArgumentError("rows", "be at least one", available)
    generator = torch.Generator().manual_seed(seed)
    rest = torch.randperm(available, generator=generator)[: wanted % available]
    whole = torch.arange(available).repeat(wanted // available)
    chosen: list[int] = torch.cat([whole, rest]).sort().values.tolist()
    return chosen
