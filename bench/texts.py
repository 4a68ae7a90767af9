"""How figures are worded, alike in tables, plots and the page."""

from __future__ import annotations

from bench.results import Figure, Target


def time_text(ns: float) -> str:
    """ns in the unit that people would use."""
    for limit, unit in ((1e3, "ns"), (1e6, "µs"), (1e9, "ms")):
        if abs(ns) < limit:
            return f"{ns / limit * 1e3:.3g} {unit}"
    return f"{ns / 1e9:.3g} s"


def amount_text(value: float, unit: str) -> str:
    """A value of a figure: times in the unit that people would use, anything else as it is."""
    scales = {"ns": 1.0, "us": 1e3, "ms": 1e6}
    return time_text(value * scales[unit]) if unit in scales else f"{value:,.3g} {unit}"


def interval_text(figure: Figure) -> str:
    """The median's interval, with what it covers where that is less than it should."""
    found = figure.summary
    text = f"{amount_text(found.low, figure.unit)} to {amount_text(found.high, figure.unit)}"
    return text if found.coverage >= 0.95 else f"{text} ({found.coverage:.0%})"


def value_text(target: Target) -> str:
    return "not measured" if target.value is None else f"{_digits(target.value)} {target.unit}"


def limit_text(target: Target) -> str:
    return f"{'at least' if target.at_least else 'at most'} {_digits(target.limit)} {target.unit}"


def ratio_text(target: Target) -> str:
    return "" if target.ratio is None else f"{target.ratio:,.2f}"


def _digits(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def held_text(target: Target) -> str:
    return {None: "not measured", True: "yes", False: "no"}[target.met]
