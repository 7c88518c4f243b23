"""PLE: shared experts and experts of every task, mixed level by level."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mtl_core.nn import Features
from mtl_core.tasks import Task
from mtl_core.types import Inputs, TaskName
from mtl_tabular.data.schema import NO_COLUMNS, TableSchema
from mtl_tabular.networks.base import TableNetwork
from mtl_tabular.nn.extraction import Extractor, TowerInput, shared_output
from mtl_tabular.nn.flat_input import FlatInput
from mtl_tabular.nn.initialization import Init, init_std, initialize
from mtl_tabular.nn.perceptron import check_widths


class PLE(TableNetwork):
    """Progressive layered extraction.

    Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model for
    Personalized Recommendations", RecSys 2020, section 4. A task's gate mixes its own and the
    shared experts, the shared gate all of them; both feed the next level. One level is the paper's
    CGC.

    The border is the last level's expert outputs and inputs: that level's gates and the towers
    belong to the tasks. Experts of a task count as shared, since the shared gate brings them to
    every task.

    Shapes: inputs as in `TableSchema` → (B, C) by task.

    Args:
        tasks: records by name.
        schema: the columns, see `TableNetwork`.
        token_width: width of a feature's vector before they are flattened; 0 takes raw numbers.
        shared_experts: number S of shared experts on a level; may be 0.
        task_experts: number M of experts per task on a level; may be 0.
        levels: number of levels.
        expert: widths of an expert's layers (Linear, batch norm, ReLU, dropout).
        tower: widths of the hidden layers of every task's tower, may be empty.
        tower_input: ``both`` gives a tower its task's mixture and the shared one, as the reference
            implementation of MultiTab does; ``task`` only the first, as the paper does.
        dropout: probability in [0, 1).
        init: see `mtl_tabular.nn.initialization`.

    Raises:
        ArgumentError: a count or a width breaks its rule, or `token_width` is 0 with categorical
            columns.
        UnknownNameError: an option does not exist.
    """

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        schema: TableSchema = NO_COLUMNS,
        token_width: int = 16,
        shared_experts: int = 4,
        task_experts: int = 2,
        levels: int = 1,
        expert: Sequence[int] = (256, 128),
        tower: Sequence[int] = (64,),
        tower_input: TowerInput = "both",
        dropout: float = 0.2,
        init: Init = "library",
    ) -> None:
        super().__init__(tasks, schema)
        check_widths("expert", expert, dropout)
        check_widths("tower", tower, dropout, least=0)
        std = init_std(init)
        self.front = FlatInput(schema, token_width, init_std=std)
        self.extractor = Extractor(
            len(self.tasks),
            self.front.width,
            expert=expert,
            task_experts=task_experts,
            shared_experts=shared_experts,
            levels=levels,
            dropout=dropout,
            shared_output=shared_output(tower_input),
            init_std=std,
        )
        self.heads = self.extractor.build_heads(self.tasks, tower, dropout)
        initialize(self, init)

    def encode(self, inputs: Inputs, tags: Mapping[str, Tensor] | None = None) -> Features:
        """Outputs and inputs of the last level's experts, see `Extractor`."""
        features: Features = self.extractor(self.front(inputs).unsqueeze(1))
        return features

    def decode(self, features: Features, task: TaskName) -> Tensor:
        """Raw prediction (B, C) of one task."""
        i = list(self.tasks).index(task)
        decoded: Tensor = self.heads[task](*self.extractor.select(features, i))
        return decoded

    def decoder_modules(self, task: TaskName) -> Sequence[nn.Module]:
        """The task's last gate and its tower."""
        return [self.heads[task]]
