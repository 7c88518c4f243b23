"""E-processes against fixed and peeked-at tests, by simulation.

Usage: ``python benchmarks/eprocesses.py [--runs 4000]`` prints the table of docs/statistics.md.

Two methods succeed or fail on the same items; "corr" is the correlation of the normal variables
behind their successes. All tests are one-sided at 0.05. Fixed and peeked-at is the z-test of two
rates with pooled variance, which does not know that the items are the same; fixed and paired is
that of wins against losses.
"""

import argparse
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from mtl_core.stats.eprocess import sign_log_e, two_sample_log_factors

ALPHA = 0.05
ITEMS = 200
FIRST_PEEK = 10
CASES = (
    (0.5, 0.5, 0.0),
    (0.1, 0.1, 0.0),
    (0.9, 0.9, 0.0),
    (0.5, 0.5, 0.8),
    (0.5, 0.6, 0.0),
    (0.5, 0.7, 0.0),
    (0.5, 0.7, 0.8),
    (0.8, 0.9, 0.8),
)


@dataclass(frozen=True)
class Measured:
    """Rates of rejection, and mean items until the decision or the end."""

    sign: float
    sign_items: float
    unpaired: float
    unpaired_items: float
    fixed: float
    fixed_paired: float
    peeked: float


def successes(
    rates: tuple[float, float], correlation: float, shape: tuple[int, int], seed: int
) -> npt.NDArray[np.bool_]:
    """(2, runs, items) successes of the baseline and of the new method."""
    rng = np.random.default_rng(seed)
    both = rng.standard_normal((2, *shape))
    both[1] = correlation * both[0] + np.sqrt(1 - correlation**2) * both[1]
    found: npt.NDArray[np.bool_] = both < special.ndtri(np.array(rates))[:, None, None]
    return found


def sign_paths(old: npt.NDArray[np.bool_], new: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """(runs, items) log e-value of the sign process after each item."""
    wins, losses = np.cumsum(new & ~old, axis=1), np.cumsum(old & ~new, axis=1)
    counts = np.arange(old.shape[1] + 1)
    table = sign_log_e(*np.meshgrid(counts, counts, indexing="ij"))
    return table[wins, losses]


def two_sample_paths(
    old: npt.NDArray[np.bool_], new: npt.NDArray[np.bool_], prior: float = 1.0
) -> npt.NDArray[np.float64]:
    """(runs, items) log e-value of the unpaired process after each pair of items."""
    both = np.stack([new, old])
    seen = np.arange(both.shape[-1])
    rates = (np.cumsum(both, axis=-1) - both + prior) / (seen + 2 * prior)
    return np.cumsum(two_sample_log_factors(both, rates), axis=-1)


def decided(paths: npt.NDArray[np.float64], alpha: float = ALPHA) -> tuple[float, float]:
    """Share of runs that ever reach 1/alpha, and their mean length."""
    crossed = paths >= -np.log(alpha)
    ever = crossed.any(1)
    length = np.where(ever, crossed.argmax(1) + 1, paths.shape[1])
    return float(ever.mean()), float(length.mean())


def measure(
    rates: tuple[float, float], correlation: float, runs: int = 4000, seed: int = 0
) -> Measured:
    """One row of the table."""
    old, new = successes(rates, correlation, (runs, ITEMS), seed)
    n = np.arange(1, ITEMS + 1)
    a, b = np.cumsum(old, axis=1), np.cumsum(new, axis=1)
    pool = (a + b) / (2 * n)
    error = np.sqrt(2 * pool * (1 - pool) / n)
    z = np.divide((b - a) / n, error, out=np.zeros(pool.shape), where=error > 0)
    wins, losses = (new & ~old).sum(1), (old & ~new).sum(1)
    paired = (wins - losses) / np.sqrt(np.maximum(wins + losses, 1))
    critical = special.ndtri(1 - ALPHA)
    return Measured(
        *decided(sign_paths(old, new)),
        *decided(two_sample_paths(old, new)),
        fixed=float((z[:, -1] > critical).mean()),
        fixed_paired=float((paired > critical).mean()),
        peeked=float((z[:, FIRST_PEEK - 1 :] > critical).any(1).mean()),
    )


def table(runs: int = 4000) -> str:
    """All cases as Markdown."""
    lines = [
        "| true rates | sign process: rejects / mean items | unpaired process | z-test at 200 |"
        " the same, paired | z-test after every item |",
        "|---|---|---|---|---|---|",
    ]
    for old, new, correlation in CASES:
        m = measure((old, new), correlation, runs)
        name = f"{old} {'=' if old == new else '→'} {new}{' corr' * (correlation > 0)}"
        lines.append(
            f"| {name} | {m.sign:.3f} / {m.sign_items:.0f} | "
            f"{m.unpaired:.3f} / {m.unpaired_items:.0f} | {m.fixed:.3f} | {m.fixed_paired:.3f} | "
            f"{f'{m.peeked:.3f}' if old == new else '–'} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=4000)
    print(table(parser.parse_args().runs))
