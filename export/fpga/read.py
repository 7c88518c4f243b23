"""A trained network's ViT as plain arrays, by the structure of its modules, never by its class."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from export.fpga import vit
from export.fpga.formats import Floats
from mtl_core.errors import MTLError
from mtl_core.moe import ConditionedRouter, MoEFFN, PerTaskRouter, Router, SingleRouter


class UnsupportedLayerError(MTLError, ValueError):
    """The kernels have no such layer."""

    def __init__(self, where: str, rule: str, found: object) -> None:
        super().__init__(
            f"{where} must {rule} to become a fixed-point design, found {found}. The kernels know "
            "plain ViTs of pre-norm blocks with GELU and token routers; export such networks to "
            "ONNX instead."
        )


@torch.no_grad()
def read_vit(
    network: nn.Module,
    tasks: Sequence[str],
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
) -> vit.ViT:
    """The encoder of a network for some tasks.

    Args:
        network: holds ``encoder.model``, a plain ViT laid out as timm's; some of its blocks may
            have a `mtl_core.moe.MoEFFN` for an MLP.
        tasks: whose routers are read.
        mean: of the normalisation of images in [0, 1], by channel or one for all.
        std: likewise. Both go into the patch embedding, which is exact as it has no padding.

    Raises:
        UnsupportedLayerError: a layer is none of those that the kernels compute.
    """
    model = getattr(getattr(network, "encoder", None), "model", None)
    needed = ("patch_embed", "blocks", "norm", "_pos_embed")
    lacking = [name for name in needed if not hasattr(model, name)]
    if model is None or lacking:
        found = type(network).__name__ + (f" without {', '.join(lacking)}" if model else "")
        raise UnsupportedLayerError("encoder.model", "be a plain ViT", found)
    _identity("norm_pre", getattr(model, "norm_pre", None))
    convolution = _convolution(model.patch_embed)
    embed = _embedding(convolution, mean, std)
    size = model.patch_embed.img_size
    patch = (int(convolution.kernel_size[0]), int(convolution.kernel_size[1]))
    if size is None or getattr(model, "dynamic_img_size", False):
        raise UnsupportedLayerError("patch_embed", "have a fixed size of images", size)
    count = (size[0] // patch[0]) * (size[1] // patch[1])
    dim = convolution.out_channels
    training = model.training
    model.eval()
    placed = _array(model._pos_embed(torch.zeros(1, count, dim)))[0]
    model.train(training)
    prefix = len(placed) - count
    blocks = [_block(f"blocks.{i}", block, tasks) for i, block in enumerate(model.blocks)]
    return vit.ViT(
        image=(int(convolution.in_channels), int(size[0]), int(size[1])),
        patch=patch,
        embed=embed,
        prefix=placed[:prefix],
        position=placed[prefix:],
        blocks=tuple(blocks),
        norm=_norm("norm", model.norm),
    )


def _array(tensor: torch.Tensor) -> Floats:
    return np.asarray(tensor.detach().cpu().double().numpy(), dtype=np.float64)


def _identity(where: str, module: object) -> None:
    if module is not None and not isinstance(module, nn.Identity):
        raise UnsupportedLayerError(where, "be left out", type(module).__name__)


def _convolution(embed: Any) -> nn.Conv2d:
    _identity("patch_embed.norm", getattr(embed, "norm", None))
    layer = getattr(embed, "proj", None)
    if not isinstance(layer, nn.Conv2d):
        raise UnsupportedLayerError("patch_embed.proj", "be a convolution", type(layer).__name__)
    plain = layer.kernel_size == layer.stride and layer.groups == 1 and layer.dilation == (1, 1)
    if not plain or any(layer.padding):
        raise UnsupportedLayerError("patch_embed.proj", "cut patches without padding", layer)
    return layer


def _embedding(layer: nn.Conv2d, mean: Sequence[float], std: Sequence[float]) -> vit.Dense:
    """Patch embedding of pixels 0..255 with the normalisation inside: W/(255 σ), b - Σ W μ/σ."""
    weight = _array(layer.weight)
    channels = weight.shape[1]
    mu = np.broadcast_to(np.asarray(mean, dtype=np.float64), (channels,))
    sigma = np.broadcast_to(np.asarray(std, dtype=np.float64), (channels,))
    scaled = weight / sigma[None, :, None, None]
    bias = np.zeros(len(weight)) if layer.bias is None else _array(layer.bias)
    bias = bias - (scaled * mu[None, :, None, None]).sum((1, 2, 3))
    return vit.Dense(scaled.reshape(len(weight), -1) / 255, bias)


def _dense(where: str, layer: object) -> vit.Dense:
    if type(layer) is not nn.Linear:
        raise UnsupportedLayerError(where, "be a plain linear layer", type(layer).__name__)
    weight = _array(layer.weight)
    bias = np.zeros(len(weight)) if layer.bias is None else _array(layer.bias)
    return vit.Dense(weight, bias)


def _norm(where: str, layer: object) -> vit.LayerNorm:
    if not isinstance(layer, nn.LayerNorm) or len(layer.normalized_shape) != 1:
        raise UnsupportedLayerError(where, "be a LayerNorm over tokens", type(layer).__name__)
    width = layer.normalized_shape[0]
    weight = np.ones(width) if layer.weight is None else _array(layer.weight)
    bias = np.zeros(width) if layer.bias is None else _array(layer.bias)
    return vit.LayerNorm(weight, bias, float(layer.eps))


def _scale(where: str, layer: object, dim: int) -> Floats:
    """Factor of a residual's channels: a layer scale, or ones."""
    if isinstance(layer, nn.Identity):
        return np.ones(dim)
    gamma = getattr(layer, "gamma", None)
    if not isinstance(gamma, torch.Tensor) or gamma.shape != (dim,):
        raise UnsupportedLayerError(where, "be a layer scale or nothing", type(layer).__name__)
    return _array(gamma)


def _block(where: str, block: Any, tasks: Sequence[str]) -> vit.Block:
    needed = ("norm1", "attn", "ls1", "norm2", "mlp", "ls2")
    lacking = [name for name in needed if not hasattr(block, name)]
    if lacking:
        rule = "be a pre-norm block"
        raise UnsupportedLayerError(where, rule, f"{type(block).__name__} without {lacking[0]}")
    attn = block.attn
    for name in ("qkv", "proj", "num_heads"):
        if not hasattr(attn, name):
            found = f"{type(attn).__name__} without {name}"
            raise UnsupportedLayerError(f"{where}.attn", "be plain self-attention", found)
    for name in ("q_norm", "k_norm", "norm", "gate", "rope"):
        _identity(f"{where}.attn.{name}", getattr(attn, name, None))
    qkv = _dense(f"{where}.attn.qkv", attn.qkv)
    dim = qkv.weight.shape[1]
    if len(qkv.weight) != 3 * dim:
        rule = "be as wide as the tokens"
        raise UnsupportedLayerError(f"{where}.attn.qkv", rule, f"{len(qkv.weight) // 3} for {dim}")
    parts = zip(np.split(qkv.weight, 3), np.split(qkv.bias, 3), strict=True)
    query, key, value = (vit.Dense(w, b) for w, b in parts)
    project = _dense(f"{where}.attn.proj", attn.proj)
    scale = _scale(f"{where}.ls1", block.ls1, dim)
    return vit.Block(
        norm1=_norm(f"{where}.norm1", block.norm1),
        heads=int(attn.num_heads),
        query=query,
        key=key,
        value=value,
        project=vit.Dense(project.weight * scale[:, None], project.bias * scale),
        norm2=_norm(f"{where}.norm2", block.norm2),
        feed=_feed(f"{where}.mlp", block, tasks, _scale(f"{where}.ls2", block.ls2, dim)),
    )


def _feed(where: str, block: Any, tasks: Sequence[str], scale: Floats) -> vit.MLP | vit.Mixture:
    mlp = block.mlp
    if isinstance(mlp, MoEFFN):
        router = mlp.router
        w1, b1, w2, b2 = (_array(stack) for stack in mlp.bank.stacks())
        return vit.Mixture(
            gates={task: _gate(f"{where}.router", router, task) for task in tasks},
            top_k=router.top_k,
            renormalised=getattr(router, "norm", "none") == "topk",
            ahead=bool(getattr(block, "gate_input_ahead", False)),
            first=vit.Dense(w1.swapaxes(1, 2), b1),
            second=vit.Dense(w2.swapaxes(1, 2) * scale[:, None], b2 * scale),
        )
    for name in ("fc1", "act", "fc2"):
        if not hasattr(mlp, name):
            found = f"{type(mlp).__name__} without {name}"
            raise UnsupportedLayerError(where, "be two layers with GELU between", found)
    _identity(f"{where}.norm", getattr(mlp, "norm", None))
    act = mlp.act
    if "GELU" not in type(act).__name__ or getattr(act, "approximate", "none") != "none":
        raise UnsupportedLayerError(f"{where}.act", "be the exact GELU", act)
    second = _dense(f"{where}.fc2", mlp.fc2)
    return vit.MLP(
        _dense(f"{where}.fc1", mlp.fc1),
        vit.Dense(second.weight * scale[:, None], second.bias * scale),
    )


OUTSIDE = -64.0
"""Logit of an expert outside of a task's window: its probability is nothing in any format."""


def _gate(where: str, router: Router, task: str) -> vit.Dense:
    """A task's router as one linear layer, experts outside of its window shut by their bias."""
    layer = _logits(where, router, task)
    windows = getattr(router, "task_windows", None) or {}
    if task not in windows:
        return layer
    inside = np.zeros(router.num_experts, dtype=np.bool_)
    inside[list(windows[task])] = True
    weight = np.where(inside[:, None], layer.weight, 0.0)
    return vit.Dense(weight, np.where(inside, layer.bias, OUTSIDE))


def _logits(where: str, router: Router, task: str) -> vit.Dense:
    if isinstance(router, PerTaskRouter):
        return _dense(where, router.gate(task))
    if isinstance(router, SingleRouter):
        return _dense(where, router.linear)
    if isinstance(router, ConditionedRouter):
        layer = _dense(where, router.linear)
        own = router.embed()[router.index(task)] @ router.task_linear.weight.float().t()
        return vit.Dense(layer.weight, _array(own))
    rule = "route tokens by a linear layer"
    raise UnsupportedLayerError(where, rule, type(router).__name__)
