"""A lower bound of cycles and a count of resources, by formulas that anyone can check.

It is a bound for the stated device, engine and clock, and no measurement: nothing was synthesised.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from export.fpga.devices import Device
from export.fpga.layers import Shape, layer_table
from export.fpga.schedule import costs, cycles, token_order_cycles
from mtl_core.errors import ArgumentError

BRAM36 = ((512, 72), (1024, 36), (2048, 18), (4096, 9))
ADVICE = (
    "Expect about 2 times the bound in a good design, and 6 to 38 times in an unoptimised one "
    "(published ablation of Edge-MoE, not measured by us)."
)


@dataclass(frozen=True)
class Engine:
    """What computes.

    Args:
        macs: P, products a cycle of the linear engine.
        attention_macs: of attention; None: P / 8 (4 queries by 8 lanes beside 256).
        clock_mhz: f.
        port_bits: of the memory port, a cycle.
        efficiency: η, share of the memory's peak that is reached.
        overlap: weights are fetched while others are used.

    Raises:
        ArgumentError: a number is not positive, or η is above 1.
    """

    macs: int = 256
    attention_macs: int | None = None
    clock_mhz: float = 200.0
    port_bits: int = 256
    efficiency: float = 0.7
    overlap: bool = True

    def __post_init__(self) -> None:
        """Check them."""
        for key in ("macs", "clock_mhz", "port_bits"):
            if not getattr(self, key) > 0:
                raise ArgumentError(key, "be positive", getattr(self, key))
        if not 0 < self.efficiency <= 1:
            raise ArgumentError("efficiency", "be in (0, 1]", self.efficiency)

    @property
    def attention(self) -> int:
        """Products a cycle of attention."""
        return max(1, self.macs // 8) if self.attention_macs is None else self.attention_macs

    def bandwidth(self, device: Device) -> float:
        """B, bits a cycle: of the port, or what the memory gives."""
        memory = self.efficiency * device.ddr_gb_s * 1e9 * 8 / (self.clock_mhz * 1e6)
        return min(float(self.port_bits), memory)


def dsp_per_mac(left: int, right: int, wide: int = 27, narrow: int = 18) -> float:
    """Multipliers a product of two widths takes; two of 8 by 8 share one.

    >>> dsp_per_mac(32, 16), dsp_per_mac(24, 16), dsp_per_mac(8, 8)
    (2, 1, 0.5)
    """
    if max(left, right) <= 8:
        return 0.5
    return math.ceil(max(left, right) / wide) * math.ceil(min(left, right) / narrow)


def bram36(depth: int, width: int) -> int:
    """Blocks of a buffer of `depth` words of `width` bits: the best of the aspect ratios.

    >>> 2 * bram36(768 * 192 // 256, 256 * 16)
    228
    """
    return min(math.ceil(depth / d) * math.ceil(width / w) for d, w in BRAM36)


def uram(depth: int, width: int) -> int:
    """UltraRAM blocks of a buffer."""
    return math.ceil(depth / 4096) * math.ceil(width / 72)


def uniform(s: Shape) -> list[float]:
    """Queues of a router without preference."""
    return [s.tokens * s.top_k / s.experts] * s.experts


def estimate(
    s: Shape,
    device: Device,
    engine: Engine,
    queues: Mapping[str, Sequence[float]] | None = None,
    *,
    weight_format_bits: int | None = None,
) -> dict[str, Any]:
    """The bound of one image and task, layer by layer.

    Layer norms, softmax and GELU are taken to hide behind the products.

    Args:
        s: sizes.
        device: what it runs on.
        engine: what computes.
        queues: expected ones of a layer (``blocks.1``), in the order of its experts; None: uniform.
        weight_format_bits: of the multipliers' narrower input; None: those in memory.
    """
    port = engine.bandwidth(device)
    cost = costs(s.dim, s.expert_hidden, engine.macs, s.weight_bits, port)
    rows: list[dict[str, Any]] = []
    total = macs = moved = 0.0
    for layer in layer_table(s):
        load = layer.weight_bytes * 8 / port
        if layer.kind == "norm":
            continue
        if layer.kind == "experts":
            expected = (queues or {}).get(layer.name.removesuffix(".experts"), uniform(s))
            active = sum(q > 0 for q in expected)
            compute = sum(expected) * cost.token
            load = active * cost.load
            took = cycles(expected, cost, overlap=engine.overlap)
            read = active * 2 * s.dim * s.expert_hidden * s.weight_bits / 8
        else:
            rate = engine.attention if layer.kind == "attention" else engine.macs
            compute = layer.macs / rate * (s.gate_halves if layer.kind == "gate" else 1)
            took = max(compute, load) if engine.overlap else compute + load
            read = layer.weight_bytes
        total, macs, moved = total + took, macs + layer.macs, moved + read
        row = {"name": layer.name, "kind": layer.kind, "macs": layer.macs, "bytes": int(read)}
        rows.append({**row, "compute": compute, "load": load, "cycles": took})
    hertz = engine.clock_mhz * 1e6
    by_macs = macs / (engine.macs * hertz)
    by_bytes = moved / (engine.efficiency * device.ddr_gb_s * 1e9)
    held = weight_format_bits or s.weight_bits
    each = dsp_per_mac(s.act_bits, held, device.dsp_wide, device.dsp_narrow)
    attention = dsp_per_mac(s.act_bits, s.act_bits, device.dsp_wide, device.dsp_narrow)
    return {
        "what": "lower bound for the stated device, engine and clock",
        "advice": ADVICE,
        "device": asdict(device),
        "engine": {**asdict(engine), "attention_macs": engine.attention, "bits_a_cycle": port},
        "macs": int(macs),
        "bytes": int(moved),
        "cycles": total,
        "milliseconds": total / hertz * 1e3,
        "roofline": {
            "compute_ms": by_macs * 1e3,
            "memory_ms": by_bytes * 1e3,
            "binds": "compute" if by_macs >= by_bytes else "memory",
            "macs_a_byte": macs / moved if moved else None,
            "balance_macs_a_byte": engine.macs
            * hertz
            / (engine.efficiency * device.ddr_gb_s * 1e9),
        },
        "experts": _experts(s, cost.load, cost.token) if s.routed else None,
        "resources": _resources(s, engine, device, each, attention),
        "layers": rows,
    }


def _experts(s: Shape, load: float, token: float) -> dict[str, Any]:
    """What the order of experts changes in one layer, for uniform queues."""
    cost = costs(s.dim, s.expert_hidden, 1, 1, 1.0)
    size = int(cost.load) * s.weight_bits // 8
    layer = type(cost)(load, token)
    pairs = s.tokens * s.top_k
    active = min(s.experts, pairs)
    return {
        "load_cycles": load,
        "token_cycles": token,
        "break_even_queue": load / token,
        "mean_queue": pairs / s.experts,
        "expert_bytes": size,
        "bytes_expert_order": active * size,
        "bytes_token_order": pairs * size,
        "cycles_expert_order": cycles(uniform(s), layer),
        "cycles_token_order": token_order_cycles(s.tokens, s.top_k, layer),
        "working_memory_bytes": 2 * size,
    }


def _resources(
    s: Shape, engine: Engine, device: Device, each: float, attention: float
) -> dict[str, Any]:
    """Multipliers and memory blocks of the engine and of its buffers, without control logic."""
    width = engine.macs * s.weight_bits
    hidden = max(s.expert_hidden if s.routed else 0, s.mlp_hidden if len(s.routed) < s.depth else 0)
    depth = math.ceil(2 * s.dim * hidden / engine.macs)
    buffers = 2 if s.routed else 1
    lanes = 16 * s.act_bits
    tokens = bram36(math.ceil(s.tokens * s.dim / 16), lanes)
    needed = {
        "dsp": math.ceil(engine.macs * each + engine.attention * attention),
        "bram36": buffers * bram36(depth, width) + 7 * tokens,
    }
    offered = {"dsp": device.dsp, "bram36": device.bram36, "uram": device.uram}
    beyond = [key for key, value in needed.items() if value > offered[key]]
    return {
        "dsp_per_mac": each,
        "needed": needed,
        "weight_buffers": {
            "count": buffers,
            "depth": depth,
            "bits": width,
            "uram": uram(depth, width),
        },
        "offered": offered,
        "exceeds": beyond,
        "note": "Engine, weight buffers and seven token buffers; no control logic, nothing placed.",
    }


def as_markdown(found: Mapping[str, Any]) -> str:
    """``estimate.md``."""
    device, engine, roof = found["device"], found["engine"], found["roofline"]
    lines = [
        "# Cost estimate",
        "",
        f"{found['milliseconds']:.2f} ms a picture and task: a lower bound for the stated device "
        f"({device['name']}), engine ({engine['macs']} products a cycle, "
        f"{engine['attention_macs']} for attention, {engine['bits_a_cycle']:.0f} bits of weights a "
        f"cycle) and clock "
        f"({engine['clock_mhz']:g} MHz). Nothing was synthesised.",
        "",
        ADVICE,
        "",
        f"- {found['macs'] / 1e9:.3f} GMAC, {found['bytes'] / 1e6:.2f} MB of weights, "
        f"{found['cycles'] / 1e6:.2f} M cycles",
        f"- roofline: compute {roof['compute_ms']:.2f} ms, memory {roof['memory_ms']:.2f} ms; "
        f"{roof['binds']} binds ({roof['macs_a_byte']:.1f} MAC a byte, balance at "
        f"{roof['balance_macs_a_byte']:.1f})",
    ]
    resources = found["resources"]
    for key, value in resources["needed"].items():
        mark = " (exceeds it)" if key in resources["exceeds"] else ""
        lines.append(f"- {key}: {value} of {resources['offered'][key]}{mark}")
    experts = found["experts"]
    if experts:
        lines += [
            f"- experts: {experts['load_cycles']:.0f} cycles to fetch one, "
            f"{experts['token_cycles']:.0f} a token, so a queue of "
            f"{experts['break_even_queue']:.1f} hides the next one; the mean queue is "
            f"{experts['mean_queue']:.1f}",
            f"- a layer of experts reads {experts['bytes_expert_order'] / 1e6:.2f} MB expert by "
            f"expert, {experts['bytes_token_order'] / 1e6:.1f} MB token by token",
        ]
    lines += ["", f"{resources['note']} Numbers of the device are unverified by us.", ""]
    lines += ["| layer | MAC | compute cycles | load cycles | cycles |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['name']} | {row['macs']} | {row['compute']:.0f} | {row['load']:.0f} "
        f"| {row['cycles']:.0f} |"
        for row in found["layers"]
    ]
    return "\n".join(lines) + "\n"
