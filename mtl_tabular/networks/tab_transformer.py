"""TabTransformer: attention between the categorical columns of a row."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtl_core.errors import ArgumentError
from mtl_core.nn import Features
from mtl_core.tasks import Task
from mtl_core.types import Inputs, TaskName
from mtl_tabular.data.schema import NO_COLUMNS, TableSchema
from mtl_tabular.networks.base import TableNetwork
from mtl_tabular.nn.attention import FeatureLayer
from mtl_tabular.nn.flat_input import FlatInput
from mtl_tabular.nn.initialization import Init, init_std, initialize
from mtl_tabular.nn.perceptron import build_tower, check_widths
from mtl_tabular.nn.tokenizer import Tokenizer


class TabTransformer(TableNetwork):
    """Contextual embeddings of categories beside normalised numbers, a perceptron on both.

    Huang et al., "TabTransformer: Tabular Data Modeling Using Contextual Embeddings", arXiv
    2012.06678, section 2, without its pre-training; with pre-norm layers, as MultiTab (arXiv
    2511.09970) compares with it. Dropout stands where `FTTransformer` has it; the reference drops
    the residual stream instead.

    Numbers pass a layer norm over the columns of a row, missing ones as the training median. A
    single number skips it, since it would become 0 whatever its value.

    The literature trains one network a task: the verb ``baselines``, or `PerTask`. With several
    tasks here, they share everything but their towers.

    Shapes: inputs as in `TableSchema` → (B, C) by task.

    Args:
        tasks: records by name.
        schema: the columns, see `TableNetwork`; at least one is categorical.
        depth: layers.
        heads: of attention; divides `width`.
        width: D of a token.
        feedforward: hidden width of the layers.
        head_hidden: widths of the hidden layers of every task's tower.
        ff_dropout: of hidden layers, what attention adds, and towers.
        attention_dropout: of attention weights.
        init: see `MultiTabNet`.

    Raises:
        ArgumentError: there is no categorical column, a number is out of range, or `heads` does not
            divide `width`.
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
        super().__init__(tasks, schema)
        if not schema.categorical:
            raise ArgumentError(
                "schema",
                "hold a categorical column, for TabTransformer attends between nothing else: take "
                "FTTransformer, or name columns of codes in the data's `categorical`",
                f"{len(schema.numeric)} numeric ones",
            )
        if depth < 1:
            raise ArgumentError("depth", "be at least 1", depth)
        check_widths("head_hidden", head_hidden, ff_dropout, least=0)
        if not 0 <= attention_dropout < 1:
            raise ArgumentError("attention_dropout", "lie in [0, 1)", attention_dropout)
        categories = TableSchema(categorical=schema.categorical)
        self.tokenizer = Tokenizer(categories, width, init_std=init_std(init))
        self.layers = nn.Sequential(
            *(
                FeatureLayer(
                    width,
                    heads,
                    feedforward,
                    ff_dropout=ff_dropout,
                    attention_dropout=attention_dropout,
                )
                for _ in range(depth)
            )
        )
        count = len(schema.numeric)
        self.numbers = FlatInput(TableSchema(numeric=schema.numeric), 0) if count else None
        self.norm = nn.LayerNorm(count) if count > 1 else nn.Identity()
        joint = len(schema.categorical) * width + count
        self.towers = nn.ModuleDict(
            {
                name: build_tower(joint, head_hidden, task.out_channels, ff_dropout, norm=False)
                for name, task in self.tasks.items()
            }
        )
        initialize(self, init)

    def encode(self, inputs: Inputs, tags: Mapping[str, Tensor] | None = None) -> Features:
        """Contextual tokens and numbers of a row behind each other, (B, D')."""
        tokens: Tensor = self.layers(self.tokenizer(inputs)).flatten(1)
        if self.numbers is None:
            return Features([tokens])
        return Features([torch.cat([tokens, self.norm(self.numbers(inputs))], 1)])

    def decode(self, features: Features, task: TaskName) -> Tensor:
        """Raw prediction (B, C) of one task."""
        decoded: Tensor = self.towers[task](features.maps[0])
        return decoded

    def decoder_modules(self, task: TaskName) -> Sequence[nn.Module]:
        """The task's tower."""
        return [self.towers[task]]
