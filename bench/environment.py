"""What a run ran on: as much as a reader needs to judge the figures, and no names of the machine's own."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from bench.results import Environment
from bench.statistics import step_of

_READINGS = 4096


def environment() -> Environment:
    """The machine and the versions, as they are now."""
    from llvmlite import binding

    from bench.peers.c import compiler
    from devbc import __version__
    from devbc.engines.clock import counter_period_ns

    period = counter_period_ns()
    cpuinfo = _text("/proc/cpuinfo").splitlines()
    governor = _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
    return Environment(
        cpu=next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), "")
        or platform.machine(),
        cpus=len(os.sched_getaffinity(0)),
        virtualised=any(" hypervisor" in line for line in cpuinfo if line.startswith("flags")),
        kernel=platform.release(),
        governor=governor or "not shown by the kernel",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        llvm=".".join(map(str, binding.llvm_version_info)),
        devbc=__version__,
        c_compiler=_version(compiler()),
        counter_mhz=round(1000 / period, 1) if period else None,
        clock_step_ns=round(step_of(_counter_readings()) * period, 2) if period else None,
        load=round(os.getloadavg()[0], 2),
    )


def _counter_readings() -> list[int]:
    """Readings of the time-stamp counter in a row."""
    from bench.loops import loops

    return loops().counter_readings(_READINGS)


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _version(command: str | None) -> str:
    if command is None:
        return "none found"
    try:
        done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return command
    return (done.stdout.splitlines() or [command])[0]
