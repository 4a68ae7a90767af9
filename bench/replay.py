"""How long a recorded guest takes: a handled exit inside the native loop, and the whole replay.

    python bench/replay.py RECORDING [--runs N]

Each engine's runs alternate on a fresh VM; the median of the runs' medians is shown, with their spread.
The replay's time is the loop's, after set-up (reading, compiling, verifying and loading are not in it).
Times of other machines, and of other runs of this, do not compare.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median

from devbc.catalog import load_machine
from devbc.cli.replay import make_engine
from devbc.guests.recording import read_recording
from devbc.guests.replay import Replay, replay
from devbc.hypervisor.vm import VM

ENGINES = ("jit", "interp")


def measure(path: Path, runs: int) -> dict[str, list[Replay]]:
    """Replays by engine, on fresh VMs."""
    recording = read_recording(path)
    devices, wires = load_machine("pc")
    results: dict[str, list[Replay]] = {name: [] for name in ENGINES}
    for _ in range(runs):
        for name in ENGINES:
            vm = VM(devices, wires, rtc_base=recording.rtc_base)
            engine = make_engine(name)
            assert engine is not None
            vm.attach(engine)
            results[name].append(replay(recording, vm))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    print(f"{'engine':8} {'ns per handled exit':>28} {'replay, s':>22} {'handled':>9} {'mismatches':>11}")
    for name, replays in measure(args.recording, args.runs).items():
        ns = [each.total.ns_per_handled_exit or 0.0 for each in replays]
        seconds = [each.seconds for each in replays]
        share = replays[0].total.handled / replays[0].total.accesses
        print(
            f"{name:8} {_spread(ns, '.1f'):>28} {_spread(seconds, '.3f'):>22} "
            f"{share:>8.2%} {replays[0].total.mismatches:>11}"
        )


def _spread(values: list[float], form: str) -> str:
    """Median, and the lowest and highest."""
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
