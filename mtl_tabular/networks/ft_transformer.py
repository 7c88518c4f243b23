"""FT-Transformer: attention between the columns of a row."""

from collections.abc import Mapping, Sequence

from mtl_core.tasks import Task
from mtl_core.types import TaskName
from mtl_tabular.data.schema import NO_COLUMNS, TableSchema
from mtl_tabular.networks.multitab import MultiTabNet
from mtl_tabular.nn.initialization import Init


class FTTransformer(MultiTabNet):
    """Feature tokeniser and pre-norm transformer, read at a class token.

    Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data", NeurIPS 2021, section 3.3,
    in the form that MultiTab (arXiv 2511.09970) compares with: GELU in place of ReGLU, layer norm
    in the first layer too, none before the heads, which are perceptrons.

    It is `MultiTabNet` with one token for all tasks, no mask and no attention between rows. The
    literature trains one network a task: the verb ``baselines``, or `PerTask`. With several tasks
    here, they share everything but their heads.

    Shapes: inputs as in `TableSchema` → (B, C) by task.

    Args:
        tasks: records by name.
        schema: the columns, see `TableNetwork`.
        depth: layers.
        heads: of attention; divides `width`.
        width: D of a token.
        feedforward: hidden width of the layers.
        head_hidden: widths of the hidden layers of every task's head.
        ff_dropout: of tokens, hidden layers, what attention adds, and heads. The reference takes
            0.1 with 0.1 to 0.2 for attention, none of either on Higgs.
        attention_dropout: of attention weights.
        init: see `MultiTabNet`.

    Raises:
        ArgumentError: a number is out of range, or `heads` does not divide `width`.
        UnknownNameError: `init` does not exist.
    """

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        schema: TableSchema = NO_COLUMNS,
        depth: int = 2,
        heads: int = 4,
        width: int = 16,
        feedforward: int = 256,
        head_hidden: Sequence[int] = (64,),
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
            inter_sample="none",
            ff_dropout=ff_dropout,
            attention_dropout=attention_dropout,
            init=init,
        )
