"""MultiTab-Net: attention between the columns of a row and between rows, a token per task."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.nn import Features
from mtl_core.tasks import Task
from mtl_core.types import Inputs, TaskName
from mtl_tabular.data.schema import NO_COLUMNS, TableSchema
from mtl_tabular.networks.base import TableNetwork
from mtl_tabular.nn.multitab_encoder import MultiTabEncoder
from mtl_tabular.nn.row_attention import InterSample


class MultiTabNet(TableNetwork):
    """MultiTab-Net (Sinodinos, Yang and Armanfard 2026, AAAI; arXiv 2511.09970).

    A learned token per task joins the tokens of the columns. Blocks of two pre-norm transformer
    layers follow, one between the tokens of a row (masked, see `mtl_tabular.nn.masks`), one between
    rows (see `mtl_tabular.nn.row_attention`). A small perceptron per task reads the task's token.

    Shapes: inputs as in `TableSchema` → (B, C) by task.

    Every task reads a vector of its own, so methods that compare tasks' gradients *at the border*
    (MGDAUB, GradDrop) find no conflict there with ``task_tokens: multi``; methods on gradients of
    the shared parameters do.

    Args:
        tasks: records by name.
        schema: the columns, see `TableNetwork`.
        depth: blocks.
        heads: of all attention; divides `width` and the width of a row, tokens × `width`.
        width: D of a token.
        feedforward: hidden width of both layers.
        head_hidden: widths of the hidden layers of every task's head.
        mask: ``none``; ``FxT``: columns do not read task tokens; ``TxT``: task tokens do not read
            each other; ``FxT_TxT``. Only the last one keeps tasks apart at any depth, and only
            without attention between rows.
        task_tokens: ``multi``: one a task; ``single``: one for all.
        inter_sample: ``none``, ``rowwise``, ``full`` or ``memory``. With ``full``, predictions
            depend on the other rows of a batch and on its size: evaluate and serve with the batch
            size of training.
        memory_rows: support rows of ``memory``; `set_memory` or the callback `MemoryRows` fills
            them. Training uses the same rows in every step, with gradients, so that it follows the
            rule of serving.
        ff_dropout: of tokens, hidden layers, what attention adds, and heads.
        attention_dropout: of attention weights.
        init: ``library``: PyTorch's own, which starts faster on standardised targets;
            ``reference``: normal with standard deviation 0.01 and zero biases, except queries, keys
            and values.

    Raises:
        ArgumentError: a number is out of range, or `heads` does not divide the widths.
        UnknownNameError: a named choice does not exist.

    Example:
        >>> from mtl_tabular.data import NumericColumn
        >>> from mtl_tabular.tasks import BinaryTarget, NumericTarget
        >>> schema = TableSchema(numeric=(NumericColumn(name="age"), NumericColumn(name="pay")))
        >>> tasks = {"sale": BinaryTarget(), "amount": NumericTarget()}
        >>> network = MultiTabNet(tasks, schema=schema)
        >>> {k: tuple(v.shape) for k, v in network({"numeric": torch.zeros(5, 2)}).items()}
        {'sale': (5, 1), 'amount': (5, 1)}
    """

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        schema: TableSchema = NO_COLUMNS,
        depth: int = 1,
        heads: int = 4,
        width: int = 16,
        feedforward: int = 256,
        head_hidden: Sequence[int] = (64,),
        mask: Literal["none", "FxT", "TxT", "FxT_TxT"] = "TxT",
        task_tokens: Literal["multi", "single"] = "multi",
        inter_sample: InterSample = "rowwise",
        memory_rows: int = 256,
        ff_dropout: float = 0.0,
        attention_dropout: float = 0.0,
        init: Literal["reference", "library"] = "library",
    ) -> None:
        super().__init__(tasks, schema)
        for name, value, known in (
            ("task_tokens", task_tokens, ("multi", "single")),
            ("init", init, ("reference", "library")),
        ):
            if value not in known:
                raise UnknownNameError(name, value, known)
        self.multi = task_tokens == "multi"
        self.encoder = MultiTabEncoder(
            schema,
            tokens=len(self.tasks) if self.multi else 1,
            depth=depth,
            heads=heads,
            width=width,
            feedforward=feedforward,
            mask=mask,
            inter_sample=inter_sample,
            memory_rows=memory_rows,
            ff_dropout=ff_dropout,
            attention_dropout=attention_dropout,
        )
        self.heads = nn.ModuleDict(
            {
                name: task_head((width, *head_hidden, task.out_channels), ff_dropout)
                for name, task in self.tasks.items()
            }
        )
        self.positions = {name: i if self.multi else 0 for i, name in enumerate(self.tasks)}
        reset_parameters(self, init)

    def encode(self, inputs: Inputs, tags: Mapping[str, Tensor] | None = None) -> Features:
        """The task tokens: one vector (B, D) a task, or one for all."""
        tokens = self.encoder(inputs)
        return Features(list(tokens.unbind(1)))

    def decode(self, features: Features, task: TaskName) -> Tensor:
        """Raw prediction (B, C) of one task."""
        decoded: Tensor = self.heads[task](features.maps[self.positions[task]])
        return decoded

    def decoder_modules(self, task: TaskName) -> Sequence[nn.Module]:
        """The task's head."""
        return [self.heads[task]]

    def set_memory(self, inputs: Inputs, *, seed: int = 0) -> None:
        """Choose the support rows of ``inter_sample: memory`` among training rows.

        Args:
            inputs: encoded rows, as many as there are at hand.
            seed: of the choice; equal rows and seeds give an equal choice on all processes.

        Raises:
            ArgumentError: the network has no memory, or an input is absent.
        """
        if self.encoder.memory is None:
            raise ArgumentError("inter_sample", "be memory to set one", self.encoder.inter_sample)
        self.encoder.memory.set(inputs, seed)

    @torch.no_grad()
    def attention(self, inputs: Inputs) -> Tensor:
        """How much every task's token reads from every column; for plots.

        Args:
            inputs: rows of a table.

        Returns:
            (depth, T, d) attention weights, mean over heads and rows, columns in the order of
            ``schema.names``. A token's weights on features and on task tokens sum to 1. With one
            token for all tasks, its weights are repeated.
        """
        weights = self.encoder.attention(inputs)
        return weights if self.multi else weights.expand(-1, len(self.tasks), -1)


def task_head(widths: Sequence[int], dropout: float) -> nn.Sequential:
    """Linear layers of given widths with ReLU and dropout between them."""
    layers: list[nn.Module] = [nn.Linear(widths[0], widths[1])]
    for i in range(1, len(widths) - 1):
        layers += [nn.ReLU(), nn.Dropout(dropout), nn.Linear(widths[i], widths[i + 1])]
    return nn.Sequential(*layers)


def reset_parameters(network: MultiTabNet, init: str) -> None:
    """Draw new weights; see the argument `init` of `MultiTabNet`.

    Projections to queries, keys and values are one matrix in the reference, so their bound is that
    of (3 D, D) also where a part of it stands alone.
    """
    std = 0.01 if init == "reference" else None
    for module in network.modules():
        if isinstance(module, nn.Linear) and std is not None:
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)
    encoder = network.encoder
    encoder.tokenizer.init_std = std
    encoder.tokenizer.reset_parameters()
    bound = encoder.width**-0.5
    if std is None:
        nn.init.uniform_(encoder.task_tokens, -bound, bound)
    else:
        nn.init.normal_(encoder.task_tokens, std=std)
    for into, out in encoder.attention_maps():
        for linear in into:
            bound = math.sqrt(6 / (4 * linear.in_features))
            nn.init.uniform_(linear.weight, -bound, bound)
            nn.init.zeros_(linear.bias)
        nn.init.zeros_(out.bias)
