from dataclasses import replace

import pytest

from export.fpga.devices import device
from export.fpga.estimate import Engine, as_markdown, bram36, dsp_per_mac, estimate, uram
from export.fpga.layers import EDGE_MOE
from mtl_core.errors import ArgumentError

ZCU102 = device("zcu102")
ENGINE = Engine(clock_mhz=300)


def test_closed_forms_of_edge_moe():
    found = estimate(EDGE_MOE, ZCU102, ENGINE)
    assert found["macs"] / 1e9 == pytest.approx(0.764, abs=5e-4)
    assert found["cycles"] / 1e6 == pytest.approx(5.14, abs=5e-3)
    assert found["milliseconds"] == pytest.approx(17.1, abs=0.05)
    experts = found["experts"]
    assert (experts["load_cycles"], experts["token_cycles"]) == (9216, 576)
    assert experts["break_even_queue"] == 16
    assert experts["mean_queue"] == 16.125
    assert experts["bytes_expert_order"] / 1e6 == pytest.approx(4.72, abs=5e-3)
    assert experts["bytes_token_order"] / 1e6 == pytest.approx(76.1, abs=5e-2)


def test_working_memory_is_two_experts_whatever_e_and_k():
    sizes = {
        estimate(replace(EDGE_MOE, experts=e, top_k=k), ZCU102, ENGINE)["experts"][
            "working_memory_bytes"
        ]
        for e, k in ((4, 1), (16, 2), (64, 4))
    }
    assert sizes == {2 * 2 * 192 * 384 * 2}
    # M3ViT: 12 experts of ViT-S (295 680 parameters) at 16 bits less on chip
    assert pytest.approx(11.610 - 4.840, abs=0.005) == 12 * 295_680 * 2 / 2**20


def test_resources_by_formula():
    assert [dsp_per_mac(*pair) for pair in ((32, 16), (16, 16), (24, 16), (8, 8))] == [2, 1, 1, 0.5]
    assert dsp_per_mac(26, 16, wide=25) == 2
    assert 2 * bram36(576, 4096) == 228
    assert bram36(4096, 9) == 1
    assert uram(4097, 73) == 4
    wide = estimate(replace(EDGE_MOE, act_bits=32), ZCU102, ENGINE)["resources"]
    assert wide["dsp_per_mac"] == 2
    small = estimate(EDGE_MOE, device("pynq-z2"), ENGINE)["resources"]
    assert small["exceeds"] == ["dsp", "bram36"]


def test_monotone_and_never_below_the_roofline():
    def cost(**changes):
        return estimate(replace(EDGE_MOE, **changes), ZCU102, ENGINE)

    for key, values, what in (
        ("tokens", (33, 129, 257), "cycles"),
        ("experts", (4, 16, 32), "bytes"),
        ("top_k", (1, 2, 4), "cycles"),
    ):
        found = [cost(**{key: value})[what] for value in values]
        assert found == sorted(found)
        assert len(set(found)) == 3
    for engine in (ENGINE, Engine(macs=4096), Engine(port_bits=16), Engine(overlap=False)):
        bound = estimate(EDGE_MOE, ZCU102, engine)
        roof = max(bound["roofline"]["compute_ms"], bound["roofline"]["memory_ms"])
        assert bound["milliseconds"] >= roof


def test_skewed_queues_and_no_overlap_cost_more():
    even = estimate(EDGE_MOE, ZCU102, ENGINE)["cycles"]
    skewed = {f"blocks.{i}": [65.0, *[193 / 15] * 15] for i in EDGE_MOE.routed}
    assert estimate(EDGE_MOE, ZCU102, ENGINE, skewed)["cycles"] > even
    assert estimate(EDGE_MOE, ZCU102, replace(ENGINE, overlap=False))["cycles"] > even
    one = {f"blocks.{i}": [258.0, *[0.0] * 15] for i in EDGE_MOE.routed}
    assert (
        estimate(EDGE_MOE, ZCU102, ENGINE, one)["bytes"]
        < estimate(EDGE_MOE, ZCU102, ENGINE)["bytes"]
    )


def test_wording_is_a_bound_and_never_a_latency():
    text = as_markdown(estimate(EDGE_MOE, ZCU102, ENGINE))
    assert "lower bound for the stated device (zcu102), engine" in text
    assert "6 to 38 times" in text
    assert "latency on" not in text.lower()
    assert "| blocks.1.experts |" in text


def test_engine_is_checked():
    assert Engine(macs=512).attention == 64
    assert Engine(clock_mhz=1000, port_bits=1024).bandwidth(ZCU102) == pytest.approx(107.52)
    with pytest.raises(ArgumentError, match="efficiency"):
        Engine(efficiency=1.2)
    with pytest.raises(ArgumentError, match="clock_mhz"):
        Engine(clock_mhz=0)
