"""Instructions as text, in the C-like syntax that LLVM's tools and the Linux verifier print.

One instruction at a time (`disassemble`), or a whole handler with labels and its source lines between
(`listing`). The text is for people: the assembler (`devbc.isa.asm`) reads another syntax, that of the
public conformance suite, and has its own printer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, assert_never

from devbc.abi import Helper, MapIndex
from devbc.diagnostics import Span
from devbc.isa.insn import Insn
from devbc.isa.opcodes import Kind, Operation, Source, Spec

_ASSIGN: Final = {
    Operation.ADD: "+=", Operation.SUB: "-=", Operation.MUL: "*=", Operation.DIV: "/=",
    Operation.SDIV: "s/=", Operation.MOD: "%=", Operation.SMOD: "s%=", Operation.OR: "|=",
    Operation.AND: "&=", Operation.XOR: "^=", Operation.LSH: "<<=", Operation.RSH: ">>=",
    Operation.ARSH: "s>>=", Operation.MOV: "=",
    Operation.FETCH_ADD: "+=", Operation.FETCH_OR: "|=", Operation.FETCH_AND: "&=",
    Operation.FETCH_XOR: "^=",
}  # fmt: skip
_COMPARE: Final = {
    Operation.JEQ: "==", Operation.JNE: "!=", Operation.JGT: ">", Operation.JGE: ">=",
    Operation.JLT: "<", Operation.JLE: "<=", Operation.JSET: "&", Operation.JSGT: "s>",
    Operation.JSGE: "s>=", Operation.JSLT: "s<", Operation.JSLE: "s<=",
}  # fmt: skip
_REGIONS: Final = {index.value: index.name.lower() for index in MapIndex}
_HELPERS: Final = {helper.value: helper.name.lower() for helper in Helper}


def disassemble(insn: Insn, slot: int = 0, labels: Mapping[int, str] | None = None) -> str:
    """One instruction; a jump or local call shows its target's label, or the distance if it has none."""
    spec = insn.spec
    dst, src = _register(insn.dst, spec.width), _register(insn.src, spec.width)
    operand = src if spec.source is Source.REG else _number(insn.imm)
    match spec.kind:
        case Kind.ALU if spec.operation is Operation.MOVSX:
            return f"{dst} = (s{spec.narrow}){src}"
        case Kind.ALU:
            return f"{dst} {_ASSIGN[spec.operation]} {operand}"
        case Kind.UNARY if spec.operation is Operation.NEG:
            return f"{dst} = -{dst}"
        case Kind.UNARY:
            return f"r{insn.dst} = {spec.name} r{insn.dst}"
        case Kind.LOAD:
            sign = "s" if spec.operation is Operation.LOAD_SX else "u"
            return f"r{insn.dst} = {_memory(spec, insn.src, insn.off, sign)}"
        case Kind.STORE:
            value = f"r{insn.src}" if spec.source is Source.REG else operand
            return f"{_memory(spec, insn.dst, insn.off)} = {value}"
        case Kind.ATOMIC:
            return _atomic(insn)
        case Kind.LDDW:
            return f"r{insn.dst} = {_wide(insn)} ll"
        case Kind.JUMP:
            return f"if {dst} {_COMPARE[spec.operation]} {operand} goto {_target(insn, slot, labels)}"
        case Kind.JA:
            word = "goto" if spec.width == 64 else "gotol"
            return f"{word} {_target(insn, slot, labels)}"
        case Kind.CALL:
            return f"call {_callee(insn, slot, labels)}"
        case Kind.EXIT:
            return "exit"
    assert_never(spec.kind)


def jump_labels(insns: Mapping[int, Insn], functions: Mapping[int, str] | None = None) -> dict[int, str]:
    """A label for each slot that is jumped to or called: its function's name if it has one, else `L7`."""
    targets = {target for slot, insn in insns.items() if (target := insn.target(slot)) is not None}
    return {slot: f"L{slot}" for slot in sorted(targets)} | dict(functions or {})


def listing(
    insns: Mapping[int, Insn],
    *,
    functions: Mapping[int, str] | None = None,
    lines: Mapping[int, Span] | None = None,
) -> str:
    """A whole handler: labels where jumps lead, `; file:line: text` where a source line begins."""
    return "\n".join(_listing_lines(insns, functions or {}, lines or {}))


def _listing_lines(
    insns: Mapping[int, Insn], functions: Mapping[int, str], lines: Mapping[int, Span]
) -> Iterator[str]:
    labels = jump_labels(insns, functions)
    gutter = len(str(max(insns, default=0)))
    shown: tuple[str, int] | None = None
    for slot, insn in sorted(insns.items()):
        if slot in functions and slot:
            yield ""
        if label := labels.get(slot):
            yield f"{label}:"
        # A source line is shown when it is entered, not again for each of its columns.
        if (span := lines.get(slot)) and (span.file, span.line) != shown:
            shown = (span.file, span.line)
            yield f"; {span.file}:{span.line}: {span.text.strip()}".rstrip(": ")
        yield f"  {slot:>{gutter}}: {disassemble(insn, slot, labels)}"


def _register(number: int, width: int) -> str:
    """`w1` is the lower half of `r1`."""
    return f"w{number}" if width == 32 else f"r{number}"


def _number(value: int) -> str:
    """Small numbers in decimal, as people count; large ones in hexadecimal, as bit patterns."""
    return str(value) if abs(value) < 1024 else f"{value:#x}"


def _place(register: int, off: int) -> str:
    return f"r{register} {'-' if off < 0 else '+'} {abs(off)}"


def _memory(spec: Spec, register: int, off: int, sign: str = "u") -> str:
    return f"*({sign}{spec.width} *)({_place(register, off)})"


def _atomic(insn: Insn) -> str:
    spec = insn.spec
    place, src = _place(insn.dst, insn.off), _register(insn.src, spec.width)
    form = "_64" if spec.width == 64 else "32_32"
    match spec.operation:
        case Operation.XCHG:
            return f"{src} = xchg{form}({place}, {src})"
        case Operation.CMPXCHG:
            r0 = _register(0, spec.width)
            return f"{r0} = cmpxchg{form}({place}, {r0}, {src})"
    if spec.fetch:
        return f"{src} = atomic_{spec.operation}((u{spec.width} *)({place}), {src})"
    return f"lock {_memory(spec, insn.dst, insn.off)} {_ASSIGN[spec.operation]} {src}"


def _wide(insn: Insn) -> str:
    """The value of a `lddw`: a number, a place in a region of the machine, or what it names elsewhere."""
    match insn.spec.operation:
        case Operation.IMM64:
            return f"{insn.imm:#x}"
        case Operation.MAP_VALUE_BY_IDX if region := _REGIONS.get(insn.map_index):
            return f"{region} + {insn.map_offset:#x}"
        case Operation.MAP_VALUE_BY_IDX | Operation.MAP_VALUE_BY_FD as operation:
            return f"{operation}({insn.map_index}) + {insn.map_offset:#x}"
    return f"{insn.spec.operation}({insn.imm:#x})"


def _target(insn: Insn, slot: int, labels: Mapping[int, str] | None) -> str:
    target = insn.target(slot)
    assert target is not None, f"{insn.spec.name} has no target"
    return (labels or {}).get(target) or f"{target - slot - 1:+d}"


def _callee(insn: Insn, slot: int, labels: Mapping[int, str] | None) -> str:
    match insn.spec.operation:
        case Operation.CALL_LOCAL:
            return _target(insn, slot, labels)
        case Operation.CALL_HELPER:
            return _HELPERS.get(insn.imm) or str(insn.imm)
    return f"btf {insn.imm}"
