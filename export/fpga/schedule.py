"""In which order experts come, which buffer each takes, and what stays hidden of its fetching."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from export.fpga.formats import Ints
from mtl_core.errors import ArgumentError


@dataclass(frozen=True)
class Costs:
    """Cycles of an expert.

    Args:
        load: to fetch its weights.
        token: to compute one token.
    """

    load: float
    token: float

    @property
    def break_even(self) -> float:
        """q*: the queue during which the next expert's weights arrive."""
        return self.load / self.token


def costs(dim: int, hidden: int, macs: int, weight_bits: int, port_bits: float) -> Costs:
    """Load 2DHw/B and token 2DH/P.

    >>> found = costs(192, 384, macs=256, weight_bits=16, port_bits=256)
    >>> found, found.break_even
    (Costs(load=9216.0, token=576.0), 16.0)
    """
    numbers = 2 * dim * hidden
    return Costs(numbers * weight_bits / port_bits, numbers / macs)


def order(expected: Sequence[float], cost: Costs) -> list[int]:
    """Experts by expected queue, longest first, so that the shortest one has nothing to hide.

    The last expert hides no fetch, and a queue shorter than q* hides only a part of one, so short
    queues come last. All experts are of one size here: the first is the longest.
    """
    if not cost.load > 0 or not cost.token > 0:
        raise ArgumentError("cost", "be positive", cost)
    return sorted(range(len(expected)), key=lambda e: (-expected[e], e))


@dataclass(frozen=True)
class Turn:
    """One expert's turn.

    Args:
        expert: its number.
        buffer: 0 or 1.
        expected_queue: mean over calibration.
        maximum_queue: longest seen.
        compute_cycles: for the expected queue.
        load_cycles: of its own weights.
        exposed_cycles: of them that no computing hides.
        weight_offset: words into ``weights.bin``.
        bytes: that are fetched.
    """

    expert: int
    buffer: int
    expected_queue: float
    maximum_queue: int
    compute_cycles: float
    load_cycles: float
    exposed_cycles: float
    weight_offset: int
    bytes: int


def turns(
    queues: Ints,
    cost: Costs,
    offsets: Sequence[int],
    expert_bytes: int,
    by: Sequence[int] | None = None,
) -> list[Turn]:
    """The turns of all experts of a layer; those whose queue is empty are skipped when it runs.

    Args:
        queues: (images, E) of calibration.
        cost: of an expert.
        offsets: where each one's weights begin.
        expert_bytes: of one expert.
        by: the order; None: `order` of the mean queues.
    """
    mean = queues.mean(0)
    chosen = order(mean.tolist(), cost) if by is None else list(by)
    found: list[Turn] = []
    busy: float | None = None  # what the expert before computes, None before the first one
    for e in chosen:
        load = cost.load if mean[e] > 0 else 0.0
        exposed = load if busy is None else max(0.0, load - busy)
        compute = float(mean[e]) * cost.token
        found.append(
            Turn(
                expert=e,
                buffer=len(found) % 2,
                expected_queue=float(mean[e]),
                maximum_queue=int(queues[:, e].max()),
                compute_cycles=compute,
                load_cycles=load,
                exposed_cycles=exposed,
                weight_offset=offsets[e],
                bytes=expert_bytes,
            )
        )
        busy = compute if mean[e] > 0 else busy
    return found


def cycles(
    queues: Sequence[float], cost: Costs, *, overlap: bool = True, gate: float = 0.0
) -> float:
    """Cycles of a layer: gate + load_1 + Σ max(q_i · token, load_{i+1}), empty queues skipped.

    Args:
        queues: in the order of the experts.
        cost: of an expert.
        overlap: fetch the next expert while one computes; else one after the other.
        gate: cycles of the router.
    """
    busy = [q * cost.token for q in queues if q > 0]
    if not overlap:
        return gate + sum(busy) + cost.load * len(busy)
    loads = [cost.load] * (len(busy) - 1) + [0.0]
    first = cost.load if busy else 0.0
    return gate + first + sum(max(b, n) for b, n in zip(busy, loads, strict=False))


def token_order_cycles(tokens: int, top_k: int, cost: Costs, gate: float = 0.0) -> float:
    """Cycles without queues: every assignment fetches its expert."""
    return gate + tokens * top_k * (cost.load + cost.token)


@dataclass(frozen=True)
class Replay:
    """What a routing makes of a schedule.

    Args:
        assignments: (token, expert) pairs in the order in which they are computed.
        live: most buffers that hold weights at a time.
        bytes: that are fetched.
    """

    assignments: list[tuple[int, int]]
    live: int
    bytes: int


def replay(chosen: Ints, by: Sequence[int], expert_bytes: int) -> Replay:
    """Run a routing (N, K) through an order, buffer by buffer as the kernel does."""
    listed = [e for e in by if bool((chosen == e).any())]
    pairs: list[tuple[int, int]] = []
    buffers: dict[int, int] = {}
    live = fetched = 0
    for i, e in enumerate(listed):
        for place in range(i if i == 0 else i + 1, min(i + 2, len(listed))):
            buffers[place % 2] = listed[place]
            fetched += expert_bytes
        live = max(live, len(buffers))
        if buffers[i % 2] != e:
            raise ArgumentError("schedule", "hold an expert's weights when its turn comes", e)
        pairs += [(int(n), e) for n in np.nonzero((chosen == e).any(-1))[0]]
    return Replay(pairs, live, fetched)


def as_json(layers: dict[str, dict[str, list[Turn]]], cost: Costs) -> dict[str, Any]:
    """``schedule.json``: turns by layer and task."""
    return {
        "load_cycles": cost.load,
        "token_cycles": cost.token,
        "break_even_queue": cost.break_even,
        "rule": "longest expected queue first; empty queues are skipped",
        "layers": {
            name: {task: [asdict(turn) for turn in found] for task, found in tasks.items()}
            for name, tasks in layers.items()
        },
    }
