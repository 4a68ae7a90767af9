"""What the verifier has proven of a program, as data for `--json` and as text for people.

Ranges of the shared area are named by the program's own fields where its BTF describes them; the functions
that name bytes take any `ctypes.Structure`. Nothing is decided here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

from devbc.abi import EXIT_FIELDS
from devbc.program.verified import ByteRange, VerifiedHandler, VerifiedProgram


def report_json(program: VerifiedProgram) -> dict[str, Any]:
    """The report as one object; sizes in bytes, `worst_case` in instructions."""
    return {
        "device": program.program.device,
        "scratch_bytes": len(program.program.scratch_image),
        "rodata_bytes": len(program.program.rodata),
        "handlers": [_handler_json(program, handler) for handler in program.handlers],
    }


def report_text(program: VerifiedProgram) -> str:
    """The report as text: a line a handler, with what it touches indented below."""
    source = program.program
    facts = f"{_counted(len(source.scratch_image), 'byte')} of scratch"
    if source.rodata:
        facts += f", {_counted(len(source.rodata), 'byte')} of read-only data"
    lines = [f"{source.device or 'program'}: {_counted(len(program.handlers), 'handler')} verified, {facts}"]
    width = max((len(handler.handler.section) for handler in program.handlers), default=0)
    for handler in program.handlers:
        lines += ["", *_handler_lines(program, handler, width)]
    return "\n".join(lines)


def _handler_json(program: VerifiedProgram, handler: VerifiedHandler) -> dict[str, Any]:
    def ranges(touched: tuple[ByteRange, ...]) -> list[dict[str, Any]]:
        return [
            {"start": each.start, "end": each.end, "fields": scratch_names(program, (each,))}
            for each in touched
        ]

    return {
        "section": handler.handler.section,
        "class": str(handler.handler_class),
        "worst_case": handler.worst_case,
        "slots": len(handler.handler.code) // 8,
        "stack_bytes": handler.stack_bytes,
        "may_decline": handler.may_decline,
        "may_handle": handler.may_handle,
        "scratch_read": ranges(handler.scratch_read),
        "scratch_written": ranges(handler.scratch_written),
        "effects": _effects(handler),
        "helpers": sorted(helper.name.lower() for helper in handler.helpers),
    }


def _handler_lines(program: VerifiedProgram, handler: VerifiedHandler, width: int) -> Iterator[str]:
    match handler.may_decline, handler.may_handle:
        case True, True:
            verdict = "may decline"
        case True, False:
            verdict = "always declines"
        case _:
            verdict = "never declines"
    facts = [
        f"{handler.handler_class:<8}",
        f"at most {_counted(handler.worst_case, 'instruction')}",
        verdict,
    ]
    if handler.stack_bytes:
        facts.append(f"stack {_counted(handler.stack_bytes, 'byte')}")
    yield f"  {handler.handler.section:<{width}}  " + ", ".join(facts).replace(" ,", ",")
    touched = (("reads", handler.scratch_read), ("writes", handler.scratch_written))
    for verb, ranges in touched:
        if ranges:
            names = scratch_names(program, ranges)
            yield f"    {verb:<8} " + (", ".join(names) or ", ".join(_bytes(each) for each in ranges))
    if handler.effects:
        yield f"    effects  {', '.join(_effects(handler))}"
    if handler.helpers:
        yield f"    calls    {', '.join(sorted(helper.name.lower() for helper in handler.helpers))}"


def _effects(handler: VerifiedHandler) -> list[str]:
    return [name for name in EXIT_FIELDS if name in handler.effects]


def scratch_names(program: VerifiedProgram, touched: Sequence[ByteRange]) -> list[str]:
    """The fields of the shared area that ranges touch; nothing without BTF."""
    area = program.program.scratch_type
    return [] if area is None else list(field_names(area, touched))


def field_names(area: type[ctypes.Structure], touched: Sequence[ByteRange]) -> Iterator[str]:
    """Names of the members that the ranges overlap, elements of arrays together: `channel[0..=2].count`."""
    yield from (name.removeprefix(".") for name in _names(area, touched, 0))


def _names(kind: Any, touched: Sequence[ByteRange], offset: int) -> Iterator[str]:
    """What to append to the name of something of this type at `offset` to name its parts that are touched."""
    if issubclass(kind, ctypes.Array):
        indices: dict[str, list[int]] = {}
        for index in _elements(kind, touched, offset):
            for rest in _names(kind._type_, touched, offset + index * ctypes.sizeof(kind._type_)):
                indices.setdefault(rest, []).append(index)
        yield from (f"[{_numbers(which)}]{rest}" for rest, which in indices.items())
    elif issubclass(kind, ctypes.Structure):
        for name, member, *_ in getattr(kind, "_fields_", ()):
            start = offset + getattr(kind, name).offset
            end = start + ctypes.sizeof(member)
            padding = name.startswith("_")
            if not padding and any(each.start < end and start < each.end for each in touched):
                yield from (f".{name}{rest}" for rest in _names(member, touched, start))
    else:
        yield ""


def _elements(kind: Any, touched: Sequence[ByteRange], offset: int) -> list[int]:
    """Indices of an array's elements that the ranges overlap, in order."""
    size = ctypes.sizeof(kind._type_)
    found: dict[int, None] = {}
    for each in touched:
        first, end = (each.start - offset) // size, -((offset - each.end) // size)
        found |= dict.fromkeys(range(max(0, first), min(kind._length_, end)))
    return list(found)


def _numbers(numbers: list[int]) -> str:
    """`1`, `0..=2` or `0..=2, 7`."""
    runs: list[list[int]] = []
    for each in numbers:
        if runs and runs[-1][-1] == each - 1:
            runs[-1][1:] = [each]
        else:
            runs.append([each])
    return ", ".join("..=".join(map(str, run)) for run in runs)


def _bytes(touched: ByteRange) -> str:
    if touched.end - touched.start == 1:
        return f"byte {touched.start}"
    return f"bytes {touched.start}..{touched.end}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
