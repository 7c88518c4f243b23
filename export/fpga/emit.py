"""The C++ design: kernels, geometry, tables, test bench and build files."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from export.fpga.design import Design
from export.fpga.formats import Ints
from export.fpga.integer import norm as norms
from export.fpga.integer.encoder import Perceptron
from export.fpga.integer.moe import Mixture
from export.fpga.integer.softmax import FACTOR_POINT
from export.fpga.tables import gelu_table, power_table, root_table
from mtl_core.errors import ArgumentError

KERNELS = Path(__file__).parent / "hls"


@dataclass(frozen=True)
class Geometry:
    """Constants of a design, all of them known when it is compiled.

    Args:
        act_bits: W of activations.
        weight_bits: W of weights.
        stored_bits: of a weight in memory.
        sum_bits: of the linear engine's sums.
        tokens: N, prefix tokens included.
        prefix: class and register tokens.
        patch_inputs: numbers of a patch.
        dim: D.
        heads: of attention.
        depth: blocks; 0 for a single layer of experts.
        mlp_hidden: of perceptrons.
        experts: E.
        top_k: K.
        expert_hidden: of experts.
        renormalised: gates are probabilities over the chosen experts.
        ahead: routers see the block's input.
        attention_factor: mantissa at point 19.
        gate_factor: likewise.
        block_in: inputs that the engine takes a cycle.
        block_out: outputs that it works on.
        tile: queries that attention works on.
    """

    act_bits: int
    weight_bits: int
    stored_bits: int
    sum_bits: int
    tokens: int
    prefix: int
    patch_inputs: int
    dim: int
    heads: int
    depth: int
    mlp_hidden: int
    experts: int
    top_k: int
    expert_hidden: int
    renormalised: bool
    ahead: bool
    attention_factor: int
    gate_factor: int
    block_in: int = 16
    block_out: int = 16
    tile: int = 4


def engine(macs: int) -> tuple[int, int]:
    """Outputs and inputs of the block of an engine of `macs` products a cycle.

    >>> engine(256), engine(128)
    ((16, 16), (8, 16))
    """
    if macs < 1 or macs & (macs - 1):
        raise ArgumentError("macs", "be a power of two", macs)
    out = 1 << ((macs.bit_length() - 1) // 2)
    return out, macs // out


def geometry(design: Design, macs: int = 256) -> Geometry:
    """Constants of an encoder.

    Raises:
        ArgumentError: its layers of experts differ in size; one kernel serves them all.
    """
    encoder, source = design.encoder, design.source
    feeds = [block.feed for block in encoder.blocks]
    mixtures = [feed for feed in feeds if isinstance(feed, Mixture)]
    dense = [feed for feed in feeds if isinstance(feed, Perceptron)]
    kinds = {(m.first.weight.shape, m.top_k, m.renormalised, m.ahead) for m in mixtures}
    widths = {len(p.first.bias) for p in dense}
    heads = {block.attention.heads for block in encoder.blocks}
    for name, found in (("experts", kinds), ("MLPs", widths), ("heads", heads)):
        if len(found) > 1:
            raise ArgumentError(name, "be of one size in all blocks", sorted(map(str, found)))
    one = mixtures[0] if mixtures else None
    out, inside = engine(macs)
    return Geometry(
        act_bits=encoder.bits,
        weight_bits=design.widths.weights,
        stored_bits=design.widths.stored,
        sum_bits=design.sums,
        tokens=source.tokens,
        prefix=len(source.prefix),
        patch_inputs=source.embed.weight.shape[1],
        dim=source.dim,
        heads=heads.pop(),
        depth=len(encoder.blocks),
        mlp_hidden=widths.pop() if widths else 1,
        experts=one.experts if one else 1,
        top_k=one.top_k if one else 1,
        expert_hidden=one.first.weight.shape[1] if one else 1,
        renormalised=bool(one and one.renormalised),
        ahead=bool(one and one.ahead),
        attention_factor=encoder.blocks[0].attention.factor,
        gate_factor=one.factor if one else 1,
        block_in=inside,
        block_out=out,
    )


def _part_bits(g: Geometry) -> int:
    """Bits of the sum of one block's products."""
    return g.act_bits + g.weight_bits + (g.block_in - 1).bit_length()


def struct(name: str, g: Geometry) -> str:
    """The geometry as a C++ struct."""
    inverse, point = norms.inverse_width(g.dim)
    special = ("attention_factor", "gate_factor", "renormalised", "ahead")
    numbers = {k: v for k, v in asdict(g).items() if k not in special}
    numbers |= {"inverse_width": inverse, "inverse_point": point}
    numbers |= {"gate_halves": 1 if g.weight_bits >= 16 else 2}
    lines = [f"    static const int {key} = {value};" for key, value in numbers.items()]
    for key, flag in (("renormalised", g.renormalised), ("ahead", g.ahead)):
        lines += [f"    static const bool {key} = {str(flag).lower()};"]
    lines += [
        "    typedef ap_int<act_bits> act_t;",
        "    typedef ap_int<weight_bits> weight_t;",
        "    typedef ap_int<sum_bits> sum_t;",
        "#ifdef __SYNTHESIS__",
        f"    typedef ap_int<{_part_bits(g)}> part_t;  // products of one block",
        "#else",
        "    typedef int64_t part_t;  // native, for speed: it cannot overflow",
        "#endif",
        f"    typedef int{g.stored_bits}_t stored_t;",
    ]
    for key in ("attention_factor", "gate_factor"):
        value = getattr(g, key) / 2**FACTOR_POINT
        lines.append(f"    static mtl::factor_t {key}() {{ return mtl::factor_t({value!r}); }}")
    body = "\n".join(lines)
    return f"struct {name} {{\n{body}\n}};\n"


def header(designs: Mapping[str, Geometry]) -> str:
    """``geometry.hpp``: a struct a design."""
    structs = "\n".join(struct(name, g) for name, g in designs.items())
    return (
        "// Generated. Every constant was checked against its type.\n"
        "#ifndef MTL_GEOMETRY_HPP\n#define MTL_GEOMETRY_HPP\n\n"
        f'#include "numbers.hpp"\n\n{structs}\n#endif\n'
    )


def tables() -> str:
    """``tables.hpp``: mantissas of the function tables."""

    def rows(name: str, kind: str, values: Ints) -> str:
        numbers = [str(v) for v in values.tolist()]
        lines = [", ".join(numbers[i : i + 8]) for i in range(0, len(numbers), 8)]
        body = ",\n    ".join(lines)
        return (
            f"// Mantissas of {kind}.\nstatic const int {name}[{len(values)}] = {{\n    {body}}};\n"
        )

    parts = [
        rows("GELU_TABLE", "gelu_t, 32 entries a unit", gelu_table()),
        rows("POWER_TABLE", "power_t, 256 entries from 0 to 1", power_table()),
        rows("ROOT_TABLE", "root_t, 64 entries a unit from 1 to 4", root_table()),
    ]
    return (
        "// Generated.\n#ifndef MTL_TABLES_HPP\n#define MTL_TABLES_HPP\n\nnamespace mtl {\n\n"
        + "\n".join(parts)
        + "\n}  // namespace mtl\n\n#endif\n"
    )


def test_bench(kinds: Mapping[str, str]) -> str:
    """``tb.cpp``: a test bench for every design; kinds are ``encoder`` or ``layer``, by name."""
    cases = "\n".join(
        f'    if (name == "{n}") return mtl::bench_{kind}<{n}>(argv[2], argv[3]);'
        for n, kind in kinds.items()
    )
    return f"""// Generated. Usage: tb DESIGN WEIGHTS_FOLDER DATA_FOLDER
#include "bench.hpp"
#include "geometry.hpp"

int main(int argc, char** argv) {{
    if (argc != 4) {{
        std::fprintf(stderr, "usage: %s DESIGN WEIGHTS_FOLDER DATA_FOLDER\\n", argv[0]);
        return 64;
    }}
    const std::string name = argv[1];
{cases}
    std::fprintf(stderr, "no design %s\\n", argv[1]);
    return 64;
}}
"""


FLAGS = "-std=c++14 -Wall -Wextra -Wno-unknown-pragmas"
"""The kernels give no warning; ``ap_int``'s own are kept away, see `QUIET`."""
QUIET = "-Wno-uninitialized -Wno-maybe-uninitialized"
"""Inlined constructors of ``ap_int`` read what they are about to write."""

_SH = f"""#!/bin/sh
# C simulation. AP_INCLUDE: folder of ap_fixed.h (in the hls4ml wheel: templates/vivado/ap_types).
set -eu
cd "$(dirname "$0")"
: "${{AP_INCLUDE:=$(python -c 'import importlib.util as u, pathlib as p; \\
print(p.Path(u.find_spec("hls4ml").origin).parent / "templates/vivado/ap_types")')}}"
"${{CXX:-g++}}" -O1 {FLAGS} \\
  {QUIET} -isystem "$AP_INCLUDE" -I. tb.cpp -o tb
"""


def _tcl(device: str, part: str, clock_mhz: float) -> str:
    return f"""# Generated, not run by us: no vendor tool was at hand. All of it is unverified.
open_project -reset encoder
set_top encoder
add_files top.cpp
add_files -tb tb.cpp
open_solution -reset {device}
set_part {{{part}}}
create_clock -period {1000 / clock_mhz:.3f} -name default
csynth_design
exit
"""


_TOP = """// Generated: what a synthesis starts from.
#include "encoder_top.hpp"
#include "geometry.hpp"

void encoder(int task, const ap_uint<8>* pixels, const design::weight_t* weights,
             const mtl::param_t* params, const mtl::EncoderPlan& plan,
             const mtl::BlockPlan* blocks, const int* orders, design::act_t* tokens,
             mtl::Routes<design>* routes) {
    mtl::encoder_top<design>(task, pixels, weights, params, plan, blocks, orders, tokens, routes);
}
"""


def emit(
    folder: Path,
    designs: Mapping[str, Geometry],
    *,
    device: str = "device",
    part: str = "",
    clock_mhz: float = 200.0,
) -> None:
    """Write all C++ files of some designs into a folder.

    Args:
        folder: made if needed.
        designs: geometries by a name that C++ allows; ``design`` gets a top function.
        device: key of the device, for the vendor's script.
        part: its part.
        clock_mhz: clock that the script asks for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for kernel in sorted(KERNELS.glob("*.hpp")):
        shutil.copyfile(kernel, folder / kernel.name)
    files = {
        "geometry.hpp": header(designs),
        "tables.hpp": tables(),
        "tb.cpp": test_bench({n: "encoder" if g.depth else "layer" for n, g in designs.items()}),
        "build.sh": _SH,
    }
    if "design" in designs:
        files |= {"top.cpp": _TOP, "build.tcl": _tcl(device, part, clock_mhz)}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "build.sh").chmod(0o755)
