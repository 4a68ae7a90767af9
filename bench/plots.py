"""The plots: SVG and PNG from results, and from nothing else. Matplotlib is imported here, when a plot is
made.

Each competitor has a colour and a marker of its own, so that they differ without colour too (Okabe and Ito's
palette). A point is a median, its bar the median's interval; a thin line reaches from the least to the
greatest sample, where there is room for it. Time axes are logarithmic wherever what is compared lies
decades apart.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench import engines, mechanisms, scale, startup
from bench.results import Figure, RecordingResult, Results
from bench.texts import time_text

#: Stands for the page's own text colour in SVG, so that a plot reads on dark and on light pages.
_INK: Final = "#123457"
_GRID: Final = "#8a9099"
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8f8f8f")
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
_STYLES: Final = {
    engines.C: ("#8f8f8f", "|"), engines.JIT: ("#0072b2", "o"), engines.JIT_V2: ("#56b4e9", "D"),
    engines.RTE_JIT: ("#d55e00", "^"), engines.LINUX: ("#009e73", "s"), engines.INTERPRETER: ("#cc79a7", "v"),
    engines.RTE_INTERPRETER: ("#e69f00", "P"),
}  # fmt: skip
_GROUPS: Final = {
    "handled": ("#0072b2", "o", "answered by a program"),
    "userspace": ("#d55e00", "s", "answered in userspace"),
    mechanisms.FLOORS: ("#8f8f8f", "D", "two processes that only hand over (floor)"),
    "KVM": ("#009e73", "^", "a guest's exit under KVM, hardware included"),
    "Linux": ("#cc79a7", "v", "answered by the program in Linux's BPF"),
}
#: Of every access: who answers it has a colour by the kind of place it is in, and a marker of its own.
_ACCESS_STYLES: Final = {
    mechanisms.JIT: ("#0072b2", "o"), mechanisms.JIT_HOST: ("#56b4e9", "D"),
    mechanisms.INTERPRETER: ("#0072b2", "v"), mechanisms.LINUX: ("#cc79a7", "s"),
    mechanisms.LINUX_CALL: ("#cc79a7", "X"), mechanisms.KVM_ITSELF: ("#009e73", "s"),
    mechanisms.KVM_USERSPACE: ("#009e73", "^"), mechanisms.MODEL: ("#e69f00", "P"),
    mechanisms.MODEL_ONE: ("#d55e00", "o"), mechanisms.MODEL_TWO: ("#d55e00", "D"),
}  # fmt: skip


#: The same mechanism with a reading of the counter: tables have it.
_TIMED: Final = (mechanisms.JIT_TIMED, mechanisms.JIT_HOST_TIMED)


def why_unavailable() -> str | None:
    try:
        import matplotlib  # type: ignore[import-not-found, unused-ignore]  # noqa: F401
    except ImportError:
        return "matplotlib is not installed (pip install 'devbc[bench]')"
    return None


def plots(results: Results) -> Iterator[tuple[str, str, Any]]:
    """Name, caption and figure of each plot that the results have something for."""
    if results.of(mechanisms.NAME):
        yield "mechanisms", "One exit, by who answers it.", _mechanisms(results)
        yield "accesses", "Every access, by who answers it; less is better.", _accesses(results)
    if results.of(engines.NAME):
        yield "engines", "The same handlers in each engine; less is better.", _engines(results)
    for recording in results.recordings:
        caption = f"Exits to userspace over guest time, {recording.name}."
        yield f"timeline-{recording.name}", caption, _timeline(recording)
    if results.of(scale.NAME):
        yield "scale", "Throughput of threads, and one exit against the registers attached.", _scale(results)
    if results.of(startup.NAME):
        yield "startup", "Before the first exit: stages by device, and against size.", _startup(results)


def write(results: Results, folder: Path) -> tuple[list[Path], dict[str, tuple[str, str]]]:
    """Write every plot; returns the files, and caption and SVG text of each for a page."""
    files: list[Path] = []
    inline: dict[str, tuple[str, str]] = {}
    plt = _pyplot()
    for name, caption, figure in plots(results):
        png, text = folder / f"{name}.png", _svg(figure, name)
        inline[name] = caption, for_page(text, name)
        figure.savefig(png, dpi=144, bbox_inches="tight", facecolor="white")
        plt.close(figure)
        svg = folder / f"{name}.svg"
        # White behind it, wherever it is shown: a README's page may be dark.
        text = text.replace(_INK, "#222222").replace("<svg ", '<svg style="background: #ffffff" ', 1)
        svg.write_text(text)
        files += [svg, png]
    return files, inline


def for_page(svg: str, name: str) -> str:
    """An SVG to stand in a page: without its prologue, its ink the page's, its ids its own."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\b(id="|url\(#|xlink:href="#)', rf"\g<1>{name}-", body)
    body = re.sub(
        r'(<svg[^>]*?) width="[^"]*"',
        r"\1",
        re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1),
        count=1,
    )
    return body.replace(_INK, "currentColor")


def _svg(figure: Any, name: str) -> str:
    import matplotlib  # type: ignore[import-not-found, unused-ignore]

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": f"devbc-{name}"}):
        # A date would make every run's file another.
        figure.savefig(buffer, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def _pyplot() -> Any:
    import matplotlib  # type: ignore[import-not-found, unused-ignore]

    matplotlib.use("agg")
    import matplotlib.pyplot as plt  # type: ignore[import-not-found, unused-ignore]

    ink = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK
    )
    parameters: Any = {
        "font.size": 10, "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left",
        "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "svg.fonttype": "path",
        "figure.constrained_layout.use": True, "legend.frameon": False, "grid.color": _GRID,
        "grid.alpha": 0.35, "grid.linewidth": 0.6, **ink,
    }  # fmt: skip
    plt.rcParams.update(parameters)
    return plt


def _point(axes: Any, figure: Figure, y: float, colour: str, marker: str, *, reach: bool = True) -> None:
    """A median with its interval, and how far the samples reach."""
    summary = figure.summary
    if reach:
        axes.plot(
            (summary.least, summary.greatest), (y, y), color=colour, lw=0.8, alpha=0.5, solid_capstyle="butt"
        )
    axes.plot((summary.low, summary.high), (y, y), color=colour, lw=3, alpha=0.6, solid_capstyle="butt")
    axes.plot(summary.median, y, color=colour, marker=marker, ms=6.5, mew=1.8 if marker == "|" else 0, ls="")


def _mechanisms(results: Results) -> Any:
    figures = [
        each
        for each in results.of(mechanisms.NAME)
        if each.subject == mechanisms.MAIN and each.competitor not in _TIMED
    ]
    figures.sort(key=lambda each: -each.summary.median)
    plt = _pyplot()
    picture, axes = plt.subplots(figsize=(9.5, 0.27 * len(figures) + 1.3))
    for y, figure in enumerate(figures):
        colour, marker, _ = _GROUPS[figure.group]
        _point(axes, figure, y, colour, marker)
        place, text = (figure.summary.greatest, y), time_text(figure.summary.median)
        axes.annotate(text, place, (6, 0), textcoords="offset points", va="center", fontsize=8.5)
    axes.set_yticks(range(len(figures)), [each.competitor for each in figures])
    axes.set(
        xscale="log",
        xlabel="time of one exit (log scale)",
        title=f"{mechanisms.MAIN}: one exit, by who answers it",
    )
    _time_axis(axes)
    axes.grid(axis="x")
    for name, (colour, marker, label) in _GROUPS.items():
        if any(each.group == name for each in figures):
            axes.plot([], [], color=colour, marker=marker, ls="", label=label)
    axes.legend(loc="upper right", fontsize=8.5)
    axes.margins(x=0.12)
    return picture


def _accesses(results: Results) -> Any:
    figures = [each for each in results.of(mechanisms.NAME) if each.competitor in _ACCESS_STYLES]
    styles = {name: (*style, name) for name, style in _ACCESS_STYLES.items()}
    return _dots(figures, styles, "time of one exit (log scale)", "Every access, by who answers it", 0.4)


def _engines(results: Results) -> Any:
    figures = [each for each in results.of(engines.NAME) if each.subject != engines.CLOCK]
    styles = {name: (*style, name) for name, style in _STYLES.items()}
    return _dots(figures, styles, "time of one call (log scale)", "The same handlers in each engine", 0.84)


def _dots(
    figures: Sequence[Figure],
    styles: Mapping[str, tuple[str, str, str]],
    xlabel: str,
    title: str,
    height: float,
) -> Any:
    """A line for each subject, so high, and a point for each competitor. `styles`: colour, marker, label."""
    subjects = list(dict.fromkeys(each.subject for each in figures))[::-1]
    plt = _pyplot()
    picture, axes = plt.subplots(figsize=(9.5, 0.43 * len(subjects) + 1.4))
    for y, subject in enumerate(subjects):
        axes.axhline(y, color=_GRID, lw=0.5, alpha=0.35)
        for place, (name, (colour, marker, _)) in enumerate(styles.items()):
            # Apart from its neighbours on one line, so that points that coincide are all seen.
            apart = (len(styles) / 2 - 0.5 - place) * height / len(styles)
            for figure in figures:
                if (figure.subject, figure.competitor) == (subject, name):
                    _point(axes, figure, y + apart, colour, marker, reach=False)
    axes.set_yticks(range(len(subjects)), subjects)
    axes.set(xscale="log", xlabel=xlabel, title=title)
    _time_axis(axes)
    axes.grid(axis="x")
    for colour, marker, label in styles.values():
        axes.plot([], [], color=colour, marker=marker, ls="", mew=1.8 if marker == "|" else 0, label=label)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5)
    return picture


def _timeline(recording: RecordingResult) -> Any:
    timeline = recording.timeline
    seconds = [index * timeline.bin_ms / 1000 for index in range(len(timeline.without) + 1)]
    plt = _pyplot()
    picture, axes = plt.subplots(figsize=(9.5, 2.9))
    rows = (
        ("without programs: every exit", timeline.without, "#d55e00", 0.35),
        ("with programs: what is left", timeline.with_programs, "#0072b2", 0.9),
    )
    for label, counts, colour, alpha in rows:
        rates = [count / timeline.bin_ms for count in counts]
        axes.stairs(rates, seconds, color=colour, fill=True, alpha=alpha, lw=0, label=label)
        axes.stairs(rates, seconds, color=colour, lw=0.8)
    share = recording.total("handled") / max(1, recording.accesses)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.set(
        xlabel="guest time, s", ylabel="exits per ms",
        title=f"{recording.name}: {share:.2%} of {recording.accesses:,} exits avoided",
    )  # fmt: skip
    axes.grid(axis="y")
    axes.legend(loc="upper right", fontsize=8.5)
    return picture


def _scale(results: Results) -> Any:
    plt = _pyplot()
    picture, panels = plt.subplots(1, 3, figsize=(11, 3.6), width_ratios=(1, 1, 1.2))
    styles = {
        scale.VMS: ("#009e73", "s"), scale.VCPUS: ("#0072b2", "o"), scale.VIRTUAL: ("#56b4e9", "D"),
        scale.OWN_DEVICES: ("#0072b2", "^"), scale.ONE_DEVICE: ("#d55e00", "v"),
    }  # fmt: skip
    titles = {"PM timer, no lock": scale.THREADS[:3], "virtio doorbell, under its lock": scale.THREADS[3:]}
    for axes, (title, subjects) in zip(panels, titles.items(), strict=False):
        for subject in subjects:
            figures = [
                each for each in results.of(scale.NAME) if each.subject == subject and each.x is not None
            ]
            _series(axes, figures, *styles[subject], subject)
        axes.set(xscale="log", xlabel="threads", title=title, ylabel="million exits per second")
        axes.set_ylim(bottom=0)
        cpus = results.environment.cpus
        axes.axvline(cpus, color=_GRID, ls=":", lw=1)
        top = axes.get_xaxis_transform()
        axes.annotate(
            f"{cpus} CPUs", (cpus, 1), (4, -8), xycoords=top, textcoords="offset points", fontsize=8.5
        )
        ticks = [each.x for each in figures]
        axes.set_xticks(ticks, [f"{each:g}" for each in ticks])
        axes.minorticks_off()
        axes.legend(loc="lower right", fontsize=8)
    axes = panels[2]
    for (name, colour), marker in zip(((scale.HOT, "#0072b2"), (scale.RANDOM, "#d55e00")), "os", strict=True):
        figures = [each for each in results.of(scale.NAME) if each.group == name]
        _series(axes, figures, colour, marker, name)
    axes.set(xscale="log", xlabel="registers, each a handler", title=scale.REGISTERS, ylabel="ns per exit")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left", fontsize=8.5)
    for each in panels:
        each.grid(axis="y")
    return picture


def _series(axes: Any, figures: Sequence[Figure], colour: str, marker: str, label: str) -> None:
    xs = [each.x for each in figures]
    summaries = [each.summary for each in figures]
    axes.plot(xs, [each.median for each in summaries], color=colour, marker=marker, ms=5, label=label)
    axes.fill_between(xs, [each.low for each in summaries], [each.high for each in summaries], color=colour,
                      alpha=0.2, lw=0)  # fmt: skip


def _startup(results: Results) -> Any:
    plt = _pyplot()
    picture, (devices, sizes) = plt.subplots(1, 2, figsize=(11, 3.4), width_ratios=(3, 2))
    figures = results.of(startup.NAME)
    names = list(dict.fromkeys(each.subject for each in figures if each.competitor == "compile"))
    for y, device in enumerate(reversed(names)):
        left = 0.0
        for stage, colour in zip(startup.STAGES, _COLOURS, strict=False):
            figure = results.find(startup.NAME, device, stage)
            if figure:
                label = stage if y == 0 else None
                devices.barh(y, figure.summary.median, 0.6, left=left, color=colour, label=label)
                left += figure.summary.median
        devices.annotate(
            time_text(left * 1e6), (left, y), (4, 0), textcoords="offset points", va="center", fontsize=8.5
        )
    notes = {each.subject: each.note for each in figures if each.competitor == "compile"}
    devices.set_yticks(range(len(names)), [f"{name}\n{notes[name]}" for name in reversed(names)])
    devices.set(xlabel="ms, medians of stages", title="Before the first exit, by stage")
    devices.margins(x=0.12)
    devices.grid(axis="x")
    devices.legend(fontsize=8.5, loc="upper right")
    for (name, colour), marker in zip((("verify", "#009e73"), ("JIT", "#cc79a7")), "^D", strict=True):
        rows = [each for each in figures if each.competitor == name and each.x is not None]
        _series(sizes, rows, colour, marker, name)
    sizes.set(
        xscale="log",
        yscale="log",
        xlabel="instructions of a straight line",
        ylabel="ms",
        title="Against size",
    )
    sizes.grid()
    sizes.legend(fontsize=8.5)
    return picture


def _time_axis(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter  # type: ignore[import-not-found, unused-ignore]

    axes.xaxis.set_major_formatter(FuncFormatter(lambda ns, _: time_text(ns)))
    axes.xaxis.set_minor_formatter(NullFormatter())
