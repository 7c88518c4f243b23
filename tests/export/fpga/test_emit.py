import pytest
from fpga_toys import images, random_vit

from export.fpga.design import Widths, design
from export.fpga.emit import KERNELS, emit, engine, geometry, struct
from mtl_core.errors import ArgumentError


def test_the_engine_is_a_block_of_its_products():
    assert engine(256) == (16, 16)
    assert engine(2) == (1, 2)
    with pytest.raises(ArgumentError, match="power of two"):
        engine(100)


def test_constants_are_those_of_the_design():
    made = design(random_vit(ahead=True), ("left",), Widths(18, 12), images(1))
    text = struct("tiny", geometry(made, 64))
    for line in ("tokens = 7", "dim = 16", "experts = 4", "top_k = 2", "block_in = 8", "depth = 2"):
        assert f"static const int {line};" in text
    assert "static const bool ahead = true;" in text
    assert "typedef int16_t stored_t;" in text


def test_a_folder_is_complete_and_the_same_each_time(tmp_path):
    made = design(random_vit(), ("left",), Widths(18, 12), images(1))
    for name in ("a", "b"):
        emit(tmp_path / name, {"design": geometry(made, 64)}, device="zcu104", part="p-1")
    files = {path.name: path.read_text() for path in (tmp_path / "a").iterdir()}
    assert files == {path.name: path.read_text() for path in (tmp_path / "b").iterdir()}
    kernels = {path.name for path in KERNELS.glob("*.hpp")} | {"geometry.hpp", "tables.hpp"}
    assert {"linear_blocked.hpp", "layernorm.hpp", "softmax_row.hpp", "moe_layer.hpp"} <= kernels
    assert files.keys() == kernels | {"tb.cpp", "top.cpp", "build.sh", "build.tcl"}
    assert "not run by us" in files["build.tcl"]
    assert "set_part {p-1}" in files["build.tcl"]
    assert not any(str(tmp_path) in text or "site-packages" in text for text in files.values())
