"""Columns → one vector a row: the front end of perceptrons."""

import torch
from torch import Tensor, nn

from mtl_core.errors import ArgumentError
from mtl_core.types import Inputs
from mtl_tabular.data.schema import TableSchema
from mtl_tabular.nn.tokenizer import Tokenizer


class FlatInput(nn.Module):
    """All features of a row behind each other, as tokens or as raw numbers.

    Shapes: inputs as in `TableSchema` → (B, D) with D = `width`.

    Args:
        schema: the columns.
        token_width: width of a feature's vector (see `Tokenizer`); 0 takes the standardised numbers
            themselves, a missing one as the training median.
        init_std: see `Tokenizer`.

    Raises:
        ArgumentError: `token_width` is negative, or 0 where there are categorical columns.
    """

    fill: Tensor

    def __init__(
        self, schema: TableSchema, token_width: int, *, init_std: float | None = 0.01
    ) -> None:
        super().__init__()
        if token_width < 0:
            raise ArgumentError("token_width", "be at least 0", token_width)
        if token_width == 0 and schema.categorical:
            rule = f"be positive, as {schema.categorical[0].name!r} is a categorical column"
            raise ArgumentError("token_width", rule, token_width)
        self.schema = schema
        self.width = len(schema) * max(1, token_width)
        self.tokenizer = (
            Tokenizer(schema, token_width, init_std=init_std) if token_width > 0 else None
        )
        fill = torch.tensor([(c.median - c.mean) / c.std for c in schema.numeric])
        self.register_buffer("fill", fill, persistent=False)

    def forward(self, inputs: Inputs) -> Tensor:
        """One vector a row.

        Raises:
            ArgumentError: an input is absent or has another number of columns than the schema.
        """
        if self.tokenizer is not None:
            tokens: Tensor = self.tokenizer(inputs)
            return tokens.flatten(1)
        if isinstance(inputs, Tensor) or "numeric" not in inputs:
            found = "one tensor" if isinstance(inputs, Tensor) else sorted(inputs)
            raise ArgumentError("inputs", "hold 'numeric', as TableSchema.encode gives it", found)
        numbers = inputs["numeric"]
        if numbers.ndim != 2 or numbers.shape[1] != self.width:
            rule = f"be (B, {self.width})"
            raise ArgumentError("inputs['numeric']", rule, tuple(numbers.shape))
        return torch.where(numbers.isnan(), self.fill.to(numbers.dtype), numbers)
