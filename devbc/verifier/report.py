"""What the verifier has proven of a program, as data for `--json` and as text for people.

Ranges of the shared area are named by the program's own fields where its BTF describes them; the functions
that name bytes take any `ctypes.Structure`. Nothing is decided here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
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
            {"start": each.start, "end": each.end, "fields": scratch_names(program, each)} for each in touched
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
            names = dict.fromkeys(name for each in ranges for name in scratch_names(program, each))
            yield f"    {verb:<8} " + (", ".join(names) or ", ".join(_bytes(each) for each in ranges))
    if handler.effects:
        yield f"    effects  {', '.join(_effects(handler))}"
    if handler.helpers:
        yield f"    calls    {', '.join(sorted(helper.name.lower() for helper in handler.helpers))}"


def _effects(handler: VerifiedHandler) -> list[str]:
    return [name for name in EXIT_FIELDS if name in handler.effects]


def scratch_names(program: VerifiedProgram, touched: ByteRange) -> list[str]:
    """The fields of the shared area that a range touches; nothing without BTF."""
    area = program.program.scratch_type
    return [] if area is None else list(field_names(area, touched.start, touched.end))


def field_names(area: type[ctypes.Structure], start: int, end: int, base: int = 0) -> Iterator[str]:
    """Names of the members that overlap bytes `start` up to `end`, arrays shown whole as `name[..]`.

    An array that the range only touches one element of is named by that element.
    """
    for name, member, *_ in getattr(area, "_fields_", ()):
        if name.startswith("_"):
            continue  # padding
        offset = base + getattr(area, name).offset
        if start < offset + ctypes.sizeof(member) and offset < end:
            yield from _member_names(name, member, start, end, offset)


def _member_names(name: str, member: Any, start: int, end: int, offset: int) -> Iterator[str]:
    if issubclass(member, ctypes.Array):
        element = member._type_
        size = ctypes.sizeof(element)
        first, last = max(0, (start - offset) // size), min(member._length_, -((offset - end) // size)) - 1
        if first == last:
            yield from _member_names(f"{name}[{first}]", element, start, end, offset + first * size)
        elif issubclass(element, ctypes.Structure):
            # Every field that the range touches in any of the elements.
            seen: dict[str, None] = {}
            for index in range(first, last + 1):
                place = offset + index * size
                seen |= dict.fromkeys(field_names(element, start, end, place))
            yield from (f"{name}[{first}..={last}].{each}" for each in seen)
        else:
            yield f"{name}[{first}..={last}]"
    elif issubclass(member, ctypes.Structure):
        yield from (f"{name}.{each}" for each in field_names(member, start, end, offset))
    else:
        yield name


def _bytes(touched: ByteRange) -> str:
    if touched.end - touched.start == 1:
        return f"byte {touched.start}"
    return f"bytes {touched.start}..{touched.end}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
