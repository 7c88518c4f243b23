"""Columns → one vector each: the front end that all tabular networks share."""

import torch
from torch import Tensor, nn

from mtl_core.errors import ArgumentError
from mtl_core.types import Inputs
from mtl_tabular.data.schema import UNSEEN, TableSchema


class Tokenizer(nn.Module):
    """A vector per feature: categorical ones from one table with offsets, numeric ones affine.

    A numeric feature k gives ``weight_k * x_k + bias_k`` (Gorishniy et al. 2021, FT-Transformer,
    section 3.3, the form that MultiTab-Net uses). A missing number counts as the training median;
    where training rows lacked values, a learned vector is added besides. A missing category has an
    embedding of its own; so has an unseen one, which starts at zero because training may never
    touch it.

    Shapes: ``numeric`` (B, d_num) with NaN where missing, ``categorical`` (B, d_cat) int64 →
    (B, d_cat + d_num, D), categorical features first.

    Args:
        schema: the columns.
        width: D.
        init_std: standard deviation of the initial weights; biases start at zero. 0.01 is what the
            reference of MultiTab-Net uses; None draws weights and biases uniformly from
            ±1/√D, as FT-Transformer does.

    Raises:
        ArgumentError: the schema has no columns.

    Example:
        >>> from mtl_tabular.data import CategoricalColumn, NumericColumn
        >>> schema = TableSchema(
        ...     numeric=(NumericColumn(name="age"),),
        ...     categorical=(CategoricalColumn(name="city", levels=("Oslo", "Rome")),),
        ... )
        >>> tokens = Tokenizer(schema, 16)
        >>> codes = torch.zeros(5, 1, dtype=torch.long)
        >>> tuple(tokens({"numeric": torch.zeros(5, 1), "categorical": codes}).shape)
        (5, 2, 16)
    """

    offsets: Tensor
    fill: Tensor
    lacking: Tensor

    def __init__(self, schema: TableSchema, width: int, *, init_std: float | None = 0.01) -> None:
        super().__init__()
        if not len(schema):
            raise ArgumentError(
                "schema",
                "hold the table's columns: take data.schema of a fitted TableDataModule (which the "
                "command line does by itself)",
                schema,
            )
        self.schema = schema
        self.width = width
        self.init_std = init_std
        sizes = schema.cardinalities
        offsets = [sum(sizes[:k]) for k in range(len(sizes))]
        self.register_buffer("offsets", torch.tensor(offsets, dtype=torch.long), persistent=False)
        fill = [(c.median - c.mean) / c.std for c in schema.numeric]
        self.register_buffer("fill", torch.tensor(fill, dtype=torch.float32), persistent=False)
        lacking = [k for k, c in enumerate(schema.numeric) if c.missing]
        self.register_buffer("lacking", torch.tensor(lacking, dtype=torch.long), persistent=False)
        self.embedding = nn.Parameter(torch.empty(sum(sizes), width)) if sizes else None
        self.weight = nn.Parameter(torch.empty(len(schema.numeric), width)) if fill else None
        self.bias = nn.Parameter(torch.empty(len(schema.numeric), width)) if fill else None
        self.missing = nn.Parameter(torch.empty(len(lacking), width)) if lacking else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights."""
        bound = self.width**-0.5
        for name, parameter in self.named_parameters():
            if self.init_std is None:
                nn.init.uniform_(parameter, -bound, bound)
            elif name == "bias":
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=self.init_std)
        if self.embedding is not None:
            with torch.no_grad():
                self.embedding[self.offsets + UNSEEN] = 0.0

    def forward(self, inputs: Inputs) -> Tensor:
        """Tokens (B, d, D) of a batch.

        Raises:
            ArgumentError: an input is absent or has another number of columns than the schema.
        """
        tokens = []
        if self.embedding is not None:
            codes = self._input(inputs, "categorical", len(self.schema.categorical))
            tokens.append(nn.functional.embedding(codes + self.offsets, self.embedding))
        if self.weight is not None and self.bias is not None:
            numbers = self._input(inputs, "numeric", len(self.schema.numeric))
            absent = numbers.isnan()
            numbers = torch.where(absent, self.fill.to(numbers.dtype), numbers)
            numeric = torch.addcmul(self.bias, numbers[..., None], self.weight)
            if self.missing is not None:
                if torch.compiler.is_exporting():  # a dense sum: not every runtime can scatter
                    every = nn.functional.one_hot(self.lacking, numbers.shape[1]).to(numeric.dtype)
                    numeric = numeric + absent[..., None].to(numeric.dtype) * (
                        every.t() @ self.missing
                    )
                else:
                    extra = absent[:, self.lacking, None].to(numeric.dtype) * self.missing
                    numeric = numeric.index_add(1, self.lacking, extra)
            tokens.append(numeric)
        return torch.cat(tokens, 1) if len(tokens) > 1 else tokens[0]

    def _input(self, inputs: Inputs, name: str, columns: int) -> Tensor:
        if isinstance(inputs, Tensor) or name not in inputs:
            found = "one tensor" if isinstance(inputs, Tensor) else sorted(inputs)
            raise ArgumentError("inputs", f"hold {name!r}, as TableSchema.encode gives it", found)
        tensor = inputs[name]
        if tensor.ndim != 2 or tensor.shape[1] != columns:
            raise ArgumentError(f"inputs[{name!r}]", f"be (B, {columns})", tuple(tensor.shape))
        return tensor
