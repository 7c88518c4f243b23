"""The shared part of MultiTab-Net: columns in, one vector per task token out."""

from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.types import Inputs
from mtl_tabular.data.schema import TableSchema
from mtl_tabular.nn.attention import FeatureLayer
from mtl_tabular.nn.masks import blocked_pairs
from mtl_tabular.nn.row_attention import InterSample, KeysValues, RowLayer
from mtl_tabular.nn.support_rows import SupportRows
from mtl_tabular.nn.tokenizer import Tokenizer


class MultiTabEncoder(nn.Module):
    """Tokens of columns and tasks, then blocks of attention within and between rows.

    Only task tokens leave it. Its last layer therefore computes those and nothing else, which
    changes neither them nor any gradient.

    Shapes: inputs as in `TableSchema` → (B, T, D).

    Args:
        schema: the columns.
        tokens: T, number of task tokens.
        depth: blocks.
        heads: of all attention.
        width: D.
        feedforward: hidden width of all layers.
        mask: see `mtl_tabular.nn.masks.blocked_pairs`.
        inter_sample: see `mtl_tabular.nn.row_attention.RowLayer`.
        memory_rows: support rows of ``memory``.
        ff_dropout: of tokens, hidden layers and what attention adds.
        attention_dropout: of attention weights.
    """

    def __init__(
        self,
        schema: TableSchema,
        *,
        tokens: int,
        depth: int,
        heads: int,
        width: int,
        feedforward: int,
        mask: Literal["none", "FxT", "TxT", "FxT_TxT"],
        inter_sample: InterSample,
        memory_rows: int,
        ff_dropout: float,
        attention_dropout: float,
    ) -> None:
        super().__init__()
        if inter_sample not in get_args(InterSample):
            raise UnknownNameError("inter_sample", inter_sample, get_args(InterSample))
        if depth < 1:
            raise ArgumentError("depth", "be at least 1", depth)
        for name, p in (("ff_dropout", ff_dropout), ("attention_dropout", attention_dropout)):
            if not 0 <= p < 1:
                raise ArgumentError(name, "be at least 0 and below 1", p)
        self.width = width
        self.tokens = tokens
        self.inter_sample = inter_sample
        self.tokenizer = Tokenizer(schema, width)
        self.task_tokens = nn.Parameter(torch.zeros(tokens, width))
        self.dropout = nn.Dropout(ff_dropout)
        blocked = blocked_pairs(mask, tokens, len(schema))
        arguments: dict[str, Any] = {
            "heads": heads,
            "feedforward": feedforward,
            "ff_dropout": ff_dropout,
            "attention_dropout": attention_dropout,
        }
        self.feature_layers = nn.ModuleList(
            FeatureLayer(width, **arguments, blocked=blocked) for _ in range(depth)
        )
        row = (tokens + len(schema)) * width
        self.row_layers = nn.ModuleList(
            RowLayer(row, **arguments, mode=inter_sample)
            for _ in range(depth if inter_sample != "none" else 0)
        )
        self.memory = SupportRows(schema, memory_rows) if inter_sample == "memory" else None
        self._cache: tuple[object, list[KeysValues]] | None = None

    def attention_maps(self) -> Iterator[tuple[list[nn.Linear], nn.Linear]]:
        """Of every attention: the projections before it, and the one behind it."""
        for layer in self.feature_layers:
            assert isinstance(layer, FeatureLayer)
            yield [layer.projection], layer.output
        for layer in self.row_layers:
            assert isinstance(layer, RowLayer)
            into = [layer.value] if layer.query_key is None else [layer.query_key, layer.value]
            yield into, layer.output

    def forward(self, inputs: Inputs) -> Tensor:
        """Task tokens (B, T, D)."""
        x = self.embed(inputs)
        support = self.support()
        last = len(self.feature_layers) - 1
        for i in range(last):
            x = self._block(i, x, support)
        return self._block(last, x, support, self.tokens)

    def embed(self, inputs: Inputs) -> Tensor:
        """Task tokens and column tokens (B, T + d, D)."""
        columns = self.tokenizer(inputs)
        tasks = self.task_tokens.to(columns.dtype).expand(columns.shape[0], -1, -1)
        x: Tensor = self.dropout(torch.cat([tasks, columns], 1))
        return x

    def _block(
        self, i: int, x: Tensor, support: list[KeysValues] | None, tokens: int | None = None
    ) -> Tensor:
        """Block i; only the first `tokens` tokens of its result, None for all."""
        if not len(self.row_layers):
            only: Tensor = self.feature_layers[i](x, tokens)
            return only
        rows = self.feature_layers[i](x).flatten(1)
        outputs = None if tokens is None else tokens * self.width
        read = None if support is None else support[i]
        mixed: Tensor = self.row_layers[i](rows, outputs, read).unflatten(1, (-1, self.width))
        return mixed

    def support(self) -> list[KeysValues] | None:
        """What rows read of the support rows in every block; None without a memory.

        In evaluation without gradients it is computed once, and again as soon as a parameter or a
        support row was written to. PyTorch does not count writes through ``.data``; after those,
        call `train` or `eval`.
        """
        if self.memory is None:
            return None
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self._compute_support()
        key = self._state_key()
        if key is None:
            return self._compute_support()
        if self._cache is None or self._cache[0] != key:
            self._cache = (key, self._compute_support())
        return self._cache[1]

    def _compute_support(self) -> list[KeysValues]:
        assert self.memory is not None
        x = self.embed(self.memory())
        found: list[KeysValues] = []
        last = len(self.row_layers) - 1
        for i, layer in enumerate(self.row_layers):
            assert isinstance(layer, RowLayer)
            rows = self.feature_layers[i](x).flatten(1)
            found.append(layer.keys_values(rows))
            if i < last:
                x = layer(rows).unflatten(1, (-1, self.width))
        return found

    def _state_key(self) -> object:
        """Changes whenever support has to be computed anew; None where nobody can tell."""
        tensors = [*self.parameters(), *self.buffers()]
        if any(t.is_inference() for t in tensors):
            return None
        device = tensors[0].device.type
        autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        versions = [(t._version, t.data_ptr(), t.dtype) for t in tensors]
        return torch.is_inference_mode_enabled(), autocast, versions

    def train(self, mode: bool = True) -> "MultiTabEncoder":
        """Switch the mode; forgets what was computed of the support rows."""
        self._cache = None
        return super().train(mode)

    def attention(self, inputs: Inputs) -> Tensor:
        """Attention of task tokens to columns in every block, (depth, T, d)."""
        x = self.embed(inputs)
        support = self.support()
        found = []
        for i, layer in enumerate(self.feature_layers):
            assert isinstance(layer, FeatureLayer)
            found.append(layer.weights(x, self.tokens).mean(0)[:, self.tokens :])
            x = self._block(i, x, support)
        return torch.stack(found)
