"""Writing one ONNX graph: exported, cleaned of everything but computation, and checked."""

import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from export.clean import clean, io_shape
from export.graph import ExportNetwork
from export.operators import OperatorError, Profile, check_operators
from mtl_core.errors import ArgumentError, MTLError

EXAMPLE_BATCH = 3
"""Batch size of the traced example; with 1 the exporter writes a fixed batch of 1, silently."""

OPSETS = range(17, 24)


class TracingError(MTLError, RuntimeError):
    """A network cannot be written as a graph, for example because values decide what it computes.

    Args:
        module: path and class of the innermost module that was running.
        reason: what torch said.
    """

    def __init__(self, module: str, reason: str) -> None:
        self.module = module
        super().__init__(
            f"a network must compute the same operations whatever its inputs, to become a graph: "
            f"{module or 'it'} does not ({reason})."
        )


class GraphError(MTLError, RuntimeError):
    """A written graph is not what was asked for: shapes, opset, batch dimension."""


@dataclass(frozen=True)
class GraphReport:
    """What was written.

    Args:
        file: name of the graph.
        opset: version of the operator set.
        ir: version of the file format.
        nodes: number of nodes.
        operators: how many of each kind.
        initializers: number of constant tensors.
        weight_bytes: their size.
        outputs: shape of every output by name, ``batch`` or integers.
    """

    file: str
    opset: int
    ir: int
    nodes: int
    operators: dict[str, int]
    initializers: int
    weight_bytes: int
    outputs: dict[str, list[str | int]] = field(default_factory=dict)


def write_graph(
    module: nn.Module,
    example: Mapping[str, Tensor],
    outputs: Sequence[str],
    path: Path | str,
    *,
    opset: int = 20,
    static_batch: int | None = None,
    profile: Profile = "cpu",
) -> GraphReport:
    """Write a module as an ONNX graph with its weights inside.

    Args:
        module: in evaluation mode; takes the example's tensors in order and gives a tuple.
        example: inputs by name, all (B, ...) with B at least 2, or equal to `static_batch`.
        outputs: names of the outputs.
        path: of the file.
        opset: operator set, 17 to 23; 18 and below are made from a newer one.
        static_batch: fixed batch size; None leaves it free under the name ``batch``.
        profile: whose operators are allowed.

    Returns:
        What was written.

    Raises:
        ArgumentError: the example or the opset cannot be used.
        TracingError: the module decides by values what it computes.
        OperatorError: an operator is unknown to ONNX, or not allowed in the profile.
        GraphError: the graph is not what was asked for.
    """
    if opset not in OPSETS:
        raise ArgumentError("opset", f"lie in {OPSETS[0]}..{OPSETS[-1]}", opset)
    sizes = {int(tensor.shape[0]) for tensor in example.values()}
    fits = sizes == {static_batch} if static_batch else min(sizes) > 1
    if len(sizes) != 1 or not fits:
        rule = f"have a batch of {static_batch or '2 or more'} in every input"
        raise ArgumentError("example", rule, sorted(sizes))
    model = _exported(module, example, outputs, opset, static_batch)
    counts = check_operators(model, profile)
    clean(model)
    batch: str | int = static_batch or "batch"
    _check_io(model, example, outputs, batch, opset)
    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphError(f"a graph must pass the checker of ONNX: {error}") from error
    path = Path(path)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return GraphReport(
        file=path.name,
        opset=opset,
        ir=int(model.ir_version),
        nodes=len(model.graph.node),
        operators=dict(sorted(counts.items())),
        initializers=len(model.graph.initializer),
        weight_bytes=sum(len(t.raw_data) for t in model.graph.initializer),
        outputs={value.name: io_shape(value) for value in model.graph.output},
    )


def _exported(
    module: nn.Module,
    example: Mapping[str, Tensor],
    outputs: Sequence[str],
    opset: int,
    static_batch: int | None,
) -> onnx.ModelProto:
    """The exporter's own graph."""
    tensors = tuple(example.values())
    shapes: Any = None
    if static_batch is None:
        batch = torch.export.Dim("batch", min=1)
        by_position = tuple({0: batch} for _ in tensors)
        shapes = {"tensors": by_position} if isinstance(module, ExportNetwork) else by_position
    with warnings.catch_warnings(), torch.no_grad(), _quiet():
        warnings.simplefilter("ignore")  # deprecations inside of torch and onnxscript
        try:
            program = torch.export.export(module, tensors, dynamic_shapes=shapes, strict=False)
        except MTLError:
            raise
        except Exception as error:  # of many private classes of torch
            reason = _first_line(error)
            if reason.startswith("Constraints violated"):
                reason = "an operation fixes the batch size, which has to be free"
            raise TracingError(_running(module, error), reason) from error
        try:
            written = torch.onnx.export(
                program,
                dynamo=True,
                input_names=list(example),
                output_names=list(outputs),
                opset_version=opset,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            operator, place = _untranslated(program, error)
            raise OperatorError(operator, "", [place] if place else []) from error
    assert written is not None
    model: onnx.ModelProto = written.model_proto
    _name_batch(model)
    return model


def _name_batch(model: onnx.ModelProto) -> None:
    """Call the free first dimension of the inputs ``batch``, wherever it appears."""
    values = [*model.graph.input, *model.graph.output]
    symbols = {io_shape(value)[0] for value in model.graph.input if io_shape(value)}
    for value in values:
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_param") and dim.dim_param in symbols:
                dim.dim_param = "batch"


def _check_io(
    model: onnx.ModelProto,
    example: Mapping[str, Tensor],
    outputs: Sequence[str],
    batch: str | int,
    opset: int,
) -> None:
    """Names, the batch dimension of every input and output, fixed numbers elsewhere, the opset."""
    for what, values, wanted in (
        ("inputs", model.graph.input, list(example)),
        ("outputs", model.graph.output, list(outputs)),
    ):
        found = [value.name for value in values]
        if found != wanted:
            raise GraphError(f"{what} of a graph must be {wanted}, found {found}.")
    for value in [*model.graph.input, *model.graph.output]:
        shape = io_shape(value)
        if shape[:1] != [batch] or not all(isinstance(size, int) for size in shape[1:]):
            raise GraphError(
                f"{value.name} must be ({batch}, fixed numbers ...), found {tuple(shape)}: a "
                "dimension depends on the data, or the batch was fixed while tracing."
            )
    found_opset = {entry.domain: entry.version for entry in model.opset_import}
    if found_opset.get("") != opset:
        raise GraphError(
            f"a graph must have the operator set that was asked for, {opset}, found "
            f"{found_opset.get('')}: some operator could not be converted to it."
        )


def _running(module: nn.Module, error: BaseException) -> str:
    """Path and class of the innermost part of `module` on the stack of an error."""
    paths = {id(part): (path, type(part).__name__) for path, part in module.named_modules()}
    found = ("", type(module).__name__)
    trace = error.__traceback__
    while trace is not None:
        place = paths.get(id(trace.tb_frame.f_locals.get("self")))
        found = place or found
        trace = trace.tb_next
    return f"{found[0]} ({found[1]})" if found[0] else found[1]


def _untranslated(program: torch.export.ExportedProgram, error: BaseException) -> tuple[str, str]:
    """Name of the operation that has no translation, and the module that asked for it."""
    texts = []
    cause: BaseException | None = error
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__
    text = "\n".join(texts)
    operator = re.search(r"op='([\w.:]+)'", text)
    named = re.search(r"translating node %(\w+)", text)
    if operator is None or named is None:
        return _first_line(error), ""
    base = operator[1].rpartition(".")[2]
    called = [node for node in program.graph.nodes if node.op == "call_function"]
    exact = [node for node in called if node.name == named[1]]
    for node in exact or [node for node in called if base in str(node.target)]:
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path, kind = stack[-1] if stack else ("", "")
        cls = (kind if isinstance(kind, str) else kind.__name__).rpartition(".")[2]
        return operator[1], f"{path} ({cls})" if path else cls
    return operator[1], ""


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch's exporter logs every fallback; what matters is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
