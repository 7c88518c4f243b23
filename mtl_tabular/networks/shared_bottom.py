"""Hard sharing on tables: one multi-layer perceptron, one tower per task."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mtl_core.nn import Features
from mtl_core.tasks import Task
from mtl_core.types import Inputs, TaskName
from mtl_tabular.data.schema import NO_COLUMNS, TableSchema
from mtl_tabular.networks.base import TableNetwork
from mtl_tabular.nn.flat_input import FlatInput
from mtl_tabular.nn.initialization import Init, init_std, initialize
from mtl_tabular.nn.perceptron import build_tower, check_widths, perceptron


class SharedBottom(TableNetwork):
    """A shared perceptron on the flattened features, a tower per task (Caruana, 1997).

    With one task it is the single-task MLP that Δm is measured against in the tabular literature;
    the reference implementation of MultiTab takes ``shared: [256, 128, 64]`` and ``tower: []`` for
    that.

    Shapes: inputs as in `TableSchema` → (B, C) by task.

    Args:
        tasks: records by name.
        schema: the columns, see `TableNetwork`.
        token_width: width of a feature's vector before they are flattened; 0 takes raw numbers.
        shared: widths of the shared layers (Linear, batch norm, ReLU, dropout).
        tower: widths of the hidden layers of every task's tower, may be empty.
        dropout: probability in [0, 1).
        init: see `mtl_tabular.nn.initialization`.

    Raises:
        ArgumentError: a width is not positive, or `token_width` is 0 with categorical columns.
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
        init: Init = "library",
    ) -> None:
        super().__init__(tasks, schema)
        check_widths("shared", shared, dropout)
        check_widths("tower", tower, dropout, least=0)
        self.front = FlatInput(schema, token_width, init_std=init_std(init))
        self.shared = perceptron((self.front.width, *shared), dropout)
        self.towers = nn.ModuleDict(
            {
                name: build_tower(shared[-1], tower, task.out_channels, dropout)
                for name, task in self.tasks.items()
            }
        )
        initialize(self, init)

    def encode(self, inputs: Inputs, tags: Mapping[str, Tensor] | None = None) -> Features:
        """Shared vector (B, D)."""
        return Features([self.shared(self.front(inputs))])

    def decode(self, features: Features, task: TaskName) -> Tensor:
        """Raw prediction (B, C) of one task."""
        decoded: Tensor = self.towers[task](features.maps[0])
        return decoded

    def decoder_modules(self, task: TaskName) -> Sequence[nn.Module]:
        """The task's tower."""
        return [self.towers[task]]
