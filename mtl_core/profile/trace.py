"""One forward pass seen from below: arithmetic, memory, parameters and modules."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from mtl_core.profile.formulas import formulas


class Trace:
    """What a call computes and touches. Enter it around a call; afterwards read the fields.

    Every operator is seen, hence also parameters that are used without their module being called.
    Kernels' own workspaces are not part of `peak`, and neither are parameters, buffers and inputs.

    Args:
        module: whose call it is; its arithmetic is told apart by submodule.
        inputs: tensors that exist before the call.

    Attributes:
        macs: multiply-accumulates by name of the innermost module that was being called, "" for
            `module` itself and whatever is called around it.
        touched: names of parameters that took part.
        ran: names of modules that were called, in the order of their first call.
        peak: most bytes of new tensors alive at a time.
    """

    def __init__(self, module: nn.Module, inputs: Iterable[Tensor] = ()) -> None:
        self.module = module
        self.macs: Counter[str] = Counter()
        self.touched: set[str] = set()
        self.ran: dict[str, None] = {}
        self.live = self.peak = 0
        self._names: dict[int, str] = {}
        self._known: dict[int, Any] = {}
        for name, parameter in module.named_parameters():
            self._names[_key(parameter)] = name
        for tensor in (*module.parameters(), *module.buffers(), *inputs):
            self._known[_key(tensor)] = tensor.untyped_storage()
        self._calls: list[str] = []
        self._open = ExitStack()

    def __enter__(self) -> "Trace":
        """Start to look."""
        for name, module in self.module.named_modules():
            before = module.register_forward_pre_hook(self._entering(name))
            after = module.register_forward_hook(self._leaving(), always_call=True)
            self._open.callback(before.remove)
            self._open.callback(after.remove)
        # The fused layers of torch compute what no counter sees.
        fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        self._open.callback(torch.backends.mha.set_fastpath_enabled, fused)
        counter = FlopCounterMode(display=False, custom_mapping=formulas())
        self._open.enter_context(counter)
        self._open.enter_context(_Watch(self, counter))
        return self

    def __exit__(self, *error: object) -> None:
        """Stop looking."""
        self._open.close()
        self._known.clear()

    def _entering(self, name: str) -> Callable[..., None]:
        def enter(module: nn.Module, args: Any) -> None:
            self._calls.append(name)
            self.ran[name] = None

        return enter

    def _leaving(self) -> Callable[..., None]:
        def leave(module: nn.Module, args: Any, out: Any) -> None:
            self._calls.pop()

        return leave

    def reads(self, tensors: Iterable[Tensor]) -> None:
        """Note the parameters among the arguments of an operator."""
        for tensor in tensors:
            name = self._names.get(_key(tensor))
            if name is not None:
                self.touched.add(name)

    def writes(self, tensors: Iterable[Tensor]) -> None:
        """Note the memory of an operator's results."""
        for tensor in tensors:
            storage, key = tensor.untyped_storage(), _key(tensor)
            if key in self._known:
                continue
            size = storage.nbytes()
            self._known[key] = weakref.ref(storage, self._freed(key, size))
            self.live += size
        self.peak = max(self.peak, self.live)

    def _freed(self, key: int, size: int) -> Callable[[Any], None]:
        def freed(_: Any) -> None:
            if self._known.pop(key, None) is not None:
                self.live -= size

        return freed

    def counted(self, macs: int) -> None:
        """Note arithmetic of whatever is being called."""
        if macs:
            self.macs[self._calls[-1] if self._calls else ""] += macs


class _Watch(TorchDispatchMode):
    """Hands every operator to a trace, and below it to the counter of torch."""

    def __init__(self, trace: Trace, counter: FlopCounterMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.trace, self.counter = trace, counter

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        before = self.counter.get_total_flops()
        out = func(*args, **given)
        self.trace.counted((self.counter.get_total_flops() - before) // 2)
        self.trace.reads(_tensors((args, given)))
        self.trace.writes(_tensors(out))
        return out


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _key(tensor: Tensor) -> int:
    """Which storage it lies in, views included."""
    return int(tensor.untyped_storage()._cdata)
