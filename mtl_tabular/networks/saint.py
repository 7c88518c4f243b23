"""SAINT: attention between the columns of a row, then between the rows of a batch."""

from collections.abc import Mapping, Sequence
from typing import Literal

from mtl_core.tasks import Task
from mtl_core.types import TaskName
from mtl_tabular.data.schema import NO_COLUMNS, TableSchema
from mtl_tabular.networks.multitab import MultiTabNet
from mtl_tabular.nn.initialization import Init


class Saint(MultiTabNet):
    """Self-attention and intersample attention, read at a class token.

    Somepalli et al., "SAINT: Improved Neural Networks for Tabular Data via Row Attention and
    Contrastive Pre-Training", arXiv 2106.01342, section 3; without the pre-training, as MultiTab
    (arXiv 2511.09970) compares with it.

    It is `MultiTabNet` with one token for all tasks and no mask. The literature trains one network
    a task: the verb ``baselines``, or `PerTask`. With several tasks here, they share everything but
    their heads.

    With ``full``, a prediction depends on the other rows of its batch, in evaluation as in
    training. A batch of one row has no other rows: attention between rows then passes the row's own
    value on, without an error and usually with worse predictions. Evaluate and serve with the batch
    size of training, or take a mode that keeps rows apart.

    Shapes: inputs as in `TableSchema` → (B, C) by task.

    Args:
        tasks: records by name.
        schema: the columns, see `TableNetwork`.
        depth: blocks of both layers.
        heads: of all attention; divides `width` and the width of a row, (1 + columns) × `width`.
        width: D of a token.
        feedforward: hidden width of both layers.
        head_hidden: widths of the hidden layers of every task's head.
        inter_sample: ``full``; ``rowwise``: every row attends to itself alone, which is what the
            reference's configs with rotary positions (Higgs) compute; ``memory``: see
            `MultiTabNet`.
        memory_rows: support rows of ``memory``.
        ff_dropout: of tokens, hidden layers, what attention adds, and heads.
        attention_dropout: of attention weights.
        init: see `MultiTabNet`.

    Raises:
        ArgumentError: a number is out of range, or `heads` does not divide the widths.
        UnknownNameError: a named choice does not exist.
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
        inter_sample: Literal["full", "rowwise", "memory"] = "full",
        memory_rows: int = 256,
        ff_dropout: float = 0.0,
        attention_dropout: float = 0.0,
        init: Init = "library",
    ) -> None:
        super().__init__(
            tasks,
            schema=schema,
            depth=depth,
            heads=heads,
            width=width,
            feedforward=feedforward,
            head_hidden=head_hidden,
            mask="none",
            task_tokens="single",
            inter_sample=inter_sample,
            memory_rows=memory_rows,
            ff_dropout=ff_dropout,
            attention_dropout=attention_dropout,
            init=init,
        )
