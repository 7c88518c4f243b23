import numpy as np
import pytest

from export.fpga.schedule import (
    as_json,
    costs,
    cycles,
    order,
    replay,
    token_order_cycles,
    turns,
)

EDGE = costs(192, 384, macs=256, weight_bits=16, port_bits=256)


def test_closed_form_of_edge_moe():
    assert (EDGE.load, EDGE.token, EDGE.break_even) == (9216, 576, 16)
    gate = 129 * 192 * 16 / 256
    layer = cycles([129 * 2 / 16] * 16, EDGE, gate=gate)
    assert layer / 300e3 == pytest.approx(0.531, abs=5e-4)
    assert token_order_cycles(129, 2, EDGE) == 258 * (9216 + 576)


@pytest.mark.parametrize("seed", range(8))
def test_every_assignment_once_with_two_buffers(seed):
    rng = np.random.default_rng(seed)
    chosen = np.array([rng.choice(9, 3, replace=False) for _ in range(20)])
    by = rng.permutation(9).tolist()
    found = replay(chosen, by, expert_bytes=100)
    assert sorted(found.assignments) == sorted((n, e) for n in range(20) for e in chosen[n])
    assert found.live <= 2
    assert found.bytes == 100 * len(np.unique(chosen))


def test_empty_queues_are_skipped():
    found = replay(np.zeros((5, 1), dtype=np.int64), [3, 1, 0, 2], expert_bytes=7)
    assert (found.bytes, found.live) == (7, 1)
    assert cycles([0, 4, 0], EDGE) == EDGE.load + 4 * EDGE.token
    assert cycles([], EDGE) == 0


def test_longest_first_is_never_beaten_by_a_random_order():
    rng = np.random.default_rng(0)
    for _ in range(50):
        queues = rng.integers(0, 60, 8)
        best = cycles([queues[e] for e in order(queues.tolist(), EDGE)], EDGE)
        other = cycles(rng.permutation(queues).tolist(), EDGE)
        serial = cycles(queues.tolist(), EDGE, overlap=False)
        assert best <= other <= serial


def test_turns_name_buffers_offsets_and_what_is_exposed():
    queues = np.array([[4, 40, 0, 20], [8, 20, 0, 36]])
    found = turns(queues, EDGE, offsets=[0, 10, 20, 30], expert_bytes=5)
    assert [t.expert for t in found] == [1, 3, 0, 2]
    assert [t.buffer for t in found] == [0, 1, 0, 1]
    assert [t.maximum_queue for t in found] == [40, 36, 8, 0]
    assert [t.weight_offset for t in found] == [10, 30, 0, 20]
    assert [t.exposed_cycles for t in found] == [9216, 0, 0, 0]
    total = sum(t.compute_cycles + t.exposed_cycles for t in found)
    assert total == cycles([t.expected_queue for t in found], EDGE)
    content = as_json({"blocks.1": {"depth": found}}, EDGE)
    assert content["layers"]["blocks.1"]["depth"][0]["expert"] == 1
    assert content["break_even_queue"] == 16
