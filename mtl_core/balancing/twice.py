"""Decoders that are differentiated twice: which module cannot be, and attention that can."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.hooks import RemovableHandle

from mtl_core.nn.features import Features


class MathAttention:
    """Makes attention inside of modules use the kernel that can be differentiated twice.

    Fused kernels of `torch.nn.functional.scaled_dot_product_attention` cannot. It holds in training
    mode, until `close`.

    Args:
        modules: every one whose forward pass is meant.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._open: list[Any] = []
        self._handles: list[RemovableHandle] = []
        for module in modules:
            self._handles.append(module.register_forward_pre_hook(self._enter))
            self._handles.append(module.register_forward_hook(self._leave, always_call=True))

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        context = sdpa_kernel(SDPBackend.MATH) if module.training else None
        if context is not None:
            context.__enter__()
        self._open.append(context)

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        context = self._open.pop()
        if context is not None:
            context.__exit__(None, None, None)

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def find_once_differentiable(
    modules: Sequence[tuple[str, nn.Module]], evaluate: Callable[[], object]
) -> str | None:
    """Name of the innermost module whose gradient cannot be differentiated, None if all can.

    Args:
        modules: dotted names and modules to be looked at, with everything inside of them.
        evaluate: runs a forward pass through them.
    """
    names = {m: n for outer, top in modules for n, m in top.named_modules(prefix=outer)}
    calls: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = []

    def record(
        module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], output: Any
    ) -> None:
        calls.append((module, inputs, options))

    handles = [m.register_forward_hook(record, with_kwargs=True) for m in names]
    try:
        evaluate()
    finally:
        for handle in handles:
            handle.remove()
    for module, inputs, options in calls:
        if not _differentiable_twice(module, inputs, options):
            return f"{names[module]} ({type(module).__name__})"
    return None


def _differentiable_twice(
    module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]
) -> bool:
    inputs, options = tree_map(_fresh, (inputs, options))
    # Copies of the parameters: a whole backward pass is walked, not only the way to some tensors.
    copies = {name: _fresh(p) for name, p in module.named_parameters()}
    leaves, _ = tree_flatten((inputs, options))
    wanted = [x for v in (*leaves, *copies.values()) for x in _tensors(v) if x.requires_grad]
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        found, _ = tree_flatten(torch.func.functional_call(module, copies, inputs, options))
        outputs = [x for x in found if isinstance(x, Tensor) and x.requires_grad]
        if not outputs or not wanted:
            return True
        total = torch.stack([x.float().square().sum() for x in outputs]).sum()
        try:
            first = torch.autograd.grad(total, wanted, create_graph=True, allow_unused=True)
            curved = [g.float().square().sum() for g in first if g is not None and g.requires_grad]
            if curved:
                torch.stack(curved).sum().backward(retain_graph=True)
        except RuntimeError:
            return False
    return True


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Features):
        return value.tensors()
    return [value] if isinstance(value, Tensor) else []


def _fresh(value: Any) -> Any:
    if isinstance(value, Features):
        return value.cut()
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().requires_grad_()
    return value
