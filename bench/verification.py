"""What verification costs: time against program size, the shipped devices, and what the cache saves.

    python -m bench.verification            measure, print, and draw from what was measured
    python -m bench.verification --draw     draw again from the figures of an earlier run

Figures go to `bench/results/verification.json`; the plots beside it show nothing else. A time is processor
time of one process, so that a busy machine disturbs it less: the median of several runs, with the least and
the greatest. Starting Python and importing devbc are not in it. Times of other machines do not compare.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time_ns
from typing import Any, Final

from bench.families import FAMILIES, HOSTILE
from devbc.abi import parse_binding
from devbc.cache import Cache
from devbc.catalog import bundled_devices, compile_object
from devbc.diagnostics import Rejected
from devbc.isa.asm import assemble
from devbc.isa.insn import encode
from devbc.program.elf import load_object
from devbc.program.program import Function, Handler
from devbc.verifier import DEFAULT, verify_program
from devbc.verifier.cached import verify_object
from devbc.verifier.prepare import prepare
from devbc.verifier.verify import prove

RESULTS: Final = Path(__file__).parent / "results"
SIZES: Final = (10, 30, 100, 300, 1000, 3000, 10_000)

#: Each colour with a marker of its own, so that the lines differ without colour too.
_STYLES: Final = (("#0072b2", "o"), ("#e69f00", "s"), ("#009e73", "^"), ("#cc79a7", "D"), ("#56b4e9", "v"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", action="store_true", help="only draw, from the figures that there are")
    parser.add_argument("--runs", type=int, default=7, help="of each measurement (default: 7)")
    args = parser.parse_args()
    figures = RESULTS / "verification.json"
    if not args.draw:
        RESULTS.mkdir(exist_ok=True)
        measured = {
            "machine": _machine(),
            "runs": args.runs,
            "growth": [each for family in FAMILIES for each in _growth(family, args.runs)],
            "devices": [_device(path, args.runs) for path in sorted(bundled_devices().glob("*/*.dev"))],
            "hostile": [_hostile(name) for name in HOSTILE],
        }
        figures.write_text(json.dumps(measured, indent=1) + "\n")
    measured = json.loads(figures.read_text())
    _print(measured)
    _draw(measured)


# Measuring.


def _timed(work: Callable[[], object], runs: int) -> dict[str, float]:
    """Milliseconds of processor time: median, least, greatest. The first run only warms up."""
    times = []
    for _ in range(runs + 1):
        start = process_time_ns()
        work()
        times.append((process_time_ns() - start) / 1e6)
    del times[0]
    return {"median": round(median(times), 3), "min": round(min(times), 3), "max": round(max(times), 3)}


def _growth(family: str, runs: int) -> list[dict[str, Any]]:
    rows = []
    for size in SIZES:
        handler = _handler(FAMILIES[family](size))
        exploration = prepare(handler, 64, b"", DEFAULT, None, None)
        prove(exploration, DEFAULT)

        def verify(handler: Handler = handler) -> None:
            prove(prepare(handler, 64, b"", DEFAULT, None, None), DEFAULT)

        rows.append(
            {
                "family": family,
                "size": size,
                "slots": len(handler.code) // 8,
                "worst_case": exploration.worst_case,
                "steps": exploration.steps,
                "ms": _timed(verify, runs if size < 3000 else min(runs, 3)),
            }
        )
    return rows


def _handler(text: str) -> Handler:
    section = "pio/write@0x0:4"
    binding = parse_binding(section)
    assert not isinstance(binding, str)
    return Handler(section, binding, encode(assemble(text)), (Function("entry", 0),))


def _device(path: Path, runs: int) -> dict[str, Any]:
    data = compile_object(path)
    program = load_object(data, name=path.name)
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(Path(folder) / "cache")
        verify_object(data, name=path.name, cache=cache)
        return {
            "device": path.stem,
            "handlers": len(program.handlers),
            "slots": sum(len(handler.code) // 8 for handler in program.handlers),
            "load_ms": _timed(lambda: load_object(data, name=path.name), runs),
            "verify_ms": _timed(lambda: verify_program(program), runs),
            "cached_ms": _timed(lambda: verify_object(data, name=path.name, cache=cache), runs),
        }


def _hostile(name: str) -> dict[str, Any]:
    handler = _handler(HOSTILE[name])

    def refused() -> None:
        try:
            prove(prepare(handler, 64, b"", DEFAULT, None, None), DEFAULT)
        except Rejected:
            return
        raise AssertionError(f"{name} was accepted")

    return {"name": name, "slots": len(handler.code) // 8, "ms": _timed(refused, 1)}


def _machine() -> str:
    """What was measured on, without names of its own."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in _lines(Path("/proc/cpuinfo"))
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    virtual = any(" hypervisor" in line for line in _lines(Path("/proc/cpuinfo")) if line.startswith("flags"))
    where = "one core, virtualised" if virtual else "one core"
    return f"{model} ({where}), {platform.python_implementation()} {platform.python_version()}"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


# Showing.


def _print(measured: dict[str, Any]) -> None:
    print(f"{measured['machine']}; ms of processor time, median (least to greatest)\n")
    print(f"{'device':16} {'handlers':>8} {'slots':>6} {'load':>24} {'verify':>24} {'cached':>24}")
    for row in measured["devices"]:
        times = "".join(f" {_spread(row[name]):>24}" for name in ("load_ms", "verify_ms", "cached_ms"))
        print(f"{row['device']:16} {row['handlers']:8} {row['slots']:6}{times}")
    print(f"\n{'family':28} {'size':>6} {'slots':>6} {'steps':>8} {'verify':>26} {'us each':>8}")
    for row in measured["growth"]:
        each = 1000 * row["ms"]["median"] / row["size"]
        print(
            f"{row['family']:28} {row['size']:6} {row['slots']:6} {row['steps']:8} "
            f"{_spread(row['ms']):>26} {each:8.1f}"
        )
    print("\nrefused for want of budget:")
    for row in measured["hostile"]:
        print(f"{row['name']:28} {row['slots']:13} {_spread(row['ms']):>35}")


def _spread(times: dict[str, float]) -> str:
    return f"{times['median']:.2f} ({times['min']:.2f} to {times['max']:.2f})"


def _draw(measured: dict[str, Any]) -> None:
    import matplotlib  # type: ignore[import-not-found, unused-ignore]

    matplotlib.use("svg")
    import matplotlib.pyplot as plt  # type: ignore[import-not-found, unused-ignore]

    plt.rcParams |= {
        "font.size": 10,
        "svg.hashsalt": "devbc",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    figure, (growth, devices) = plt.subplots(1, 2, figsize=(12, 5), width_ratios=(3, 2), layout="constrained")
    for family, (color, marker) in zip(FAMILIES, _STYLES, strict=True):
        rows = [row for row in measured["growth"] if row["family"] == family]
        sizes = [row["size"] for row in rows]
        growth.plot(
            sizes, [row["ms"]["median"] for row in rows], color=color, marker=marker, ms=5, label=family
        )
        least, most = ([row["ms"][bound] for row in rows] for bound in ("min", "max"))
        growth.fill_between(sizes, least, most, color=color, alpha=0.2, lw=0)
    base = next(row for row in measured["growth"] if row["size"] == 1000)["ms"]["median"] / 1000
    ends = (SIZES[0], SIZES[-1])
    growth.plot(
        ends, [base * size / 2 for size in ends], color="0.6", ls=":", lw=1, label="slope of linear growth"
    )
    growth.set(
        xscale="log", yscale="log", xlabel="instructions (loops, calls: of the longest run)",
        ylabel="time to verify, ms", title="Verification time against program size",
    )  # fmt: skip
    growth.grid(which="major", color="0.9")
    growth.legend(frameon=False)
    rows = sorted(measured["devices"], key=lambda row: row["verify_ms"]["median"])
    places = range(len(rows))
    bars_of = (
        (0.2, "verify_ms", "verified", "#0072b2"),
        (-0.2, "cached_ms", "from the cache, with loading", "#e69f00"),
    )
    for offset, name, label, color in bars_of:
        medians = [row[name]["median"] for row in rows]
        bars = devices.barh([place + offset for place in places], medians, 0.36, color=color, label=label)
        devices.bar_label(bars, [f"{each:.1f}" for each in medians], padding=3, fontsize=9)
    devices.set_yticks(places, [f"{row['device']}\n{row['handlers']} handlers" for row in rows])
    devices.axvline(100, color="0.6", ls=":", lw=1)
    longest = max(100.0, rows[-1]["verify_ms"]["median"])
    devices.set(
        xlim=(0, 1.15 * longest), xlabel="ms (dotted: the goal of 100)", title="Shipped devices, all handlers"
    )
    devices.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 0.08))
    figure.text(0.995, -0.02, measured["machine"] + "; processor time, medians, bands from least to greatest",
                ha="right", va="top", fontsize=8, color="0.4")  # fmt: skip
    for kind in ("svg", "png"):
        # A date would make every run's file another.
        metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
        figure.savefig(RESULTS / f"verification.{kind}", dpi=144, bbox_inches="tight", metadata=metadata)


if __name__ == "__main__":
    main()
