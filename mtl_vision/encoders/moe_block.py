"""A transformer block whose MLP is a set of experts, in two halves."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from timm.layers.activations import GELU
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from mtl_core.errors import ArgumentError
from mtl_core.moe import MoEFFN, RouterOut
from mtl_core.types import TaskName


class Waiting(NamedTuple):
    """What a block knows of its tokens before a task is named.

    Args:
        tokens: (B, N, D) after attention, to which the experts' output is added.
        inner: (B, N, D) normalised, what the experts take.
        gate_input: (B, N, D) what the router takes.
    """

    tokens: Tensor
    inner: Tensor
    gate_input: Tensor

    def repeated(self, count: int) -> Self:
        """`count` times the batch, one after another."""
        return type(self)(*(t.repeat(count, 1, 1) for t in self))


class MoEBlock(nn.Module):
    """A pre-norm block of timm with experts in the place of its MLP.

    Norms, attention, layer scale and stochastic depth are the block's own and keep their names.

    Args:
        block: a `timm.models.vision_transformer.Block`.
        experts: in the place of ``mlp``.
        gate_input_ahead: the router sees the input of the block instead of that of the experts.
    """

    def __init__(self, block: Any, experts: MoEFFN, *, gate_input_ahead: bool = False) -> None:
        super().__init__()
        self.norm1, self.attn = block.norm1, block.attn
        self.ls1, self.drop_path1 = block.ls1, block.drop_path1
        self.norm2, self.mlp = block.norm2, experts
        self.ls2, self.drop_path2 = block.ls2, block.drop_path2
        self.gate_input_ahead = gate_input_ahead

    def attend(self, x: Tensor) -> Waiting:
        """The half of the block that is the same for all tasks, for tokens (B, N, D)."""
        tokens = x + self.drop_path1(self.ls1(self.attn(self.norm1(x))))
        inner = self.norm2(tokens)
        return Waiting(tokens, inner, x if self.gate_input_ahead else inner)

    def feed(self, waiting: Waiting, task: TaskName | Tensor) -> tuple[Tensor, RouterOut]:
        """The other half, for a task or for one a sample (B,): tokens, and how they were routed."""
        out, routed = self.mlp(waiting.inner, task, waiting.gate_input)
        return waiting.tokens + self.drop_path2(self.ls2(out)), routed

    def forward(self, x: Tensor, task: TaskName | Tensor) -> tuple[Tensor, RouterOut]:
        """Both halves."""
        return self.feed(self.attend(x), task)


def check_plain(model: nn.Module, name: str, model_args: Mapping[str, Any]) -> None:
    """Refuse what is no plain ViT of pre-norm blocks, and options that experts do not have.

    Args:
        model: of timm.
        name: its name.
        model_args: what it was made with.
    """
    if not isinstance(model, VisionTransformer):
        rule = f"be a plain ViT of timm to get experts, not a {type(model).__name__}"
        raise ArgumentError("name", rule, name)
    other = {type(block).__name__ for block in model.blocks if type(block) is not Block}
    if other:
        rule = f"be a plain ViT of blocks that normalise first, not of {', '.join(sorted(other))}"
        raise ArgumentError("name", rule, name)
    for key, why in (
        ("patch_drop_rate", "maps need all patches"),
        ("proj_drop_rate", "experts have no dropout inside"),
    ):
        if model_args.get(key):
            raise ArgumentError("model_args", f"leave {key} at 0, as {why}", dict(model_args))


def sliceable(mlp: nn.Module) -> str:
    """Why an MLP of timm cannot be cut into experts; empty where it can."""
    if type(mlp) is not Mlp or not isinstance(mlp.fc1, nn.Linear):
        return f"its MLPs are {type(mlp).__name__}"
    if not isinstance(mlp.norm, nn.Identity):
        return "its MLPs have a norm inside"
    activation = mlp.act
    exact = isinstance(activation, nn.GELU | GELU)
    if not exact or getattr(activation, "approximate", "none") != "none":
        return f"its MLPs have the activation {type(activation).__name__}, experts GELU"
    return ""
