"""MMoE: shared experts, and a gate per task that mixes them."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mtl_core.nn import Features
from mtl_core.tasks import Task
from mtl_core.types import Inputs, TaskName
from mtl_tabular.data.schema import NO_COLUMNS, TableSchema
from mtl_tabular.networks.base import TableNetwork
from mtl_tabular.nn.experts import Experts, GatedTower
from mtl_tabular.nn.flat_input import FlatInput
from mtl_tabular.nn.initialization import Init, init_std, initialize
from mtl_tabular.nn.perceptron import check_widths


class MMoE(TableNetwork):
    """Multi-gate mixture of experts.

    Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts", KDD 2018, equations 6 and 7. The border is the expert outputs and the flat
    features: gates and towers belong to the tasks.

    Shapes: inputs as in `TableSchema` → (B, C) by task.

    Args:
        tasks: records by name.
        schema: the columns, see `TableNetwork`.
        token_width: width of a feature's vector before they are flattened; 0 takes raw numbers.
        experts: number E of experts. With one, this is `SharedBottom`.
        expert: widths of an expert's layers (Linear, batch norm, ReLU, dropout).
        tower: widths of the hidden layers of every task's tower, may be empty.
        dropout: probability in [0, 1).
        init: see `mtl_tabular.nn.initialization`.

    Raises:
        ArgumentError: a count or a width is not positive, or `token_width` is 0 with categorical
            columns.
    """

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        schema: TableSchema = NO_COLUMNS,
        token_width: int = 16,
        experts: int = 8,
        expert: Sequence[int] = (256, 128),
        tower: Sequence[int] = (64,),
        dropout: float = 0.2,
        init: Init = "library",
    ) -> None:
        super().__init__(tasks, schema)
        check_widths("expert", expert, dropout)
        check_widths("tower", tower, dropout, least=0)
        std = init_std(init)
        self.front = FlatInput(schema, token_width, init_std=std)
        width = self.front.width
        self.experts = Experts(experts, (width, *expert), dropout, init_std=std)
        self.heads = nn.ModuleDict(
            {
                name: GatedTower(width, experts, expert[-1], tower, task.out_channels, dropout)
                for name, task in self.tasks.items()
            }
        )
        initialize(self, init)

    def encode(self, inputs: Inputs, tags: Mapping[str, Tensor] | None = None) -> Features:
        """Expert outputs (B, E·D) and the flat features."""
        flat = self.front(inputs)
        return Features([self.experts(flat).flatten(1), flat])

    def decode(self, features: Features, task: TaskName) -> Tensor:
        """Raw prediction (B, C) of one task."""
        outputs, flat = features.maps
        experts = outputs.unflatten(1, (self.experts.experts, -1))
        decoded: Tensor = self.heads[task](flat, experts)
        return decoded

    def decoder_modules(self, task: TaskName) -> Sequence[nn.Module]:
        """The task's gate and tower."""
        return [self.heads[task]]
