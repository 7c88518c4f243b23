"""Small perceptrons on columns through hls4ml: outputs by name, everything else refused.

hls4ml is a good back end for perceptrons and was seen to be wrong, without a word, for what
`refuse` names (release 1.3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mtl_core.errors import ArgumentError, MTLError, UnknownNameError
from mtl_core.moe import MoEFFN

Array = NDArray[np.float32]

OUTPUT = "head_"
"""What layers that give an output are called, before the task."""


class BridgeError(MTLError, ValueError):
    """hls4ml would compute something else, or nothing, for this network."""


class Perceptrons(nn.Module):
    """A shared perceptron and one a task, of plain layers: what hls4ml is given.

    Shapes: (B, inputs) → a tuple of (B, C) in the order of `names`.

    Args:
        shared: layers as (weight (out, in), bias (out,)); ReLU behind each.
        heads: likewise by task; no ReLU behind the last.
    """

    def __init__(
        self,
        shared: Sequence[tuple[Tensor, Tensor]],
        heads: Mapping[str, Sequence[tuple[Tensor, Tensor]]],
    ) -> None:
        super().__init__()
        if not heads or not all(heads.values()):
            raise ArgumentError("heads", "have a layer each, one at least", list(heads))
        self.names = tuple(heads)
        self.trunk: list[str] = []
        self.branches: dict[str, list[str]] = {}
        for i, layer in enumerate(shared):
            self.trunk += self._add(f"shared_{i}", layer, relu=True)
        for name, layers in heads.items():
            steps: list[str] = []
            for i, layer in enumerate(layers):
                last = i == len(layers) - 1
                steps += self._add(f"{OUTPUT}{name}" if last else f"{name}_{i}", layer, not last)
            self.branches[name] = steps

    def _add(self, name: str, layer: tuple[Tensor, Tensor], relu: bool) -> list[str]:
        weight, bias = layer
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
        self.add_module(name, linear)
        if not relu:
            return [name]
        self.add_module(f"{name}_relu", nn.ReLU())
        return [name, f"{name}_relu"]

    def _linear(self, name: str) -> nn.Linear:
        layer = self.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        return layer

    @property
    def inputs(self) -> int:
        """Width of the input."""
        first = (self.trunk or next(iter(self.branches.values())))[0]
        return int(self._linear(first).in_features)

    @property
    def widths(self) -> dict[str, int]:
        """C by task."""
        return {n: int(self._linear(f"{OUTPUT}{n}").out_features) for n in self.names}

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """All outputs."""
        for step in self.trunk:
            x = getattr(self, step)(x)
        found = []
        for name in self.names:
            y = x
            for step in self.branches[name]:
                y = getattr(self, step)(y)
            found.append(y)
        return tuple(found)


def refuse(module: nn.Module, example: Tensor | None = None) -> None:
    """Raise for layers that hls4ml gets wrong or does not know.

    Args:
        module: any.
        example: an input; with it, layers that see more than (B, F) are found too.

    Raises:
        BridgeError: it names the layer and says why.
    """
    for name, layer in module.named_modules():
        kind = type(layer).__name__
        if isinstance(layer, nn.LayerNorm):
            _stop(
                name,
                kind,
                "its variance table covers (0, 1] only: standard deviation 3 is off by 6 to 9",
            )
        if isinstance(layer, nn.MultiheadAttention) or hasattr(layer, "qkv"):
            _stop(name, kind, "products of two activations are not converted, or converted wrongly")
        if isinstance(layer, MoEFFN) or (hasattr(layer, "router") and hasattr(layer, "bank")):
            _stop(
                name,
                kind,
                "choosing experts (topk, gather) is not converted; experts have "
                "kernels of their own in export.fpga",
            )
        if isinstance(layer, nn.GELU):
            _stop(name, kind, "it knows no GELU")
        if isinstance(layer, nn.Softmax) and example is None:
            _stop(
                name,
                kind,
                "on more than one axis it normalises over the whole tensor; pass an "
                "example input to show that it sees (B, F)",
            )
    if example is None:
        return
    wrong: list[tuple[str, str, str]] = []

    def watch(name: str) -> Any:
        def look(layer: nn.Module, inputs: tuple[Any, ...], _: Any) -> None:
            if isinstance(inputs[0], Tensor) and inputs[0].ndim > 2:
                if isinstance(layer, nn.Linear):
                    why = "weights of a token-wise Linear are reshaped instead of transposed"
                else:
                    why = "a 2-D softmax is normalised over the whole tensor (rows sum to 1/8)"
                wrong.append((name, type(layer).__name__, why))

        return look

    kinds = (nn.Linear, nn.Softmax)
    hooks = [
        layer.register_forward_hook(watch(name))
        for name, layer in module.named_modules()
        if isinstance(layer, kinds)
    ]
    try:
        with torch.no_grad():
            module(example)
    finally:
        for hook in hooks:
            hook.remove()
    if wrong:
        _stop(*wrong[0])


def _stop(name: str, kind: str, why: str) -> None:
    raise BridgeError(
        f"hls4ml must not be given {name or 'a module'} ({kind}): {why}. Use the ONNX export, or "
        "the kernels of export.fpga."
    )


def read_perceptrons(network: nn.Module, tasks: Sequence[str] | None = None) -> Perceptrons:
    """The perceptrons of a network with ``shared`` and ``towers``, batch norms folded.

    What turns columns into a flat vector (``front``) stays on the CPU.

    Args:
        network: in evaluation mode.
        tasks: names; None for all.

    Raises:
        BridgeError: the network is laid out otherwise, or has layers that cannot be converted.
    """
    refuse(network.get_submodule("shared") if _has(network, "shared") else network)
    if not _has(network, "shared") or not _has(network, "towers"):
        raise BridgeError(
            f"hls4ml is given perceptrons that stand as `shared` and `towers` by task, found a "
            f"{type(network).__name__}: export it to ONNX."
        )
    towers = dict(network.get_submodule("towers").named_children())
    for name in tasks or ():
        if name not in towers:
            raise UnknownNameError("tasks", name, towers)
    chosen = [name for name in towers if tasks is None or name in tasks]
    shared = _folded(network.get_submodule("shared"), ends_with_relu=True)
    return Perceptrons(shared, {name: _folded(towers[name], False) for name in chosen}).eval()


def _has(network: nn.Module, name: str) -> bool:
    return isinstance(getattr(network, name, None), nn.Module)


def _folded(module: nn.Module, ends_with_relu: bool) -> list[tuple[Tensor, Tensor]]:
    """Linear layers with the batch norms behind them inside."""
    refuse(module)
    steps = [m for m in module.modules() if not list(m.children())]
    layers: list[tuple[Tensor, Tensor]] = []
    active = True
    for step in steps:
        if isinstance(step, nn.Linear):
            if not active:
                raise BridgeError("two Linear layers must have a ReLU between them, found none.")
            bias = step.weight.new_zeros(len(step.weight)) if step.bias is None else step.bias
            layers.append((step.weight.detach(), bias.detach()))
            active = False
        elif isinstance(step, nn.BatchNorm1d) and layers and not active:
            layers[-1] = _with_norm(*layers[-1], step)
        elif isinstance(step, nn.ReLU):
            active = True
        elif not isinstance(step, nn.Dropout | nn.Identity):
            kind = type(step).__name__
            raise BridgeError(f"perceptrons are Linear, BatchNorm, ReLU and Dropout, found {kind}.")
    if not layers or active != ends_with_relu:
        end = "a ReLU" if ends_with_relu else "a Linear layer"
        raise BridgeError(f"a perceptron must end with {end}, found {steps[-1:]}.")
    return layers


def _with_norm(weight: Tensor, bias: Tensor, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """A Linear layer that includes a batch norm of fixed statistics."""
    if norm.running_mean is None or norm.running_var is None:
        raise BridgeError("a batch norm must keep running statistics to be folded, found none.")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    folded = (weight.double() * scale[:, None], bias.double() * scale + shift)
    return folded[0].to(weight.dtype), folded[1].to(bias.dtype)


@dataclass
class Converted:
    """A compiled hls4ml model whose outputs have names.

    Args:
        model: of hls4ml.
        order: task of every output, as hls4ml returns them.
        widths: C by task.
    """

    model: Any
    order: tuple[str, ...]
    widths: dict[str, int]

    def predict(self, x: Array) -> dict[str, Array]:
        """Outputs (B, C) by task of inputs (B, F), by the C simulation."""
        rows = np.ascontiguousarray(x, dtype=np.float32)
        found = self.model.predict(rows)
        arrays = [found] if isinstance(found, np.ndarray) else list(found)
        return named(self.order, arrays, self.widths, len(rows))


def named(
    order: Sequence[str], arrays: Sequence[NDArray[Any]], widths: Mapping[str, int], rows: int
) -> dict[str, Array]:
    """Outputs by task, each checked for its width.

    Args:
        order: task of each array.
        arrays: (rows, C) or flat.
        widths: C by task.
        rows: B.

    Raises:
        BridgeError: an output has another width than the task of its name.
    """
    found: dict[str, Array] = {}
    for name, array in zip(order, arrays, strict=True):
        if array.size != rows * widths[name]:
            raise BridgeError(
                f"output {name} must have {widths[name]} columns, found {array.size / rows:g}: "
                "hls4ml returned outputs in another order."
            )
        found[name] = np.asarray(array, dtype=np.float32).reshape(rows, widths[name])
    return {name: found[name] for name in widths}


def output_order(layers: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Task of every output layer, by the name that the layer carries.

    hls4ml gave outputs of some graphs in reverse, so places say nothing.

    Args:
        layers: names of hls4ml's output tensors.
        names: of the tasks.

    Raises:
        BridgeError: an output belongs to no task, or to several.

    >>> output_order(["head_b", "head_a_linear"], ["a", "b"])
    ('b', 'a')
    """
    found: list[str] = []
    for layer in layers:
        fits = [n for n in names if layer == OUTPUT + n or layer.startswith(f"{OUTPUT}{n}_")]
        fits = [n for n in fits if len(n) == max(map(len, fits))]
        if len(fits) != 1 or fits[0] in found:
            raise BridgeError(f"output {layer} must belong to one of {', '.join(names)}.")
        found.append(fits[0])
    if len(found) != len(names):
        raise BridgeError(f"outputs must be {', '.join(names)}, found {', '.join(layers)}.")
    return tuple(found)


def convert(
    module: Perceptrons,
    folder: Path,
    *,
    precision: str = "fixed<24,8>",
    backend: str = "Vitis",
    compiled: bool = True,
) -> Converted:
    """Convert perceptrons with hls4ml, and compile its C simulation (about 25 seconds).

    Args:
        module: of `read_perceptrons`.
        folder: for hls4ml's project.
        precision: of all tensors; at least as wide as the inputs' range.
        backend: of hls4ml.
        compiled: False only converts.

    Raises:
        BridgeError: hls4ml is not installed, or outputs cannot be told apart.
    """
    try:
        import hls4ml
    except ImportError as error:
        raise BridgeError("the bridge needs hls4ml: install the extra fpga.") from error
    module = module.eval()
    refuse(module, torch.zeros(2, module.inputs))
    config = hls4ml.utils.config_from_pytorch_model(
        module, (module.inputs,), granularity="name", backend=backend, default_precision=precision
    )
    model = hls4ml.converters.convert_from_pytorch_model(
        module,
        hls_config=config,
        output_dir=str(folder),
        backend=backend,
        io_type="io_parallel",
    )
    order = output_order([str(v) for v in model.outputs], module.names)
    if compiled:
        model.compile()
    return Converted(model, order, module.widths)
