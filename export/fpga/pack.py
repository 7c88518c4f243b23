"""Weights as the engine reads them: blocks in the order of their use, and where each lies."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from export.fpga.formats import Ints
from export.fpga.integer.encoder import Encoder, Perceptron
from export.fpga.integer.linear import Linear
from export.fpga.integer.moe import Mixture
from export.fpga.integer.norm import Norm
from mtl_core.atomic import atomic_write
from mtl_core.errors import ArgumentError


def blocked(weight: Ints, block_out: int, block_in: int) -> Ints:
    """A matrix (out, in) as blocks, outer by outputs, padded with zeros.

    >>> blocked(np.arange(6).reshape(2, 3), 2, 2).tolist()
    [0, 1, 3, 4, 2, 0, 5, 0]
    """
    rows, columns = weight.shape
    down, right = -(-rows // block_out), -(-columns // block_in)
    padded = np.zeros((down * block_out, right * block_in), dtype=np.int64)
    padded[:rows, :columns] = weight
    cut = padded.reshape(down, block_out, right, block_in)
    return cut.transpose(0, 2, 1, 3).ravel()


def unblocked(words: Ints, shape: tuple[int, int], block_out: int, block_in: int) -> Ints:
    """The inverse of `blocked`."""
    rows, columns = shape
    down, right = -(-rows // block_out), -(-columns // block_in)
    cut = words.reshape(down, right, block_out, block_in).transpose(0, 2, 1, 3)
    return cut.reshape(down * block_out, right * block_in)[:rows, :columns]


@dataclass
class Memory:
    """Both memories of a design, filled one tensor after another.

    Args:
        block_out: outputs of the engine's block.
        block_in: inputs of it.
        bits: of weights.
    """

    block_out: int
    block_in: int
    bits: int
    weights: list[Ints] = field(default_factory=list)
    parameters: list[Ints] = field(default_factory=list)
    tensors: list[dict[str, Any]] = field(default_factory=list)
    _at: dict[str, int] = field(default_factory=lambda: {"weights": 0, "parameters": 0})

    @property
    def stored(self) -> int:
        """Bits of a weight in memory, 8 or 16."""
        return 8 if self.bits <= 8 else 16

    def matrix(self, name: str, weight: Ints, **more: Any) -> int:
        """Append a matrix; its offset in words."""
        words = blocked(weight, self.block_out, self.block_in)
        layout = {"shape": list(weight.shape), "blocks": [self.block_out, self.block_in]}
        return self._append("weights", name, words, {**layout, **more})

    def vector(self, name: str, values: Ints, **more: Any) -> int:
        """Append biases or a norm's vector; its offset in words."""
        return self._append(
            "parameters", name, values.ravel(), {"shape": list(values.shape), **more}
        )

    def _append(self, file: str, name: str, words: Ints, more: dict[str, Any]) -> int:
        at = self._at[file]
        getattr(self, file).append(words)
        self._at[file] = at + len(words)
        bits = self.stored if file == "weights" else 32
        entry = {"name": name, "file": f"{file}.bin", "offset": at, "words": len(words)}
        self.tensors.append({**entry, "bytes": len(words) * bits // 8, **more})
        return at

    def linear(self, name: str, layer: Linear) -> list[int]:
        """Append a layer; its plan."""
        at = self.matrix(f"{name}.weight", layer.weight)
        bias = self.vector(f"{name}.bias", layer.bias)
        return [at, bias, layer.align, layer.shift]

    def router(self, name: str, layer: Linear) -> list[int]:
        """Append a router; where its weights are wider than the engine's, both halves of each."""
        weight, more = layer.weight, {}
        if self.bits < 16:
            low = self.bits - 1
            weight = np.concatenate([weight >> low, weight & ((1 << low) - 1)])
            more = {"halves": 2, "low_bits": low}
        at = self.matrix(f"{name}.weight", weight, **more)
        bias = self.vector(f"{name}.bias", layer.bias)
        return [at, bias, layer.align, layer.shift]

    def norm(self, name: str, layer: Norm) -> list[int]:
        """Append a layer norm; its plan."""
        gamma = self.vector(f"{name}.weight", layer.gamma)
        beta = self.vector(f"{name}.bias", layer.beta)
        return [gamma, beta, layer.epsilon, layer.align, layer.shift]

    def feed(self, name: str, layer: Perceptron | Mixture) -> list[int]:
        """Append a perceptron or experts, every expert in one piece; the plan."""
        if isinstance(layer, Perceptron):
            starts, _ = self._pair(name, layer.first, layer.second)
            middle = [layer.gelu.point, layer.gelu.out_point, layer.align, 0, 0]
            return [0, *starts, *middle, *[0] * 8]
        first: list[int] = []
        for e in range(layer.experts):
            pair = (layer.first.expert(e), layer.second.expert(e))
            starts, size = self._pair(f"{name}.experts.{e}", *pair, expert=e)
            first, stride = (first or starts), size
        gates = [self.router(f"{name}.gates.{t}", gate) for t, gate in layer.gates.items()]
        apart = [b - a for a, b in zip(gates[0][:2], gates[-1][:2], strict=True)]
        steps = [gap // max(len(gates) - 1, 1) for gap in apart]
        middle = [layer.gelu.point, layer.gelu.out_point, layer.align, *stride]
        return [1, *first, *middle, *gates[0], *steps, layer.score, layer.shift]

    def _pair(
        self, name: str, first: Linear, second: Linear, **more: Any
    ) -> tuple[list[int], tuple[int, int]]:
        """Two layers, weights beside each other and biases too: plans, and words of both kinds."""
        before = dict(self._at)
        w1 = self.matrix(f"{name}.first.weight", first.weight, **more)
        w2 = self.matrix(f"{name}.second.weight", second.weight, **more)
        b1 = self.vector(f"{name}.first.bias", first.bias, **more)
        b2 = self.vector(f"{name}.second.bias", second.bias, **more)
        plans = [w1, b1, first.align, first.shift, w2, b2, second.align, second.shift]
        words = (self._at["weights"] - before["weights"], b2 + second.bias.size - b1)
        return plans, words

    def save(self, folder: Path, formats: dict[str, dict[str, Any]] | None = None) -> None:
        """Write ``weights.bin``, ``parameters.bin`` and ``map.json`` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        kinds = {"weights": np.dtype(f"<i{self.stored // 8}"), "parameters": np.dtype("<i4")}
        for file, kind in kinds.items():
            parts: list[Ints] = getattr(self, file)
            words = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
            low, high = np.iinfo(kind).min, np.iinfo(kind).max
            if words.size and not (low <= words.min() and words.max() <= high):
                raise ArgumentError(file, f"fit {kind.itemsize * 8} bits", int(np.abs(words).max()))
            with atomic_write(folder / f"{file}.bin") as stream:
                stream.write(words.astype(kind).tobytes())
        known = formats or {}
        tensors = [{**t, "format": _format(str(t["name"]), known)} for t in self.tensors]
        entry = {"byte_order": "little", "weight_bits": self.stored, "tensors": tensors}
        with atomic_write(folder / "map.json") as stream:
            stream.write((json.dumps(entry, indent=1) + "\n").encode())


def _format(name: str, formats: dict[str, dict[str, Any]]) -> str | None:
    """Format of a stored tensor; experts of a layer share theirs, and so do its routers."""
    for old, new in ((".experts.", ".experts"), (".gates.", ".gates")):
        head, mark, tail = name.partition(old)
        if mark:
            name = f"{head}{new}.{tail.split('.', 1)[1]}"
    found = formats.get(name)
    return None if found is None else str(found["format"])


def pack(encoder: Encoder, block: tuple[int, int], bits: int) -> tuple[Memory, list[int]]:
    """Memory of an encoder, and its plan as the test bench reads it: the frame, then all blocks.

    Args:
        encoder: in integers.
        block: outputs and inputs of the engine's block.
        bits: of weights.
    """
    memory = Memory(*block, bits)
    plan = memory.linear("patch", encoder.patch)
    plan += [memory.vector("prefix", encoder.prefix), memory.vector("position", encoder.position)]
    plan += [encoder.position_align, *memory.norm("norm", encoder.norm)]
    for i, layer in enumerate(encoder.blocks):
        name, a = f"blocks.{i}", layer.attention
        plan += memory.norm(f"{name}.norm1", layer.norm1)
        for key in ("query", "key", "value"):
            plan += memory.linear(f"{name}.{key}", getattr(a, key))
        plan += [a.score, a.shift, *memory.linear(f"{name}.project", layer.project), layer.align]
        plan += memory.norm(f"{name}.norm2", layer.norm2)
        plan += memory.feed(name, layer.feed)
    return memory, plan
