"""`devbc bench`: run the microbenchmarks, keep their results, and say what changed between two runs.

The suite is the package `bench`: of a checkout, or data of an installed devbc. It is loaded by its path, so
that no `bench` is ever a name in a user's site-packages, nor somebody else's `bench` taken for ours.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from devbc.cli.errors import NO_SUITE, UNKNOWN_BENCHMARK
from devbc.cli.output import EXIT_OK, Output
from devbc.diagnostics import did_you_mean, reject

SUMMARY = "measure what an exit costs and what programs save; compare two runs"
EXAMPLES = """\
  devbc bench                                      everything: some minutes, report in ./bench-results
  devbc bench --quick                              fewer repetitions: under a minute
  devbc bench engines mechanisms --output /tmp/b   two of the benchmarks
  devbc bench --list                               which there are, and what they measure
  devbc bench compare old/results.json new/results.json
"""
_NOTES = """\
The folder gets results.json (every sample), report.html (one file, no network, no scripts) and the plots as
SVG and PNG. What is not installed (librte_bpf, a C compiler, KVM, bpf(2)) is skipped and listed by name
with the reason. Plots take matplotlib: pip install 'devbc[bench]'; without it there are none, and the
report says so. What each figure means: docs/benchmarks.md.

`compare` shows what changed beyond the noise between two runs: of one machine, if it is to mean anything.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _NOTES
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="benchmarks (default: all); or `compare A B`"
    )
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: wider intervals")
    parser.add_argument("--list", action="store_true", help="list the benchmarks")
    parser.add_argument(
        "--output", type=Path, default=Path("bench-results"), metavar="DIR",
        help="where results, plots and report go (default: ./bench-results)",
    )  # fmt: skip
    parser.add_argument(
        "--no-plots", action="store_true", help="neither plots nor the pictures of the report"
    )


def run(args: argparse.Namespace, output: Output) -> int:
    suite = load_suite()
    registry: Any = importlib.import_module(f"{suite.__name__}.registry")
    if args.list:
        return _list(registry, output)
    if args.names[:1] == ["compare"]:
        return _compare(args.names[1:], output)
    names = _chosen(args.names, registry.NAMES)
    runner: Any = importlib.import_module(f"{suite.__name__}.runner")
    report: Any = importlib.import_module(f"{suite.__name__}.report")
    report.prepare(args.output)
    with _progress(output, len(names)) as tell:
        results = registry.run(names, runner.QUICK if args.quick else runner.FULL, tell)
    written = report.write(results, args.output, plots=not args.no_plots)
    if output.json:
        output.object(report.summary(results) | {"files": [str(path) for path in written]})
    else:
        for table in report.tables(results):
            output.rich(table)
        output.text("written: " + ", ".join(str(path) for path in written))
    return EXIT_OK


def load_suite() -> ModuleType:
    """The package `bench`, from where it lies beside this package. Raises Rejected (C011)."""
    folder = suite_folder()
    known = sys.modules.get("bench")
    if known is not None and [Path(path).resolve() for path in known.__path__] == [folder]:
        return known
    spec = importlib.util.spec_from_file_location(
        "bench", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None or not (folder / "__init__.py").is_file():
        raise reject(NO_SUITE, f"there is no suite of benchmarks in `{folder}`")
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench"] = module
    spec.loader.exec_module(module)
    return module


def suite_folder() -> Path:
    """Where the suite is: bundled in a wheel, beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    bundled = package / "data" / "bench"
    return bundled if bundled.is_dir() else package.parent / "bench"


def _list(registry: Any, output: Output) -> int:
    if output.json:
        output.object(
            {"benchmarks": [{"name": each.name, "about": each.about} for each in registry.BENCHMARKS]}
        )
    else:
        for each in registry.BENCHMARKS:
            output.text(f"{each.name:12} {each.about}")
    return EXIT_OK


def _chosen(names: Sequence[str], known: Sequence[str]) -> list[str]:
    for name in names:
        if name not in known:
            help = did_you_mean(name, (*known, "compare")) or ("`devbc bench --list` prints their names",)
            raise reject(UNKNOWN_BENCHMARK, f"there is no benchmark `{name}`", help=help)
    return list(names or known)


def _compare(paths: Sequence[str], output: Output) -> int:
    if len(paths) != 2:
        message = f"`compare` takes two files of results, not {len(paths)}"
        raise reject(
            UNKNOWN_BENCHMARK, message, help=["devbc bench compare old/results.json new/results.json"]
        )
    results: Any = importlib.import_module("bench.results")
    comparison: Any = importlib.import_module("bench.compare")
    report: Any = importlib.import_module("bench.report")
    before, after = (results.read(Path(path)) for path in paths)
    found = comparison.compare(before, after)
    if output.json:
        output.object(found.to_json())
    else:
        for line in report.comparison_lines(found):
            output.text(line)
    return EXIT_OK


@contextmanager
def _progress(output: Output, total: int) -> Iterator[Callable[[int, str], None]]:
    """A bar on a terminal, redrawn between measurements only: none of its threads disturbs them."""
    if output.json or not sys.stderr.isatty():
        yield lambda _done, _what: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(24), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn(),
               TextColumn("{task.description}"))  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True) as progress:
        task = progress.add_task("", total=total)

        def tell(done: int, what: str) -> None:
            progress.update(task, completed=done, description=what, refresh=True)

        yield tell
