"""In which proportion and order several sources are drawn."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mtl_core.data.sampler import TrainingSampler, order_generator
from mtl_core.errors import ArgumentError, UnknownNameError

Mixing = Literal["proportional", "uniform", "temperature"]


def mixing_shares(
    sizes: Sequence[int], mixing: Mixing = "proportional", *, temperature: float | None = None
) -> NDArray[np.float64]:
    """Share of every source in an epoch; they sum to one.

    Source i with n_i samples gets a share proportional to n_i (``proportional``), to 1
    (``uniform``) or to n_i^(1/τ) (``temperature``), which is proportional at τ = 1 and nears
    uniform as τ grows: the sampling of Arivazhagan et al., "Massively Multilingual Neural Machine
    Translation in the Wild" (2019), section 4.

    Args:
        sizes: samples of every source.
        mixing: the rule.
        temperature: τ, positive; given for ``temperature`` and only there.

    Example:
        >>> mixing_shares([900, 100], "temperature", temperature=2.0).tolist()
        [0.75, 0.25]
    """
    if (mixing == "temperature") != (temperature is not None):
        raise ArgumentError("temperature", "be given exactly with mixing: temperature", temperature)
    if temperature is not None and not temperature > 0:
        raise ArgumentError("temperature", "be positive", temperature)
    match mixing:
        case "proportional":
            exponent = 1.0
        case "uniform":
            exponent = 0.0
        case "temperature":
            assert temperature is not None
            exponent = 1 / temperature
        case _:
            raise UnknownNameError("mixing", mixing, ("proportional", "uniform", "temperature"))
    weights = np.power(np.asarray(sizes, np.float64), exponent)
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def apportion(shares: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Whole numbers that sum to `total`, nearest to ``shares * total``, each at least 1."""
    if total < len(shares):
        raise ArgumentError("total", f"be at least the number of shares ({len(shares)})", total)
    exact = shares * total
    parts = np.maximum(1, np.floor(exact)).astype(np.int64)
    while parts.sum() < total:
        parts[np.argmax(exact - parts)] += 1
    while parts.sum() > total:
        parts[np.argmax(np.where(parts > 1, parts - exact, -np.inf))] -= 1
    return parts


class MixtureSampler(TrainingSampler):
    """Draws from consecutive runs of indices, the sources, in fixed shares.

    An epoch is as long as all sources together. Every source gives its share of it exactly, not
    only on average, and its samples come from one endless sequence of shuffled passes that goes on
    from epoch to
    epoch: none comes a second time before all others came. With ``proportional`` shares and mixed
    batches an epoch is every sample once.

    Args:
        runs: samples of every source.
        shares: share of every source, from `mixing_shares`.
        alternating: whole steps from one source, in shuffled order of sources, instead of samples
            of all sources in one batch. The epoch is then rounded up to whole steps.
        batch_size: samples per process and step.
        seed: of the order.
        num_replicas: processes that share the samples.
        rank: index of this process.
        drop_last: leave out an incomplete last step (there is none if alternating).
    """

    def __init__(
        self,
        runs: Sequence[int],
        *,
        shares: NDArray[np.float64],
        batch_size: int,
        alternating: bool = False,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
        drop_last: bool = False,
    ) -> None:
        self.runs = tuple(runs)
        self.block = batch_size * num_replicas if alternating else 1
        blocks = max(len(runs), math.ceil(sum(runs) / self.block))
        self.blocks = apportion(shares, blocks)
        super().__init__(
            blocks * self.block,
            batch_size=batch_size,
            seed=seed,
            num_replicas=num_replicas,
            rank=rank,
            drop_last=drop_last,
        )

    def order(self) -> NDArray[np.int64]:
        """Indices over all sources, (`size`,)."""
        labels = np.repeat(np.arange(len(self.runs)), self.blocks)
        labels = order_generator(self.seed, self.epoch).permutation(labels).repeat(self.block)
        order = np.empty(self.size, np.int64)
        first = 0
        for source, length in enumerate(self.runs):
            drawn = int(self.blocks[source]) * self.block
            order[labels == source] = first + self._passes(source, self.epoch * drawn, drawn)
            first += length
        return order

    def signature(self) -> dict[str, int]:
        """Also the samples that every source gives."""
        given = {f"samples of source {i}": int(n) * self.block for i, n in enumerate(self.blocks)}
        return super().signature() | given

    def _passes(self, source: int, start: int, count: int) -> NDArray[np.int64]:
        """`count` entries from position `start` of a source's endless sequence of passes."""
        length = self.runs[source]
        passes = range(start // length, (start + count - 1) // length + 1)
        sequence = np.concatenate(
            [order_generator(self.seed, p, stream=source + 1).permutation(length) for p in passes]
        )
        offset = start - passes.start * length
        return sequence[offset : offset + count]
