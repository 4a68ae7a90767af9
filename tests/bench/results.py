"""Results to be shown and compared, made by hand."""

from __future__ import annotations

from bench.results import FORMAT, Environment, Figure, Results, Skipped

ENVIRONMENT = Environment(
    cpu="a <fast> CPU", cpus=2, virtualised=False, kernel="6.1", governor="performance",
    python="CPython 3.11", llvm="20.1", devbc="0", c_compiler="cc", counter_mhz=2600.0,
    clock_step_ns=10.0, load=0.1,
)  # fmt: skip


def figure(
    competitor: str, samples: tuple[float, ...], *, benchmark: str = "engines", subject: str = "read",
    unit: str = "ns", group: str = "", x: float | None = None,
) -> Figure:  # fmt: skip
    return Figure(
        benchmark=benchmark, subject=subject, competitor=competitor, unit=unit, samples=samples, group=group,
        x=x,
    )  # fmt: skip


def results(*figures: Figure, skipped: tuple[Skipped, ...] = ()) -> Results:
    return Results(
        format=FORMAT, started="2026-01-01 00:00:00 +0000", seconds=1.0, effort="full", repetitions=11,
        pinning="CPU 0", environment=ENVIRONMENT, figures=figures, skipped=skipped,
    )  # fmt: skip
