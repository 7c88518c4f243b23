"""Which ONNX operators a profile allows, and where one that it does not allow came from."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal, get_args

import onnx

from mtl_core.errors import MTLError, UnknownNameError

Profile = Literal["cpu", "portable", "fpga"]
"""What a graph is for: ONNX Runtime on CPUs, other static runtimes, or the fixed-point path."""

_STATIC = """
    Abs Add And AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv
    ConvTranspose CumSum DepthToSpace Div Equal Erf Exp Expand Flatten Floor Gather Gelu Gemm
    GlobalAveragePool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity
    InstanceNormalization IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul
    Max MaxPool Min Mod Mul Neg Not OneHot Or Pad Pow Reciprocal ReduceL2 ReduceMax ReduceMean
    ReduceMin ReduceSum ReduceSumSquare Relu Reshape Resize Shape Sigmoid Sin Cos Slice Softmax
    Softplus SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh Tile TopK Transpose Unsqueeze Where
"""

_DYNAMIC = """
    ArgMax Attention Einsum GatherElements GatherND NonZero RMSNormalization Range
    RotaryEmbedding ScatterElements ScatterND Sign Size Trilu Xor
"""

ALLOWED: dict[Profile, frozenset[str]] = {
    "cpu": frozenset(f"{_STATIC} {_DYNAMIC}".split()),
    "portable": frozenset(f"{_STATIC} GatherElements ScatterElements".split()),
    "fpga": frozenset(_STATIC.split()),
}
"""Operators of the default domain by profile; those of other domains (``com.microsoft``) never.

``Shape`` is among the portable ones, because a free batch size needs it in reshapes.
"""


class OperatorError(MTLError, ValueError):
    """A graph needs an operator that its profile, or ONNX, does not have.

    Args:
        operator: its name.
        profile: that was asked for, empty where ONNX itself has no such operator.
        modules: where it comes from.
    """

    def __init__(self, operator: str, profile: str, modules: Iterable[str]) -> None:
        places = sorted(set(modules))
        shown = ", ".join(places[:4]) + (f" and {len(places) - 4} more" if len(places) > 4 else "")
        who = f"the profile {profile!r}" if profile else "ONNX"
        allows = "allow" if profile else "have"
        hint = (
            " The profile 'cpu' allows it."
            if profile and operator in ALLOWED["cpu"]
            else " Write that module with other operations."
        )
        super().__init__(
            f"every operator must be one that {who} {allows}s: {operator} is not. "
            f"It comes from {shown or 'an unknown place'}.{hint}".replace("haves", "has")
        )
        self.operator, self.modules = operator, places


def origin(node: onnx.NodeProto) -> str:
    """Path and class of the module that a node was made for, as the exporter notes them.

    Args:
        node: before its metadata is removed.
    """
    notes = {entry.key: entry.value for entry in node.metadata_props}
    scopes = _names(notes.get("pkg.torch.onnx.name_scopes", ""))
    classes = _names(notes.get("pkg.torch.onnx.class_hierarchy", ""))
    # The last entry of both lists is the operation itself.
    path = next((scope for scope in reversed(scopes[:-1]) if scope), "")
    cls = classes[-2].rpartition(".")[2] if len(classes) > 1 else ""
    return f"{path} ({cls})" if path else cls


def check_operators(model: onnx.ModelProto, profile: Profile) -> Counter[str]:
    """Count the operators of a graph, and raise `OperatorError` at one that is not allowed.

    Args:
        model: with the exporter's metadata still in it.
        profile: a key of `ALLOWED`.

    Raises:
        UnknownNameError: there is no such profile.
    """
    if profile not in ALLOWED:
        raise UnknownNameError("profile", profile, get_args(Profile))
    counts: Counter[str] = Counter()
    refused: dict[str, list[str]] = {}
    for node in model.graph.node:
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        counts[name] += 1
        if name not in ALLOWED[profile]:
            refused.setdefault(name, []).append(origin(node))
    for name, places in sorted(refused.items()):
        raise OperatorError(name, profile, filter(None, places))
    return counts


def _names(text: str) -> list[str]:
    """The entries of a list that the exporter wrote as text."""
    return [part.strip().strip("'\"") for part in text.strip("[]").split(",")] if text else []
