"""No more digits than an interval supports."""

import math

from mtl_core.stats.records import Chances, Interval

MOST = 6
"""Decimals that are shown at most."""


def decimals(error: float) -> int:
    """Decimals that an error of this size supports: its first digit, or two where that is a 1.

    Negative where whole tens or more are uncertain.

    >>> [decimals(e) for e in (0.0123, 0.0345, 2.6, 140.0)]
    [3, 2, 0, -1]
    """
    exponent = math.floor(math.log10(error))
    first = int(f"{error:e}"[0])
    return min(-exponent + (first == 1), MOST)


def rounded(value: float, places: int) -> str:
    """`value` with so many decimals; with negative ones, whole tens or hundreds.

    >>> rounded(0.12345, 2), rounded(1234.5, -1)
    ('0.12', '1230')
    """
    text = f"{round(value, places):.{max(places, 0)}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def estimate(value: float, interval: Interval | None, *, plus: bool = False) -> str:
    """A value with its interval, as "0.912 ± 0.004", or with both bounds where they differ.

    Without an interval nothing says which digits hold: two significant ones are shown, behind "≈".

    Args:
        value: the estimate.
        interval: around it.
        plus: also show the sign of positive values.

    >>> estimate(0.91234, Interval(0.91234, 0.90834, 0.91634, 0.95)), estimate(0.91234, None)
    ('0.912 ± 0.004', '≈ 0.91')
    """
    sign = "+" if plus else ""
    if interval is None:
        return f"≈ {_signed(float(f'{value:.2g}'), f'{value:.2g}', sign)}"
    below, above = value - interval.low, interval.high - value
    error = max(below, above)
    if not error > 0:
        return f"{_signed(value, f'{value:.4g}', sign)} ± 0"
    places = decimals(error)
    centre = _signed(value, rounded(value, places), sign)
    if math.isclose(below, above, rel_tol=0.02, abs_tol=1e-12):
        return f"{centre} ± {rounded(error, places)}"
    return f"{centre} [{rounded(interval.low, places)}, {rounded(interval.high, places)}]"


def chance(value: float) -> str:
    """A probability with two decimals, never 0 or 1.

    >>> chance(0.123), chance(0.9999), chance(0.0)
    ('0.12', '> 0.99', '< 0.01')
    """
    if value < 0.005:
        return "< 0.01"
    return "> 0.99" if value > 0.995 else f"{value:.2f}"


def chances(found: Chances | None) -> str:
    """Three probabilities, worse first; in bold the one that reaches 0.95."""
    if found is None:
        return "–"
    parts = [chance(p) for p in (found.worse, found.equal, found.better)]
    names = ("worse", "equal", "better")
    decision = found.decision()
    return " / ".join(f"**{p}**" if n == decision else p for n, p in zip(names, parts, strict=True))


def count(value: float) -> str:
    """A large number in short: 1.97 M.

    >>> count(1966656.0), count(812.0), count(4.2e9)
    ('1.97 M', '812', '4.20 G')
    """
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return (
                f"{value / size:.3g} {letter}"
                if value / size >= 100
                else (f"{value / size:.{2 if value / size < 10 else 1}f} {letter}")
            )
    return f"{value:.3g}"


def _signed(value: float, text: str, sign: str) -> str:
    return f"{sign}{text}" if value > 0 else text.replace("-", "−")
