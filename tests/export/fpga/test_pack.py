import json

import numpy as np
import pytest
from fpga_toys import images, random_vit

from export.fpga.design import Widths, design
from export.fpga.emit import geometry
from export.fpga.pack import blocked, pack, unblocked


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (16, 8), (3, 17)])
def test_blocks_round_trip(shape):
    weight = np.random.default_rng(0).integers(-99, 99, shape)
    words = blocked(weight, 4, 8)
    assert len(words) % 32 == 0
    assert (unblocked(words, shape, 4, 8) == weight).all()


@pytest.mark.parametrize("bits", [8, 12])
def test_files_and_map_hold_every_weight_of_every_expert(tmp_path, bits):
    made = design(random_vit(), ("left", "right"), Widths(18, bits), images(2))
    g = geometry(made, 32)
    memory, _ = pack(made.encoder, (g.block_out, g.block_in), made.widths.weights)
    memory.save(tmp_path, made.formats)
    content = json.loads((tmp_path / "map.json").read_text())
    kind = np.dtype(f"<i{content['weight_bits'] // 8}")
    words = np.fromfile(tmp_path / "weights.bin", dtype=kind).astype(np.int64)
    numbers = np.fromfile(tmp_path / "parameters.bin", dtype="<i4").astype(np.int64)
    assert kind.itemsize == (1 if bits == 8 else 2)
    entries = {entry["name"]: entry for entry in content["tensors"]}
    feed = made.encoder.blocks[1].feed
    for e in range(4):
        at = entries[f"blocks.1.experts.{e}.second.weight"]
        part = words[at["offset"] : at["offset"] + at["words"]]
        found = unblocked(part, tuple(at["shape"]), *at["blocks"])
        assert (found == feed.second.weight[e]).all()
        assert at["expert"] == e
        assert at["format"] == made.formats["blocks.1.experts.second.weight"]["format"]
    for task in ("left", "right"):
        at = entries[f"blocks.1.gates.{task}.bias"]
        found = numbers[at["offset"] : at["offset"] + at["words"]]
        assert (found == feed.gates[task].bias).all()
    assert all(entry["format"] for name, entry in entries.items() if name != "prefix")
    matrices = [entry for entry in entries.values() if "blocks" in entry]
    ends = sorted((entry["offset"], entry["offset"] + entry["words"]) for entry in matrices)
    assert [stop for _, stop in ends[:-1]] == [start for start, _ in ends[1:]]
    assert ends[-1][1] == len(words)
