"""The suite's statistics against published tables, against counting by hand, and against simulation."""

from __future__ import annotations

import random
from itertools import product
from statistics import median

import pytest

from bench.statistics import interval_rank, paired_ratios, step_of, summarise


@pytest.mark.parametrize(
    ("count", "rank", "coverage"),
    # Conover, Practical Nonparametric Statistics, table A3; the sign test's confidence limits for the median.
    [
        (6, 1, 0.9688), (8, 1, 0.9922), (9, 2, 0.9609), (11, 2, 0.9883), (12, 3, 0.9614), (15, 4, 0.9648),
        (20, 6, 0.9586), (25, 8, 0.9567),
    ],
)  # fmt: skip
def test_ranks_are_those_of_published_tables(count: int, rank: int, coverage: float) -> None:
    found, covers = interval_rank(count)
    assert found == rank
    assert covers == pytest.approx(coverage, abs=5e-5)


def test_coverage_is_what_counting_all_cases_gives() -> None:
    """Each sample lies below the median or above it, all 2**n ways alike."""
    for count in range(1, 13):
        rank, coverage = interval_rank(count)
        covered = sum(rank <= sum(below) <= count - rank for below in product((False, True), repeat=count))
        assert coverage == pytest.approx(covered / 2**count)


def test_intervals_cover_the_median_of_a_skewed_distribution() -> None:
    """Log-normal times, whose median is 1: 95 % of the intervals hold it, and not nearly all of them do."""
    source = random.Random(5)
    hits = 0
    for _ in range(2000):
        summary = summarise([source.lognormvariate(0, 1.5) for _ in range(21)])
        hits += summary.low <= 1.0 <= summary.high
    assert 0.95 <= hits / 2000 <= 0.99


def test_outliers_are_kept_and_do_not_move_the_median() -> None:
    summary = summarise([10.0, 11.0, 9.0, 10.5, 9.5, 10.0, 1e6])
    assert (summary.median, summary.least, summary.greatest, summary.count) == (10.0, 9.0, 1e6, 7)


def test_few_samples_promise_less() -> None:
    assert summarise([4.0]).coverage == 0
    three = summarise([3.0, 1.0, 2.0])
    assert (three.low, three.median, three.high, three.coverage) == (1.0, 2.0, 3.0, 0.75)
    with pytest.raises(ValueError, match="nothing"):
        summarise([])


def test_ratios_of_rounds_do_not_see_drift() -> None:
    """The machine gets slower by half; one competitor is always twice the other."""
    drift = [1 + number / 20 for number in range(11)]
    ratios = paired_ratios([20 * each for each in drift], [10 * each for each in drift])
    assert summarise(ratios).low == pytest.approx(2) == summarise(ratios).high
    with pytest.raises(ValueError, match="rounds"):
        paired_ratios([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="nothing"):
        paired_ratios([1.0], [0.0])


def test_a_counter_of_26_cycles_a_step() -> None:
    readings = [26 * (number // 3) + (number == 51) for number in range(100)]
    assert step_of(readings) == 26
    assert step_of([7]) == 0


@pytest.mark.parametrize("count", [2, 5, 8])
def test_the_median_is_the_library_s(count: int) -> None:
    samples = [float(each * each % 7) for each in range(count)]
    assert summarise(samples).median == median(samples)
