"""The statistics of the suite: medians, and intervals that assume nothing about the distribution.

Times of a busy machine have a floor and a long tail, so that a mean and a standard deviation describe
nothing. The median's interval is made of order statistics: of n samples, how many lie below the true median
is binomial with p = 1/2 whatever the distribution (David and Nagaraja, Order Statistics, section 7.1). No
sample is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import comb
from statistics import median, mode
from typing import Final

#: What an interval promises, where there are samples enough for it.
CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Summary:
    """`low` to `high` covers the median with a probability of `coverage`; fewer than 6 samples cover less."""

    median: float
    low: float
    high: float
    coverage: float
    least: float
    greatest: float
    count: int


def summarise(samples: Sequence[float], confidence: float = CONFIDENCE) -> Summary:
    """The median and its interval. Raises ValueError without samples."""
    if not samples:
        raise ValueError("a median of nothing")
    ordered = sorted(samples)
    rank, coverage = interval_rank(len(ordered), confidence)
    return Summary(
        median(ordered), ordered[rank - 1], ordered[-rank], coverage, ordered[0], ordered[-1], len(ordered)
    )


def interval_rank(count: int, confidence: float = CONFIDENCE) -> tuple[int, float]:
    """The greatest k whose interval, k-th least to k-th greatest sample, covers the median often enough.

    With it, how often that is. If even the least and the greatest do not, it is them, with what they cover.
    """
    rank, below = 1, 0.5**count  # below: P(fewer than `rank` samples lie below the median)
    while rank + 1 <= (count + 1) // 2:
        more = below + comb(count, rank) * 0.5**count
        if 1 - 2 * more < confidence:
            break
        rank, below = rank + 1, more
    return rank, max(0.0, 1 - 2 * below)


def paired_ratios(samples: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Ratios of samples that were taken in the same rounds: what slows a round slows both.

    Raises ValueError if they are not of the same rounds, or the reference is not above 0.
    """
    if len(samples) != len(reference):
        raise ValueError("ratios need samples of the same rounds")
    if any(each <= 0 for each in reference):
        raise ValueError("a ratio to nothing")
    return [mine / other for mine, other in zip(samples, reference, strict=True)]


def step_of(readings: Iterable[int]) -> int:
    """What a counter advances by between readings in a row, as a rule; 0 if it does not.

    The most frequent difference, not the least: a hypervisor that scales the counter rounds some steps.
    """
    steps = [later - earlier for earlier, later in pairwise(readings) if later != earlier]
    return mode(steps) if steps else 0
