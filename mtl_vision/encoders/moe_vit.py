"""A plain ViT with task-dependent sparse experts (M³ViT, Liang et al., NeurIPS 2022)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.moe import (
    Backend,
    ConditionedRouter,
    ExpertBank,
    GateNorm,
    MoEFFN,
    PerTaskRouter,
    Router,
    RouterOut,
    SingleRouter,
    balance_loss,
    z_loss,
)
from mtl_core.nn import Features
from mtl_core.types import TaskName
from mtl_vision.encoders.moe_block import MoEBlock, Waiting, check_plain, sliceable
from mtl_vision.encoders.timm import ModelArgs, TimmEncoder
from mtl_vision.encoders.upcycle import check_windows, split_mlp, tie_columns

Noise: TypeAlias = Literal["none", "vmoe", "shazeer"]
Routing: TypeAlias = Literal["multi_gate", "conditioned", "single"]
Which: TypeAlias = TaskName | Tensor


class MoEViT(TimmEncoder):
    """A timm plain ViT in some of whose blocks the MLP is replaced by experts, chosen by task.

    A router picks K of E experts for every token (class and register tokens included) of a task.
    One task therefore costs what the dense network costs, whatever E is, and nothing that serves
    another task runs. What lies before the first router's choice does not depend on the task:
    `forward_tasks` computes it once and the rest as one batch of all tasks, in which every expert
    has longer queues.

    Started from a dense network (`experts` ``upcycle``), it computes what the dense one computes
    until it is trained; see `mtl_vision.encoders.upcycle`.

    Shapes: images (B, in_chans, H, W) → maps (B, D, H / patch, W / patch) a task.

    Args:
        tasks: names; their order is that of the routers.
        name: timm name of a plain ViT with pre-norm blocks.
        pretrained: load the published dense weights of that tag.
        img_size: see `TimmEncoder`; likewise `out_indices`, `drop_path`, `in_chans`, `model_args`.
        out_indices: blocks that give a map.
        drop_path: rate of stochastic depth, in [0, 1).
        in_chans: image channels.
        grad_checkpointing: recompute activations in the backward pass, block by block.
        model_args: further plain arguments of the timm model.
        moe_layers: blocks with experts, counted from 0, ascending; None: every second one (1, 3, 5,
            ...). The later the first, the more is shared by the tasks of a batch.
        routing: ``multi_gate``: a router a task; ``conditioned``: one router that sees the token
            and an embedding of the task; ``single``: one router that knows no task.
        num_experts: E of every such block.
        top_k: K experts a token.
        expert_ratio: hidden units of an expert by D; None: K experts have as many as the MLP.
        experts: ``upcycle``: slices of the dense MLPs; ``random``: fresh ones.
        gate_norm: ``none``: gates are probabilities over all experts, as published; ``topk``: those
            of the chosen experts add up to one. None: ``topk`` for upcycled experts, else ``none``.
        gate_noise: of the routers while training, see `mtl_core.moe.PerTaskRouter`.
        noise_std: likewise; the published command sets 0.
        gate_input_ahead: routers see the input of the block instead of that of the experts.
        task_width: of the task's embedding, for conditioned routing.
        balance_weight: of the balance loss in `Features.aux`, summed over blocks and tasks.
        task_windows: experts that a task may use, by task, the same in every block; tasks that are
            left out use all. Whatever lies outside can be removed from an export of the task
            exactly. Where experts are upcycled, windows consist of whole copies of the MLP
            (experts 0..K-1, K..2K-1, ...), and gates add up to one.
        z_weight: likewise of the z-loss, which keeps the routers' logits small.
        batch_tasks: `forward_tasks` runs the part that depends on the task as one batch; False: one
            task after another, which takes less memory where no gradients are wanted.
        backend: how tokens get to their experts, see `mtl_core.moe.Backend`.

    Raises:
        ArgumentError: the model is no plain ViT of pre-norm blocks, or an argument does not fit it.

    Example:
        >>> shape = {"embed_dim": 48, "depth": 4, "num_heads": 3}
        >>> encoder = MoEViT(("depth", "normals"), name="vit_tiny_patch16_224", img_size=(64, 96),
        ...                  model_args=shape, num_experts=8, top_k=2)
        >>> encoder.moe_layers
        (1, 3)
        >>> features = encoder(torch.rand(2, 3, 64, 96), "depth")
        >>> features.maps[-1].shape
        torch.Size([2, 48, 4, 6])
    """

    def __init__(
        self,
        tasks: Sequence[TaskName],
        *,
        name: str,
        pretrained: bool = False,
        img_size: tuple[int, int] | None = None,
        out_indices: tuple[int, ...] | None = None,
        drop_path: float = 0.0,
        in_chans: int = 3,
        grad_checkpointing: bool = False,
        model_args: ModelArgs | None = None,
        moe_layers: tuple[int, ...] | None = None,
        routing: Routing = "multi_gate",
        num_experts: int = 16,
        top_k: int = 4,
        expert_ratio: float | None = None,
        experts: Literal["upcycle", "random"] = "upcycle",
        gate_norm: GateNorm | None = None,
        gate_noise: Noise = "none",
        noise_std: float = 1.0,
        gate_input_ahead: bool = False,
        task_width: int = 64,
        balance_weight: float = 0.01,
        z_weight: float = 0.0,
        task_windows: dict[TaskName, list[int]] | None = None,
        batch_tasks: bool = True,
        backend: Backend = "sorted",
    ) -> None:
        super().__init__(
            name,
            pretrained=pretrained,
            img_size=img_size,
            out_indices=out_indices,
            drop_path=drop_path,
            in_chans=in_chans,
            grad_checkpointing=grad_checkpointing,
            model_args=model_args,
        )
        check_plain(self.model, name, model_args or {})
        self.tasks = _names(tasks)
        self.moe_layers = _layers(moe_layers, len(self.model.blocks))
        for key, weight in (("balance_weight", balance_weight), ("z_weight", z_weight)):
            if weight < 0:
                raise ArgumentError(key, "not be negative", weight)
        self.routing = routing
        self.upcycled = experts == "upcycle"
        self.gate_norm: GateNorm = gate_norm or ("topk" if self.upcycled else "none")
        self.balance_weight, self.z_weight = balance_weight, z_weight
        self.batch_tasks = batch_tasks
        mlp = self.model.blocks[0].mlp
        dim = int(self.model.embed_dim)
        hidden = _expert_width(mlp, dim, self.upcycled, top_k, expert_ratio)
        self._mlp_shapes = {k: p.shape for k, p in mlp.named_parameters()}
        if task_windows and routing == "single":
            rule = "be left out where routing knows no task"
            raise ArgumentError("task_windows", rule, task_windows)
        if self.upcycled:
            check_windows(task_windows or {}, top_k=top_k, gate_norm=self.gate_norm)
        options = {
            "norm": self.gate_norm,
            "noise": gate_noise,
            "noise_std": noise_std,
            "task_windows": task_windows,
        }
        make = _router_kind(routing, task_width)
        for i in self.moe_layers:
            router = make(self.tasks, dim, num_experts, top_k, **options)
            bank = ExpertBank(num_experts, dim, hidden)
            block = self.model.blocks[i]
            self.model.blocks[i] = MoEBlock(
                block,
                MoEFFN(router, bank, backend=backend),
                gate_input_ahead=gate_input_ahead,
            )
            if self.upcycled:
                self._upcycle(i, dict(block.mlp.named_parameters()))
        self.train()

    def forward(self, images: Tensor, task: TaskName | None = None) -> Features:
        """Features of images (B, in_chans, H, W) for one task.

        Args:
            images: of the size that is fixed.
            task: may be left out where there is one only, or one router for all (``single``).
        """
        if task is None:
            if self.routing != "single" and len(self.tasks) > 1:
                rule = "name one of the tasks, since the features depend on it"
                raise ArgumentError("task", rule, None)
            task = self.tasks[0]
        return self.forward_tasks(images, [task])[task]

    def forward_tasks(self, images: Tensor, tasks: Sequence[TaskName]) -> dict[TaskName, Features]:
        """Features of images (B, in_chans, H, W) for several tasks; nothing of others runs.

        Auxiliary losses of routers that know no task stand with the first one.
        """
        for name in tasks:
            if name not in self.tasks:
                raise UnknownNameError("tasks", name, self.tasks)
        self.check_size(images)
        size = (images.shape[-2], images.shape[-1])
        taps: dict[int, Tensor] = {}
        waiting = self._shared(images, taps)
        if self.routing == "single":
            (features,) = self._routed(waiting, tasks[:1], taps, size)
            rest = replace(features, aux={})
            return {name: rest if i else features for i, name in enumerate(tasks)}
        if self.batch_tasks:
            found = self._routed(waiting, tasks, taps, size)
        else:
            found = [f for name in tasks for f in self._routed(waiting, [name], taps, size)]
        return dict(zip(tasks, found, strict=True))

    def _shared(self, images: Tensor, taps: dict[int, Tensor]) -> Waiting:
        """Everything up to the first router; fills in the maps on the way."""
        model = self.model
        x = model.norm_pre(model._pos_embed(model.patch_embed(images)))
        for i, block in enumerate(model.blocks[: self.moe_layers[0]]):
            x = self._call(block, x)
            taps[i] = x
        waiting: Waiting = self._call(model.blocks[self.moe_layers[0]].attend, x)
        return waiting

    def _routed(
        self,
        waiting: Waiting,
        tasks: Sequence[TaskName],
        shared: Mapping[int, Tensor],
        size: tuple[int, int],
    ) -> list[Features]:
        """The rest, for several tasks at once; samples of a task stand together."""
        model, count = self.model, len(tasks)
        which: Which = tasks[0]
        if count > 1:
            places = torch.tensor([self.tasks.index(name) for name in tasks])
            samples = waiting.tokens.shape[0]
            which = places.to(waiting.tokens.device).repeat_interleave(samples)
            waiting = waiting.repeated(count)
        first = self.moe_layers[0]
        x, routed = self._call(model.blocks[first].feed, waiting, which)
        records, taps = [routed], {first: x}
        for i, block in enumerate(model.blocks[first + 1 :], first + 1):
            if isinstance(block, MoEBlock):
                x, routed = self._call(block, x, which)
                records.append(routed)
            else:
                x = self._call(block, x)
            taps[i] = x
        final = model.norm(x)
        taps[self.indices[-1]] = final
        parts = {i: _by_task(taps[i], count) for i in self.indices if i in taps}
        return [
            Features(
                maps=[
                    self._map(parts[i][t] if i in parts else shared[i], size) for i in self.indices
                ],
                size=size,
                tokens=_by_task(final, count)[t],
                aux=self._aux(records, t, count),
            )
            for t in range(count)
        ]

    def _map(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Patch tokens (B, N, D) as a map (B, D, h, w)."""
        height, width = self.model.patch_embed.dynamic_feat_size(size)
        patches = tokens[:, tokens.shape[1] - height * width :]
        return patches.transpose(1, 2).reshape(tokens.shape[0], -1, height, width)

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        if self.model.grad_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(function, *args, use_reentrant=False)
        return function(*args)

    def _aux(self, records: Sequence[RouterOut], task: int, count: int) -> dict[str, Tensor]:
        """Losses of the routing of one of `count` tasks, over all blocks, while training."""
        if not self.training:
            return {}
        parts = [record.chunk(count)[task] for record in records]
        terms = {
            "balance": (self.balance_weight, balance_loss),
            "router_z": (self.z_weight, z_loss),
        }
        return {
            key: weight * torch.stack([loss(part) for part in parts]).sum()
            for key, (weight, loss) in terms.items()
            if weight
        }

    def task_modules(self, task: TaskName) -> list[nn.Module]:
        """The routers that serve only `task`, block by block; none unless routing is by task."""
        if self.routing != "multi_gate":
            return []
        return [self.model.blocks[i].mlp.router.gate(task) for i in self.moe_layers]

    def compiled_parts(self) -> list[nn.Module]:
        """Modules without routing, whose shapes do not depend on values."""
        blocks = self.model.blocks
        parts = [block.attn if isinstance(block, MoEBlock) else block for block in blocks]
        return [self.model.patch_embed, *parts]

    @torch.no_grad()
    def load_dense(self, weights: Mapping[str, Tensor]) -> None:
        """Take a dense network's weights, the MLPs of blocks with experts as slices.

        Args:
            weights: state dict of a `TimmEncoder` of the same model.

        Raises:
            ArgumentError: names or shapes differ, or the experts are no slices.
        """
        if not self.upcycled:
            raise ArgumentError("experts", "be upcycle to start from a dense network", "random")
        expected = self._dense_shapes()
        wrong = sorted(
            {k for k, shape in expected.items() if k not in weights or weights[k].shape != shape}
            | (weights.keys() - expected.keys())
        )
        if wrong:
            rule = f"hold the same encoder without experts ({len(wrong)} names or shapes differ)"
            raise ArgumentError("start_from", rule, wrong[:4])
        for i in self.moe_layers:
            prefix = f"model.blocks.{i}.mlp."
            self._upcycle(
                i, {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
            )
        own = self.state_dict()
        self.load_state_dict({**own, **{k: v for k, v in weights.items() if k in own}})

    def _dense_shapes(self) -> dict[str, torch.Size]:
        """Names and shapes of the dense network's weights."""
        prefixes = tuple(f"model.blocks.{i}.mlp." for i in self.moe_layers)
        shapes = {k: v.shape for k, v in self.state_dict().items() if not k.startswith(prefixes)}
        for prefix in prefixes:
            shapes |= {f"{prefix}{k}": shape for k, shape in self._mlp_shapes.items()}
        return shapes

    @torch.no_grad()
    def _upcycle(self, layer: int, mlp: Mapping[str, Tensor]) -> None:
        """Make the experts of a block slices of an MLP, and its router blind to the slices."""
        ffn = self.model.blocks[layer].mlp
        router, bank = ffn.router, ffn.bank
        found = split_mlp(
            mlp, num_experts=router.num_experts, top_k=router.top_k, gate_norm=self.gate_norm
        )
        for name, weights in found._asdict().items():
            getattr(bank, name).copy_(weights)
        for m in router.modules():
            if isinstance(m, nn.Linear) and m.out_features == router.num_experts:
                m.weight.copy_(tie_columns(m.weight.t(), router.top_k).t())


def _by_task(tokens: Tensor, count: int) -> Sequence[Tensor]:
    """Equal parts of a batch; graphs of one task keep their batch free only if nothing is cut."""
    return tokens.chunk(count) if count > 1 else (tokens,)


def _names(tasks: Sequence[TaskName]) -> tuple[TaskName, ...]:
    if not tasks or len(set(tasks)) < len(tasks):
        raise ArgumentError("tasks", "be different names, at least one", list(tasks))
    return tuple(tasks)


def _layers(given: tuple[int, ...] | None, count: int) -> tuple[int, ...]:
    """Blocks that get experts."""
    layers = tuple(range(1, count, 2)) if given is None else tuple(given)
    inside = all(0 <= i < count for i in layers)
    if not layers or not inside or list(layers) != sorted(set(layers)):
        raise ArgumentError("moe_layers", f"ascend within 0..{count - 1}, one at least", layers)
    return layers


def _expert_width(mlp: Any, dim: int, upcycled: bool, top_k: int, ratio: float | None) -> int:
    """Hidden units of an expert."""
    reason = sliceable(mlp)
    if upcycled and reason:
        raise ArgumentError("experts", f"be random for this model ({reason})", "upcycle")
    if upcycled and ratio is not None:
        raise ArgumentError("expert_ratio", "be left out for slices of the dense MLPs", ratio)
    if ratio is None:
        if reason:
            raise ArgumentError("expert_ratio", f"be given for this model ({reason})", None)
        return max(1, int(mlp.fc1.out_features) // top_k)
    return max(1, round(ratio * dim))


def _router_kind(routing: Routing, task_width: int) -> Callable[..., Router]:
    kinds: dict[str, Callable[..., Router]] = {
        "multi_gate": PerTaskRouter,
        "conditioned": partial(ConditionedRouter, d_task=task_width),
        "single": SingleRouter,
    }
    if routing not in kinds:
        raise UnknownNameError("routing", routing, kinds)
    return kinds[routing]
