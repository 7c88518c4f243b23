"""Hard sharing on tables: one multi-layer perceptron, one tower per task."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mtl_core.nn import Features
from mtl_core.tasks import Task
from mtl_core.types import Inputs, TaskName
from mtl_tabular.data.schema import NO_COLUMNS, TableSchema
from mtl_tabular.networks.base import TableNetwork
from mtl_tabular.nn.tokenizer import Tokenizer


class SharedBottom(TableNetwork):
    """A shared perceptron on the flattened tokens, a tower per task (Caruana, 1997).

    With one task it is the single-task MLP that Δm is measured against in the tabular literature.

    Shapes: inputs as in `TableSchema` → (B, C) by task.

    Args:
        tasks: records by name.
        schema: the columns, see `TableNetwork`.
        token_width: width of a feature's vector before they are flattened.
        shared: widths of the shared layers (Linear, BatchNorm, ReLU, dropout).
        tower: widths of the hidden layers of every task's tower.
        dropout: probability in [0, 1).
    """

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        schema: TableSchema = NO_COLUMNS,
        token_width: int = 16,
        shared: Sequence[int] = (256, 128),
        tower: Sequence[int] = (64,),
        dropout: float = 0.2,
    ) -> None:
        super().__init__(tasks, schema)
        self.tokenizer = Tokenizer(schema, token_width)
        self.shared = perceptron((len(schema) * token_width, *shared), dropout)
        self.towers = nn.ModuleDict(
            {
                name: nn.Sequential(
                    perceptron((shared[-1], *tower), dropout),
                    nn.Linear(tower[-1], task.out_channels),
                )
                for name, task in self.tasks.items()
            }
        )

    def encode(self, inputs: Inputs, tags: Mapping[str, Tensor] | None = None) -> Features:
        """Shared vector (B, D)."""
        return Features([self.shared(self.tokenizer(inputs).flatten(1))])

    def decode(self, features: Features, task: TaskName) -> Tensor:
        """Raw prediction (B, C) of one task."""
        decoded: Tensor = self.towers[task](features.maps[0])
        return decoded

    def decoder_modules(self, task: TaskName) -> Sequence[nn.Module]:
        """The task's tower."""
        return [self.towers[task]]


def perceptron(widths: Sequence[int], dropout: float) -> nn.Sequential:
    """Layers of given widths, each Linear, BatchNorm, ReLU and dropout."""
    layers: list[nn.Module] = []
    for i in range(len(widths) - 1):
        layers += [nn.Linear(widths[i], widths[i + 1]), nn.BatchNorm1d(widths[i + 1])]
        layers += [nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)
