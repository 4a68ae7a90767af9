"""`devbc show`: what is known of a device's program: classes, bounds, source lines, figures."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from devbc.cli.figures import handler_name, of_device
from devbc.cli.handlers import chosen, configure_handler
from devbc.cli.list import state
from devbc.cli.output import EXIT_OK, Output
from devbc.cli.served import count, counted, find_device, opened, places, table, vm_option

if TYPE_CHECKING:
    from devbc.client import Device
    from devbc.program.program import Handler, Names, Program
    from devbc.program.verified import VerifiedHandler
    from devbc.service.protocol import HandlerFigures

SUMMARY = "show a device's program: what was proven, where it comes from, what became of it"
EXAMPLES = """\
  devbc show pit --vm pc
  devbc show hpet --vm pc --handler mmio/read@0xf0:4,8 --source
"""
_NOTES = """\
columns:
  class   `pure` handlers write nothing and run without a lock, `mutating` ones under the device's
  bound   BPF instructions of the longest run
  lines   source lines that became the handler's code; those of functions that it uses are among them
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _NOTES
    parser.add_argument("device", metavar="DEVICE", help="a device of the VM")
    configure_handler(parser)
    parser.add_argument("--source", action="store_true", help="print the source lines of each handler")
    vm_option(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    with opened(args) as vm:
        device = find_device(vm, args.device)
        figures = of_device(device, vm.figures().handlers)
    verified = _verified(device)
    program = chosen(device.program, args.handler, Path(device.name))
    reports = [
        _handler(program, verified[each.section], figures.get(each.section)) for each in program.handlers
    ]
    if output.json:
        output.object({"ok": True, "vm": vm.number} | _about(device) | {"handlers": reports})
        return EXIT_OK
    output.text(_heading(device) + "\n")
    shown = table("", ("handler", "", "section", "class"), ("bound", "handled", "declined", "contended"))
    shown.title = None
    for column in shown.columns:
        column.no_wrap = True
    shown.add_column("lines of " + ", ".join(_files(reports)), overflow="fold")
    for each in reports:
        shown.add_row(
            each["register"], each["op"], each["section"], each["class"], count(each["worst_case"]),
            *(count(each[name] or 0) for name in ("handled", "declined", "contended")),
            _ranges(each["lines"]),
        )  # fmt: skip
    output.rich(shown)
    if args.source:
        for each in reports:
            output.text("\n".join([f"\n{each['section']}", *_source(each["lines"])]))
    return EXIT_OK


def _verified(device: Device) -> dict[str, VerifiedHandler]:
    """The proof that the service made when the program was loaded, found in the user's cache or made anew."""
    from devbc.cache import user_cache
    from devbc.verifier import DEFAULT
    from devbc.verifier.cached import verify_object

    proof = verify_object(device.info.object, name=device.name, cache=user_cache(), policy=DEFAULT)
    return {each.handler.section: each for each in proof.handlers}


def _about(device: Device) -> dict[str, Any]:
    names = device.program.names
    banks = {each.name: {"space": str(each.space), "bytes": each.size} for each in device.program.banks}
    return {
        "device": device.name, "program": device.program.device, "at": dict(device.info.at), "banks": banks,
        "engine": device.info.engine or None, "abandoned": device.info.abandoned,
        "scratch_bytes": device.info.scratch_bytes,
        "lines": [*names.lines.values()], "inputs": [*names.inputs.values()],
        "timers": [*names.timers.values()], "signals": [*names.signals.values()],
    }  # fmt: skip


def _heading(device: Device) -> str:
    facts = [
        f"{device.name}: `{device.program.device}` at {places(device)}, {state(device)}",
        counted(device.info.scratch_bytes, "byte") + " of scratch",
        *_ports(device.program.names),
    ]
    return ", ".join(facts)


def _ports(names: Names) -> Iterable[str]:
    kinds = (
        ("line", names.lines),
        ("input", names.inputs),
        ("timer", names.timers),
        ("signal", names.signals),
    )
    for what, found in kinds:
        if found:
            yield f"{what}{'' if len(found) == 1 else 's'} {' '.join(found.values())}"


def _handler(program: Program, verified: VerifiedHandler, figures: HandlerFigures | None) -> dict[str, Any]:
    handler = verified.handler
    register, op = handler_name(program, handler.binding)
    return {
        "section": handler.section, "register": register, "op": op,
        "class": str(verified.handler_class), "worst_case": verified.worst_case,
        "may_decline": verified.may_decline, "effects": sorted(verified.effects),
        "handled": figures and figures.handled, "declined": figures and figures.declined,
        "contended": figures and figures.contended, "lines": _lines(handler),
    }  # fmt: skip


def _lines(handler: Handler) -> list[dict[str, Any]]:
    """The source lines of a handler, and how many instructions each has become."""
    slots = len(handler.code) // 8
    starts = sorted(handler.lines)
    counts: Counter[tuple[str, int]] = Counter()
    texts: dict[tuple[str, int], str] = {}
    for start, end in zip(starts, [*starts[1:], slots], strict=True):
        span = handler.lines[start]
        counts[span.file, span.line] += end - start
        texts[span.file, span.line] = span.text
    return [
        {"file": file, "line": line, "slots": counts[file, line], "text": texts[file, line].rstrip()}
        for file, line in sorted(counts)
        if line
    ]


def _files(reports: Iterable[dict[str, Any]]) -> list[str]:
    """The names of the source files that the handlers come from."""
    found = dict.fromkeys(PurePath(line["file"]).name for each in reports for line in each["lines"])
    return [*found] or ["no known source"]


def _ranges(lines: list[dict[str, Any]]) -> str:
    """`120-124 131`; with the files' names if there are several."""
    parts = []
    files = [*dict.fromkeys(each["file"] for each in lines)]
    for file, found in groupby(lines, key=lambda each: each["file"]):
        numbers = [each["line"] for each in found]
        runs: list[list[int]] = []
        for line in numbers:
            if runs and line == runs[-1][1] + 1:
                runs[-1][1] = line
            else:
                runs.append([line, line])
        listed = " ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs)
        parts.append(listed if len(files) == 1 else f"{PurePath(file).name}: {listed}")
    return " ".join(parts)


def _source(lines: list[dict[str, Any]]) -> Iterable[str]:
    for file, found in groupby(lines, key=lambda each: each["file"]):
        yield f"  {file}    slots of code"
        yield from (f"  {each['line']:>6} | {each['slots']:>4} | {each['text']}" for each in found)
