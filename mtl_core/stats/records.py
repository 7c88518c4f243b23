"""What the functions of this package give back."""

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

Decision: TypeAlias = Literal["worse", "equal", "better", "undecided"]


@dataclass(frozen=True)
class Interval:
    """An estimate and the bounds around it.

    Attributes:
        estimate: point estimate, in the unit of the values.
        low: lower bound.
        high: upper bound.
        level: confidence or posterior mass between the bounds, 0 to 1.
    """

    estimate: float
    low: float
    high: float
    level: float

    @property
    def width(self) -> float:
        """Distance between the bounds."""
        return self.high - self.low

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Chances:
    """Posterior probability of the three outcomes that a practical margin leaves; they sum to 1.

    Attributes:
        worse: difference below minus the margin.
        equal: difference within the margin.
        better: difference above the margin.
    """

    worse: float
    equal: float
    better: float

    def decision(self, at_least: float = 0.95) -> Decision:
        """The outcome whose probability reaches `at_least`, else "undecided".

        >>> Chances(worse=0.01, equal=0.02, better=0.97).decision()
        'better'
        """
        if self.worse >= at_least:
            return "worse"
        if self.equal >= at_least:
            return "equal"
        return "better" if self.better >= at_least else "undecided"


@dataclass(frozen=True)
class Test:
    """Outcome of a significance test.

    Attributes:
        statistic: the test's statistic; positive favours the first sample where it has a sign.
        p_value: two-sided.
        method: name of the test, for table captions.
    """

    __test__: ClassVar[bool] = False  # no test class of pytest

    statistic: float
    p_value: float
    method: str
