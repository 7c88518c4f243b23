import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fpga_toys import TOOLS, images, random_vit

from export.fpga import csim, emit
from export.fpga import vit as floats
from export.fpga.design import Widths, design
from export.fpga.integer.encoder import encode
from export.fpga.integer.linear import Linear
from export.fpga.integer.moe import moe
from export.fpga.pack import pack
from export.fpga.single import design_layer, random_mixture

SIZES = (17, 16, 24, 6, 2)
FORMATS = [(32, 16), (24, 16), (20, 10), (18, 12), (16, 8), (12, 8)]
needs_tools = pytest.mark.skipif(not TOOLS, reason="no g++, or no ap_fixed headers (hls4ml)")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """One binary with a layer of experts in six formats and two encoders."""
    folder = tmp_path_factory.mktemp("design")
    source, tokens = random_mixture(*SIZES, seed=0, tasks=2)
    layers = {
        f"layer_{a}_{w}": design_layer(source, tokens, Widths(a, w), macs=64) for a, w in FORMATS
    }
    vits = {
        "plain": design(random_vit(1), ("left", "right"), Widths(18, 12), images(3)),
        "other": design(
            random_vit(2, renormalised=True, ahead=True), ("right",), Widths(24, 16), images(3)
        ),
    }
    geometries = {name: layer.geometry for name, layer in layers.items()}
    geometries |= {name: emit.geometry(made, 32) for name, made in vits.items()}
    # formats are found anew for every seed; only widths are part of the binary
    geometries = {n: replace(g, sum_bits=min(g.sum_bits + 4, 64)) for n, g in geometries.items()}
    emit.emit(folder, geometries)
    before = os.environ.get("CXXFLAGS")
    os.environ["CXXFLAGS"] = "-O0"
    try:
        warnings = csim.build(folder, folder / "tb")
    finally:
        os.environ.pop("CXXFLAGS")
        if before is not None:
            os.environ["CXXFLAGS"] = before
    return SimpleNamespace(
        folder=folder, binary=folder / "tb", geometries=geometries, vits=vits, warnings=warnings
    )


def simulate(compiled, layer, name, x, order, task=0, residual=None):
    """A layer of experts in C, on mantissas (N, D)."""
    g = compiled.geometries[name]
    memory, plan = csim.layer_memory(layer.mixture, g)
    work = compiled.folder / name
    memory.save(work, layer.formats)
    zeros = np.zeros_like(x) if residual is None else residual
    tokens = np.stack([x, x, zeros])[None]
    return csim.run_layer(compiled.binary, name, g, work, work, plan, tokens, order, task)


def same(found, out, routed):
    assert (found.tokens[0] == out).all()
    assert (found.experts[0, 0] == routed.experts).all()
    assert (found.gates[0, 0] == routed.gates).all()
    assert found.loads[0, 0] == routed.loads


@needs_tools
def test_our_files_give_no_warnings(compiled):
    assert compiled.warnings == ""


@needs_tools
@pytest.mark.parametrize(("act", "weight"), FORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_every_bit_of_a_layer_is_that_of_the_integer_model(compiled, act, weight, seed):
    source, tokens = random_mixture(*SIZES, seed=seed, tasks=2)
    layer = design_layer(source, tokens * (1 + 3 * seed), Widths(act, weight), macs=64)
    rng = np.random.default_rng(seed)
    x = layer.given.round(tokens * (1 + 3 * seed))
    residual = layer.out.round(rng.standard_normal(tokens.shape))
    task = seed % 2
    out, routed = moe(x, residual, layer.mixture, f"task{task}", act)
    order = rng.permutation(6).tolist()
    found = simulate(compiled, layer, f"layer_{act}_{weight}", x, order, task, residual)
    same(found, out, routed)


@needs_tools
def test_reversed_order_gives_the_same_bits(compiled):
    source, tokens = random_mixture(*SIZES, seed=5, tasks=2)
    layer = design_layer(source, tokens, Widths(18, 12), macs=64)
    x = layer.given.round(tokens)
    straight, backwards = (
        simulate(compiled, layer, "layer_18_12", x, order)
        for order in (list(range(6)), list(range(5, -1, -1)))
    )
    assert (straight.tokens == backwards.tokens).all()
    assert (straight.gates == backwards.gates).all()


@needs_tools
@pytest.mark.parametrize("case", ["ties", "saturated", "one pair of experts", "largest tokens"])
def test_hard_cases_are_bit_exact_too(compiled, case):
    source, tokens = random_mixture(*SIZES, seed=7, tasks=2)
    layer = design_layer(source, tokens, Widths(18, 12), macs=64)
    mixture, x = layer.mixture, layer.given.round(tokens)
    gate = mixture.gates["task0"]
    if case == "ties":
        gate = replace(gate, weight=np.zeros_like(gate.weight), bias=np.zeros_like(gate.bias))
    if case == "saturated":  # scores far beyond what their type holds, of either sign
        gate = Linear(gate.weight, gate.bias, gate.align, gate.shift)
        mixture = replace(mixture, score=mixture.score - 24)
    if case == "one pair of experts":  # four queues stay empty
        bias = np.zeros_like(gate.bias)
        bias[[1, 4]] = (1 << 17) - 1
        gate = replace(gate, weight=gate.weight // 16, bias=bias, align=gate.align + 3)
    if case == "largest tokens":
        x = np.where(x >= 0, (1 << 17) - 1, -(1 << 17)).astype(np.int64)
    layer = replace(layer, mixture=replace(mixture, gates={**mixture.gates, "task0": gate}))
    out, routed = moe(x, np.zeros_like(x), layer.mixture, "task0", 18)
    found = simulate(compiled, layer, "layer_18_12", x, list(range(6)))
    same(found, out, routed)
    if case == "ties":
        assert (found.experts == [0, 1]).all()
    if case == "one pair of experts":
        assert found.loads[0, 0] == 2


@needs_tools
@pytest.mark.parametrize(
    ("name", "task"), [("plain", "left"), ("plain", "right"), ("other", "right")]
)
def test_every_bit_of_an_encoder_is_that_of_the_integer_model(compiled, name, task):
    made, g = compiled.vits[name], compiled.geometries[name]
    memory, plan = pack(made.encoder, (g.block_out, g.block_in), made.widths.weights)
    work = compiled.folder / name
    memory.save(work)
    pixels = floats.patches(images(2, seed=4), made.source.patch)
    index = made.tasks.index(task)
    orders = np.array([[2, 0, 3, 1]])
    found = csim.run_encoder(compiled.binary, name, g, work, work, plan, pixels, index, orders)
    for i, image in enumerate(pixels):
        tokens, routed = encode(image, made.encoder, task)
        assert (found.experts[i, 0] == routed[0].experts).all()
        assert (found.gates[i, 0] == routed[0].gates).all()
        assert (found.tokens[i] == tokens).all()


@needs_tools
def test_a_bench_that_fails_is_named(compiled, tmp_path):
    g = compiled.geometries["layer_18_12"]
    with pytest.raises(csim.CSimError, match="cannot open"):
        csim.run_layer(
            compiled.binary, "layer_18_12", g, tmp_path, tmp_path, [], np.zeros((1, 3, 2)), [0]
        )
    (tmp_path / "tb.cpp").write_text("#error no\n")
    with pytest.raises(csim.CSimError, match="#error no"):
        csim.build(tmp_path, tmp_path / "tb")


def test_absent_tools_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(csim.CSimError, match="no-such-compiler"):
        csim.compiler()
    monkeypatch.setenv("AP_INCLUDE", str(tmp_path))
    with pytest.raises(csim.CSimError, match="no ap_fixed"):
        csim.ap_headers()
    monkeypatch.delenv("AP_INCLUDE")
    monkeypatch.setattr(csim.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(csim.CSimError, match="install hls4ml"):
        csim.ap_headers()


def test_measures():
    assert csim.sqnr(np.ones(4), np.ones(4)) == float("inf")
    assert csim.sqnr(np.ones(4), np.full(4, 1.1)) == pytest.approx(20)
    a = np.array([[0, 1], [2, 3]])
    assert csim.routing_kept(a, a[:, ::-1]) == 1
    assert csim.routing_kept(a, np.array([[0, 2], [2, 3]])) == 0.5
