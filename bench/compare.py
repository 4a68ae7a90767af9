"""Comparing two runs: what changed beyond the noise, and what cannot be said to have.

Ratios of one run share its conditions; two runs do not. So a figure counts as changed only if both hold: the
intervals of its medians do not meet, and the medians are further apart than runs on one machine are anyway
(`LEAST_CHANGE`). What either run measured fewer than six times has no such interval: it is not judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from bench.results import Figure, Results
from bench.statistics import CONFIDENCE

#: Runs of one program on one machine differ by some per cent: code lies elsewhere, memory is elsewhere.
LEAST_CHANGE: Final = 0.05


class Verdict(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    TOO_FEW = "too few samples"


@dataclass(frozen=True, slots=True)
class Change:
    """A figure of both runs. `ratio`: the second's median to the first's."""

    key: str
    unit: str
    before: float
    after: float
    verdict: Verdict

    @property
    def ratio(self) -> float:
        return self.after / self.before if self.before else float("inf")


@dataclass(frozen=True, slots=True)
class Comparison:
    """`differences`: of the machines and versions, as sentences; figures that one run alone has."""

    changes: tuple[Change, ...]
    differences: tuple[str, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]

    @property
    def changed(self) -> list[Change]:
        """What changed, the largest change first."""
        found = [each for each in self.changes if each.verdict in (Verdict.BETTER, Verdict.WORSE)]
        return sorted(found, key=lambda each: -abs(each.ratio - 1))

    def to_json(self) -> dict[str, Any]:
        return {
            "differences": list(self.differences),
            "changes": [
                {"figure": each.key, "unit": each.unit, "before": each.before, "after": each.after,
                 "ratio": each.ratio, "verdict": str(each.verdict)}
                for each in self.changes
            ],
            "only_before": list(self.only_before),
            "only_after": list(self.only_after),
        }  # fmt: skip


def compare(before: Results, after: Results) -> Comparison:
    """Every figure that both runs have, judged."""
    olds = {figure.key: figure for figure in before.figures}
    news = {figure.key: figure for figure in after.figures}
    return Comparison(
        tuple(_change(olds[key], news[key]) for key in olds if key in news),
        tuple(_differences(before, after)),
        tuple(key for key in olds if key not in news),
        tuple(key for key in news if key not in olds),
    )


def _change(before: Figure, after: Figure) -> Change:
    old, new = before.summary, after.summary
    if min(old.coverage, new.coverage) < CONFIDENCE:
        verdict = Verdict.TOO_FEW
    elif (new.low <= old.high and old.low <= new.high) or _near(old.median, new.median):
        verdict = Verdict.SAME
    else:
        # Rates are better when they rise, times when they fall.
        rises = new.median > old.median
        verdict = Verdict.BETTER if rises == before.unit.endswith("/s") else Verdict.WORSE
    return Change(before.key, before.unit, old.median, new.median, verdict)


def _near(old: float, new: float) -> bool:
    return abs(new - old) <= LEAST_CHANGE * min(abs(old), abs(new))


def _differences(before: Results, after: Results) -> list[str]:
    pairs = [
        (name, getattr(before.environment, name), getattr(after.environment, name))
        for name in before.environment.__struct_fields__
        if name not in ("load", "clock_step_ns", "counter_mhz")
    ]
    pairs += [(name, getattr(before, name), getattr(after, name)) for name in ("effort", "repetitions")]
    return [f"{name}: {old} and then {new}" for name, old, new in pairs if old != new]
