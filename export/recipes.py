"""Int8 in graphs: which products are rounded, and what stands in their place.

Weights are int8 with one scale an output channel, symmetric; activations uint8 with one scale and
zero point a tensor (U8S8, what VNNI and AMX multiply). Only products with constant weights are
touched, so never attention products, Softmax, LayerNormalization or Gelu, and never what decides
about experts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from mtl_core.errors import MTLError

Array: TypeAlias = NDArray[Any]
Range: TypeAlias = tuple[float, float]
"""Smallest and largest value of a tensor."""

_BETWEEN = {"Softmax", "Add", "Slice", "Cast", "Identity", "Reshape"}
"""What may stand between the product of a router and its TopK."""


class QuantizationError(MTLError, ValueError):
    """A variant of less precision cannot be made, or predicts too much worse."""


@dataclass(frozen=True)
class Product:
    """A product with constant weights.

    Args:
        node: its name.
        kind: ``MatMul``, ``Gemm`` or ``Conv``.
        source: the tensor that is multiplied.
        result: the tensor that is made.
        weight: name of the constant.
        channel: axis of the output channels in the constant.
    """

    node: str
    kind: str
    source: str
    result: str
    weight: str
    channel: int


def products(model: onnx.ModelProto, *, convolutions: bool) -> list[Product]:
    """Products that can be rounded, in the order of the graph; routers are left out.

    Args:
        model: with its weights.
        convolutions: whether Conv counts.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    routers = router_nodes(model)
    found = []
    for node in model.graph.node:
        if node.name in routers or len(node.input) < 2 or node.input[1] not in constants:
            continue
        weight = constants[node.input[1]]
        if weight.data_type != onnx.TensorProto.FLOAT:
            continue
        plain = node.op_type == "MatMul" and len(weight.dims) == 2
        gemm = node.op_type == "Gemm" and _plain_gemm(node)
        if plain or gemm or (convolutions and node.op_type == "Conv"):
            rows = node.op_type == "Conv" or (gemm and _attribute(node, "transB", 0) == 1)
            axis = 0 if rows else 1
            name, kind = node.name, node.op_type
            found.append(Product(name, kind, node.input[0], node.output[0], node.input[1], axis))
    return found


def router_nodes(model: onnx.ModelProto) -> set[str]:
    """Names of TopK nodes and of what decides in them: products, softmax, and what lies between."""
    makers = {name: node for node in model.graph.node for name in node.output}
    waiting = [node for node in model.graph.node if node.op_type == "TopK"]
    found: set[str] = set()
    while waiting:
        node = waiting.pop()
        if node.name in found:
            continue
        found.add(node.name)
        if node.op_type in ("TopK", *_BETWEEN):
            above = [makers[name] for name in node.input[:2] if name in makers]
            waiting += [n for n in above if n.op_type in ("MatMul", "Gemm", *_BETWEEN)]
    return found


def dynamic_int8(model: onnx.ModelProto, chosen: Sequence[Product]) -> onnx.ModelProto:
    """A copy in which products are of integers, with ranges found anew for every batch.

    Args:
        model: opset 11 or above, with its weights.
        chosen: MatMul and Gemm.
    """
    edit = _Edit(model)
    for item in chosen:
        node, weight = edit.node(item.node), edit.matrix(item)
        quantised, scale = edit.rounded(item.weight, weight, 1)
        number, unit, zero = edit.dynamic(item.source)
        whole = edit.add("MatMulInteger", [number, quantised, zero])
        factor = edit.add("Mul", [unit, scale])
        plain = edit.add("Cast", [whole], to=onnx.TensorProto.FLOAT)
        edit.finish(node, edit.add("Mul", [plain, factor]))
    return edit.done()


def static_int8(
    model: onnx.ModelProto, chosen: Sequence[Product], ranges: Mapping[str, Range]
) -> onnx.ModelProto:
    """A copy in which products lie between pairs of QuantizeLinear and DequantizeLinear.

    Args:
        model: opset 13 or above, with its weights.
        chosen: MatMul, Gemm and Conv; those whose tensors have no range stay as they are.
        ranges: by tensor: inputs of all, results of convolutions.
    """
    edit = _Edit(model)
    for item in chosen:
        conv = item.kind == "Conv"
        if item.source not in ranges or (conv and item.result not in ranges):
            continue
        node = edit.node(item.node)
        source = edit.rounded_activation(item.source, ranges[item.source])
        axis = 0 if conv else 1
        weight = edit.values(item.weight) if conv else edit.matrix(item)
        quantised, scale = edit.rounded(item.weight, weight, axis)
        restored = edit.restored(quantised, scale, axis)
        if conv:
            inputs = [source, restored]
            if len(node.input) > 2:
                inputs.append(edit.rounded_bias(node.input[2], ranges[item.source], scale))
            made = edit.copied(node, inputs)
            edit.replace(node, edit.rounded_activation(made, ranges[item.result]))
            edit.settle(item.result)
        else:
            product = edit.add("MatMul", [source, restored])
            edit.round_bias_behind(item, ranges[item.source], scale)
            bias = node.input[2] if len(node.input) > 2 else ""
            edit.finish(node, product, edit.rounded_bias(bias, ranges[item.source], scale))
    return edit.done()


def lend_ranges(
    model: onnx.ModelProto, chosen: Sequence[Product], ranges: Mapping[str, Range]
) -> dict[str, Range]:
    """Ranges for products that saw nothing: those of the nearest one with weights of that shape.

    These are experts that no token of the calibration samples went to; the nearest is another
    expert of the layer.

    Args:
        model: with its weights.
        chosen: products in the order of the graph.
        ranges: those that were measured.
    """
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    found = dict(ranges)
    for i, item in enumerate(chosen):
        like = [
            (abs(i - k), other.source)
            for k, other in enumerate(chosen)
            if other.source in ranges and shapes[other.weight] == shapes[item.weight]
        ]
        if item.source not in ranges and like:
            found[item.source] = ranges[min(like)[1]]
    return found


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in float16 with float32 inputs and outputs; routers stay in float32.

    Args:
        model: with its weights.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    kept = router_nodes(copied)
    made: onnx.ModelProto = convert_float_to_float16(
        copied, keep_io_types=True, node_block_list=sorted(kept)
    )
    _sort(made)
    return made


def _sort(model: onnx.ModelProto) -> None:
    """Put every node behind those whose results it takes."""
    waiting = list(model.graph.node)
    made = {name for node in waiting for name in node.output}
    ordered = onnx.GraphProto()
    while waiting:
        ready = [n for n in waiting if not made.intersection(n.input)]
        if not ready:
            raise QuantizationError("a graph in fp16 must have no cycle.")
        ordered.node.extend(ready)
        made -= {name for node in ready for name in node.output}
        names = {node.name for node in ready}
        waiting = [node for node in waiting if node.name not in names]
    del model.graph.node[:]
    model.graph.node.extend(ordered.node)


class _Edit:
    """A graph being rewritten; constants and roundings are made once."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self._old = {node.name: node for node in self.model.graph.node}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in self.model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._before: dict[str, list[NodeProto]] = {}
        self._pending: list[NodeProto] = []
        self._constants = {t.name: t for t in self.model.graph.initializer}
        self._new: dict[str, onnx.TensorProto] = {}
        self._made: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._count = 0

    def node(self, name: str) -> NodeProto:
        self._pending = []
        found: NodeProto = self._old[name]
        return found

    def values(self, name: str) -> Array:
        return numpy_helper.to_array(self._constants[name])

    def matrix(self, item: Product) -> Array:
        """Weights of a product as (inputs, outputs)."""
        values = self.values(item.weight)
        return values if item.channel == 1 else values.T

    def fresh(self, kind: str) -> str:
        self._count += 1
        return f"q{self._count}_{kind}"

    def constant(self, kind: str, values: Array) -> str:
        name = self.fresh(kind)
        self._new[name] = numpy_helper.from_array(values, name)
        self.model.graph.initializer.append(self._new[name])
        return name

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = self.fresh(kind)
        self._pending.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def copied(self, node: NodeProto, inputs: Sequence[str]) -> str:
        made = NodeProto()
        made.CopyFrom(node)
        name = self.fresh(node.op_type)
        made.name = name
        made.input[:] = inputs
        made.output[:] = [name]
        self._pending.append(made)
        return name

    def rounded(self, name: str, values: Array, axis: int) -> tuple[str, str]:
        """Int8 values with a scale a slice along `axis`, as constants."""
        key = ("weight", name, str(axis))
        if key not in self._made:
            others = tuple(i for i in range(values.ndim) if i != axis)
            largest = np.abs(values).max(axis=others)
            scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
            shape = [-1 if i == axis else 1 for i in range(values.ndim)]
            whole = np.rint(values / scale.reshape(shape)).clip(-127, 127).astype(np.int8)
            whole = np.ascontiguousarray(whole)
            self._made[key] = (self.constant("weight", whole), self.constant("scale", scale))
        first, second = self._made[key]
        return first, second

    def dynamic(self, tensor: str) -> tuple[str, str, str]:
        """Uint8 values, scale and zero point of a tensor."""
        key = ("dynamic", tensor)
        if key not in self._made:
            names = tuple(self.fresh(part) for part in ("whole", "unit", "zero"))
            self._pending.append(
                helper.make_node("DynamicQuantizeLinear", [tensor], list(names), names[0])
            )
            self._made[key] = names
        first, second, third = self._made[key]
        return first, second, third

    def rounded_activation(self, tensor: str, between: Range) -> str:
        """A tensor through uint8 and back."""
        key = ("activation", tensor)
        if key not in self._made:
            scale = _unit(between)
            zero = np.uint8(np.clip(np.rint(-min(between[0], 0.0) / scale), 0, 255))
            names = (self.constant("scale", np.array(scale)), self.constant("zero", np.array(zero)))
            whole = self.add("QuantizeLinear", [tensor, *names])
            self._made[key] = (self.add("DequantizeLinear", [whole, *names]),)
        return self._made[key][0]

    def rounded_bias(self, name: str, between: Range, scales: str) -> str:
        """The bias of a convolution in the units of its products, as runtimes want it."""
        if name not in self._constants:
            return name
        units = _unit(between) * numpy_helper.to_array(self._new[scales])
        limit = 2**31 - 1
        whole = np.rint(self.values(name) / units).clip(-limit, limit).astype(np.int32)
        inputs = (self.constant("bias", whole), self.constant("scale", units.astype(np.float32)))
        return self.add("DequantizeLinear", inputs, axis=0)

    def round_bias_behind(self, item: Product, between: Range, scales: str) -> None:
        """Round what is added to a product of matrices.

        ONNX Runtime makes one Gemm of both, which it computes in integers only with such a bias.
        """
        behind = self._readers.get(item.result, [])
        if item.kind == "MatMul" and [n.op_type for n in behind] == ["Add"]:
            for i, name in enumerate(behind[0].input):
                if name in self._constants and len(self._constants[name].dims) == 1:
                    behind[0].input[i] = self.rounded_bias(name, between, scales)

    def settle(self, tensor: str) -> None:
        """Note that a tensor has been through uint8 already."""
        self._made["activation", tensor] = (tensor,)

    def restored(self, quantised: str, scale: str, axis: int) -> str:
        """The constant in float again."""
        key = ("restored", quantised)
        if key not in self._made:
            zeros = self.constant("zero", np.zeros(self._new[scale].dims[0], np.int8))
            made = self.add("DequantizeLinear", [quantised, scale, zeros], axis=axis)
            self._made[key] = (made,)
        return self._made[key][0]

    def finish(self, node: NodeProto, product: str, bias: str | None = None) -> None:
        """Give the product the node's name, with the bias of a Gemm, or another in its place."""
        if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]:
            product = self.add("Add", [product, bias or node.input[2]])
        self.replace(node, product)

    def replace(self, node: NodeProto, result: str) -> None:
        """What was made since `node` takes the node's place."""
        for made in self._pending:
            made.output[:] = [node.output[0] if n == result else n for n in made.output]
            made.input[:] = [node.output[0] if n == result else n for n in made.input]
        self._before[node.name] = self._pending
        self._pending = []

    def done(self) -> onnx.ModelProto:
        nodes: list[NodeProto] = []
        for node in self.model.graph.node:
            nodes += self._before.get(node.name, [node])
        made = onnx.GraphProto()
        made.node.extend(nodes)
        del self.model.graph.node[:]
        self.model.graph.node.extend(made.node)
        return self.model


def _plain_gemm(node: NodeProto) -> bool:
    """Whether a Gemm is a product and a bias, nothing more."""
    given = (_attribute(node, name, 1) for name in ("alpha", "beta"))
    return _attribute(node, "transA", 0) == 0 and all(value == 1 for value in given)


def _attribute(node: NodeProto, name: str, default: float) -> float:
    found = [helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return float(found[0]) if found else default


def _unit(between: Range) -> np.float32:
    """Scale of a tensor in uint8; zero is always exact."""
    low, high = min(between[0], 0.0), max(between[1], 0.0)
    return np.float32((high - low) / 255 or 1.0)
