"""The assembler, and its inverse, for the syntax of the public BPF conformance suite.

    again:                          # a label
    lddw %r0, 0x1122334455667788
    ldxw %r1, [%r10-8]
    lock fetch add32 [%r10-8], %r1
    jlt %r0, 10, again              # to a label, or by a distance: +3
    call ktime_get_ns               # or: call 5, call local again, call runtime 7
    exit

The mnemonics come from the opcode table, so that every form of it can be written and printed. The suite's
own assembler stops at numbers; the other forms of `lddw` are written `lddw %r1, map_value_by_idx 0, 0x10`,
with the two halves of the immediate. Whether the program makes sense is not asked here: a store through an
uninitialised register assembles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from devbc.abi import Helper
from devbc.diagnostics import Code, Diagnostic, Rejected, Span, did_you_mean, reject
from devbc.isa import errors
from devbc.isa.insn import Insn, written_registers
from devbc.isa.opcodes import FRAME_POINTER, REGISTERS, SPECS, Kind, Operation, Source, Spec

_DIGITS: Final = r"(?:0[xX][0-9a-fA-F]+|[0-9]+)"
_NUMBER: Final = re.compile(rf"[+-]?{_DIGITS}")
_NAME: Final = re.compile(r"[A-Za-z_.][A-Za-z0-9_.]*")
_REGISTER: Final = re.compile(r"%r([0-9]{1,9})")
_MEMORY: Final = re.compile(rf"\[\s*(?P<register>%r[0-9]+)\s*(?P<off>[+-]\s*{_DIGITS})?\s*\]")
_LABEL_LINE: Final = re.compile(rf"\s*(?P<label>{_NAME.pattern})\s*:\s*")
_MNEMONIC: Final = re.compile(r"lock\b(?:\s+fetch\b)?(?:\s+[A-Za-z0-9_]+)?|\S+")
#: Characters of the longest number that might fit a field, with room for leading zeros.
_LONGEST_NUMBER: Final = 64

#: Other spellings that the suite uses.
_ALIASES: Final = {f"swap{width}": f"bswap{width}" for width in (16, 32, 64)}
_CALL_MODES: Final = {
    "helper": SPECS["call"],
    "local": SPECS["call_local"],
    "runtime": SPECS["call_btf"],
}
_HELPERS: Final = {helper.name.lower(): helper for helper in Helper}


def mnemonic(spec: Spec) -> str:
    """The word or words that begin an instruction of this form."""
    match spec.kind:
        case Kind.ATOMIC:
            name = spec.name.removeprefix("atomic_").replace("fetch_", "fetch ")
            return f"lock {name}"
        case Kind.LDDW:
            return "lddw"
        case Kind.CALL:
            return "call"
    return spec.name.removesuffix("_imm").removesuffix("_reg")


def _forms() -> dict[str, tuple[Spec, ...]]:
    table: dict[str, tuple[Spec, ...]] = {}
    for spec in SPECS.values():
        table[mnemonic(spec)] = (*table.get(mnemonic(spec), ()), spec)
    return table


#: The forms that share a mnemonic; their operands tell them apart.
FORMS: Final = _forms()


@dataclass(frozen=True, slots=True)
class _Operand:
    text: str
    span: Span


@dataclass(frozen=True, slots=True)
class _Statement:
    """One line: its mnemonic (all words of `lock fetch add`), and its operands."""

    mnemonic: str
    span: Span
    operands: tuple[_Operand, ...]


@dataclass(frozen=True, slots=True)
class _Jump:
    """A jump or local call whose target is a label, to be resolved when all labels are known."""

    index: int
    slot: int
    label: _Operand


def assemble(text: str, *, name: str = "asm") -> list[Insn]:
    """The instructions that the text describes. Raises Rejected with every fault, each at its place."""
    insns: list[Insn] = []
    jumps: list[_Jump] = []
    labels: dict[str, int] = {}
    first_exit: int | None = None
    faults: list[Diagnostic] = []
    slot = 0
    for number, line in enumerate(text.splitlines(), 1):
        source = line.split("#", 1)[0]
        if not source.strip():
            continue
        try:
            if found := _LABEL_LINE.fullmatch(source):
                _define(labels, found["label"], slot, _span(name, number, line, *found.span("label")))
                continue
            statement = _statement(source, line, name, number)
            insn, label = _instruction(statement)
        except Rejected as rejected:
            faults += rejected.diagnostics
            continue
        if label:
            jumps.append(_Jump(len(insns), slot, label))
        if insn.spec.kind is Kind.EXIT and first_exit is None:
            first_exit = slot
        insns.append(insn)
        slot += insn.spec.slots
    if not insns and not faults:
        raise reject(errors.ASM_SYNTAX, "there are no instructions", Span(name))
    if first_exit is not None:
        labels.setdefault("exit", first_exit)
    for jump in jumps:
        try:
            insns[jump.index] = _resolved(insns[jump.index], jump, labels)
        except Rejected as rejected:
            faults += rejected.diagnostics
    if faults:
        raise Rejected(*faults)
    return insns


def to_asm(insn: Insn) -> str:
    """The line that assembles to this instruction; jumps are written as distances."""
    spec, word = insn.spec, mnemonic(insn.spec)
    operand = f"%r{insn.src}" if spec.source is Source.REG else str(insn.imm)
    match spec.kind:
        case Kind.ALU:
            return f"{word} %r{insn.dst}, {operand}"
        case Kind.UNARY:
            return f"{word} %r{insn.dst}"
        case Kind.LOAD:
            return f"{word} %r{insn.dst}, [%r{insn.src}{insn.off:+d}]"
        case Kind.STORE | Kind.ATOMIC:
            return f"{word} [%r{insn.dst}{insn.off:+d}], {operand}"
        case Kind.LDDW if spec.operation is Operation.IMM64:
            return f"{word} %r{insn.dst}, {insn.imm:#x}"
        case Kind.LDDW:
            return f"{word} %r{insn.dst}, {spec.operation} {insn.imm & 0xFFFFFFFF:#x}, {insn.imm >> 32:#x}"
        case Kind.JUMP:
            return f"{word} %r{insn.dst}, {operand}, {insn.off:+d}"
        case Kind.JA:
            return f"{word} {insn.off if spec.width == 64 else insn.imm:+d}"
        case Kind.CALL:
            mode = next(mode for mode, each in _CALL_MODES.items() if each is spec)
            return f"{word} {mode} {insn.imm:+d}"
        case Kind.EXIT:
            return word


def _statement(source: str, line: str, name: str, number: int) -> _Statement:
    """statement = mnemonic [operand {"," operand}]; `lock` takes one or two words more."""
    start = len(source) - len(source.lstrip())
    words = _MNEMONIC.match(source, start)
    assert words is not None, "the line is not blank"
    end = words.end()
    span = _span(name, number, line, start, end)
    operands: list[_Operand] = []
    if source[end:].strip():
        column = end
        for part in source[end:].split(","):
            lead = len(part) - len(part.lstrip())
            at = _span(name, number, line, column + lead, column + lead + len(part.strip()))
            if not part.strip():
                raise reject(errors.ASM_SYNTAX, "there is an operand missing beside this comma", at)
            operands.append(_Operand(part.strip(), at))
            column += len(part) + 1
    word = " ".join(words[0].split())
    return _Statement(_ALIASES.get(word, word), span, tuple(operands))


def _instruction(statement: _Statement) -> tuple[Insn, _Operand | None]:
    """The instruction of a statement, and the label that it jumps to, if it names one."""
    forms = FORMS.get(statement.mnemonic)
    if forms is None:
        raise _unknown_mnemonic(statement)
    operands = statement.operands
    label: _Operand | None = None
    match forms[0].kind:
        case Kind.ALU:
            _expect(statement, 2, "a register and a value")
            spec, src, imm = _value(forms, operands[1])
            insn = _insn(spec, dst=_register(operands[0]), src=src, imm=imm)
        case Kind.JUMP:
            _expect(statement, 3, "a register, a value and a target")
            spec, src, imm = _value(forms, operands[1])
            insn, label = _aim(_insn(spec, dst=_register(operands[0]), src=src, imm=imm), operands[2])
        case Kind.UNARY:
            _expect(statement, 1, "a register")
            insn = _insn(forms[0], dst=_register(operands[0]))
        case Kind.LOAD:
            _expect(statement, 2, "a register and memory")
            base, off = _memory(operands[1])
            insn = _insn(forms[0], dst=_register(operands[0]), src=base, off=off)
        case Kind.STORE:
            _expect(statement, 2, "memory and a value")
            base, off = _memory(operands[0])
            spec, src, imm = _value(forms, operands[1])
            insn = _insn(spec, dst=base, src=src, off=off, imm=imm)
        case Kind.ATOMIC:
            _expect(statement, 2, "memory and a register", code=errors.ASM_LOCK)
            base, off = _memory(operands[0])
            insn = _insn(forms[0], dst=base, src=_register(operands[1]), off=off)
        case Kind.LDDW:
            insn = _wide(statement)
        case Kind.JA:
            _expect(statement, 1, "a target")
            insn, label = _aim(_insn(forms[0]), operands[0])
        case Kind.CALL:
            _expect(statement, 1, "a function")
            insn, label = _call(operands[0])
        case Kind.EXIT:
            _expect(statement, 0, "nothing")
            insn = _insn(forms[0])
    if FRAME_POINTER in written_registers(insn.spec, insn.dst, insn.src):
        raise reject(errors.BAD_REGISTER, "r10, the frame pointer, cannot be written", statement.span)
    return insn, label


def _insn(spec: Spec, *, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> Insn:
    """An instruction of a form: its operands, and the form's own values in the other fields."""
    return Insn(
        spec,
        dst if spec.dst is None else spec.dst,
        src if spec.src is None else spec.src,
        off if spec.off is None else spec.off,
        imm if spec.imm is None else spec.imm,
    )


def _expect(statement: _Statement, count: int, what: str, *, code: Code = errors.ASM_OPERANDS) -> None:
    found = len(statement.operands)
    if found != count:
        message = f"`{statement.mnemonic}` takes {_plural(count)}, and has {found or 'none'}"
        raise reject(code, message, statement.span, label=f"takes {what}")


def _plural(count: int) -> str:
    return "no operands" if count == 0 else "1 operand" if count == 1 else f"{count} operands"


def _unknown_mnemonic(statement: _Statement) -> Rejected:
    word, span = statement.mnemonic, statement.span
    if word in ("lock", "lock fetch"):
        example = f"for example `{word} add [%r10-8], %r1`"
        return reject(errors.ASM_LOCK, f"`{word}` lacks its operation", span, help=[example])
    if word.startswith("lock "):
        lock, _, operation = word.rpartition(" ")
        atomics = [each for each in FORMS if each.startswith("lock ")]
        message = f"`{operation}` is not an operation of `{lock}`"
        return reject(errors.ASM_LOCK, message, span, help=did_you_mean(word, atomics))
    return reject(
        errors.ASM_MNEMONIC, f"there is no instruction `{word}`", span, help=did_you_mean(word, FORMS)
    )


def _register(operand: _Operand) -> int:
    found = _REGISTER.fullmatch(operand.text)
    if not found:
        hint = [f"registers are written `%{operand.text}`"] if re.fullmatch(r"r[0-9]+", operand.text) else []
        message = f"`{operand.text}` is not a register"
        raise reject(errors.ASM_OPERANDS, message, operand.span, help=hint)
    if int(found[1]) >= REGISTERS:
        raise reject(errors.BAD_REGISTER, f"there is no register r{found[1]}", operand.span,
                     notes=["registers are r0 to r10"])  # fmt: skip
    return int(found[1])


def _memory(operand: _Operand) -> tuple[int, int]:
    found = _MEMORY.fullmatch(operand.text)
    if not found:
        raise reject(errors.ASM_OPERANDS, f"`{operand.text}` is not a place in memory", operand.span,
                     help=["memory is written `[%r1+8]`"])  # fmt: skip
    register = _register(replace(operand, text=found["register"]))
    off = "".join((found["off"] or "0").split())
    return register, _number(replace(operand, text=off), 16, "an offset")


def _value(forms: tuple[Spec, ...], operand: _Operand) -> tuple[Spec, int, int]:
    """The second operand: the form that takes it, its register and its immediate."""
    source = Source.REG if operand.text.startswith("%") else Source.IMM
    spec = next((form for form in forms if form.source is source), None)
    if spec is None:
        other = "a register" if source is Source.IMM else "a number"
        message = f"`{mnemonic(forms[0])}` takes {other}, and not `{operand.text}`"
        raise reject(errors.ASM_OPERANDS, message, operand.span)
    if source is Source.REG:
        return spec, _register(operand), 0
    return spec, 0, _number(operand, 32, "an immediate", pattern=True)


def _integer(operand: _Operand) -> int:
    """The number that an operand spells, of any size that a field could have."""
    if not _NUMBER.fullmatch(operand.text):
        raise reject(errors.ASM_OPERANDS, f"`{operand.text}` is not a number", operand.span)
    if len(operand.text) > _LONGEST_NUMBER:
        raise reject(errors.ASM_RANGE, "this number does not fit in 64 bits", operand.span)
    return int(operand.text, 16 if _is_hexadecimal(operand) else 10)


def _is_hexadecimal(operand: _Operand) -> bool:
    return "x" in operand.text.lower()


def _number(operand: _Operand, bits: int, what: str, *, pattern: bool = False) -> int:
    """A signed number of `bits` bits; with `pattern`, hexadecimal digits may also give the bits."""
    value = _integer(operand)
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    if pattern and _is_hexadecimal(operand) and high < value < 1 << bits:
        return value - (1 << bits)
    if low <= value <= high:
        return value
    also = f", or 0 to {(1 << bits) - 1:#x} in hexadecimal" if pattern else ""
    raise reject(errors.ASM_RANGE, f"{operand.text} does not fit {what}", operand.span,
                 notes=[f"{what} has {bits} bits: {low} to {high}{also}"])  # fmt: skip


def _wide(statement: _Statement) -> Insn:
    """lddw = register "," (number | source half ["," half]), the halves of the immediate, lower first."""
    operands = statement.operands
    name, _, low = operands[1].text.partition(" ") if len(operands) > 1 else ("", "", "")
    if not low:
        _expect(statement, 2, "a register and a number of 64 bits")
        value = _integer(operands[1])
        # Unsigned in decimal too: there is no narrower reading that a large number could be mistaken for.
        if not -(1 << 63) <= value < 1 << 64:
            raise reject(errors.ASM_RANGE, f"{operands[1].text} does not fit in 64 bits", operands[1].span)
        return _insn(SPECS["lddw_imm64"], dst=_register(operands[0]), imm=value & (1 << 64) - 1)
    spec = SPECS.get(f"lddw_{name}")
    if spec is None:
        names = [each.operation for each in FORMS["lddw"]]
        message = f"`{name}` is not a source of `lddw`"
        raise reject(errors.ASM_OPERANDS, message, operands[1].span, help=did_you_mean(name, names))
    if len(operands) == 2:
        operands = (*operands, replace(operands[1], text="0"))
    _expect(replace(statement, operands=operands), 3, "a register, a source, and perhaps an upper half")
    halves = (replace(operands[1], text=low.strip()), operands[2])
    lower, upper = (_number(half, 32, "half of an immediate", pattern=True) & 0xFFFFFFFF for half in halves)
    return _insn(spec, dst=_register(operands[0]), imm=lower | upper << 32)


def _aim(insn: Insn, operand: _Operand) -> tuple[Insn, _Operand | None]:
    """A jump with its distance set, or with the label that is to set it."""
    if _NAME.fullmatch(operand.text):
        return insn, operand
    return _with_distance(insn, operand), None


def _with_distance(insn: Insn, distance: _Operand) -> Insn:
    if insn.spec.off is None:
        return replace(insn, off=_number(distance, 16, "the distance"))
    return replace(insn, imm=_number(distance, 32, "the distance"))


def _call(operand: _Operand) -> tuple[Insn, _Operand | None]:
    """call = [`helper` | `local` | `runtime`] (number | name); a helper unless it says otherwise."""
    words = operand.text.split()
    mode, function = (words[0], words[1]) if len(words) == 2 else ("helper", operand.text)
    target = replace(operand, text=function)
    if mode not in _CALL_MODES:
        message = f"`{mode}` is not a kind of call"
        raise reject(errors.ASM_OPERANDS, message, operand.span, help=did_you_mean(mode, _CALL_MODES))
    insn = _insn(_CALL_MODES[mode])
    if function.startswith("%"):
        raise reject(errors.ASM_OPERANDS, "there is no call by register", operand.span,
                     notes=["RFC 9669 has calls of helpers, of local functions and by BTF id"])  # fmt: skip
    if mode == "local":
        return _aim(insn, target)
    if mode == "helper" and function in _HELPERS:
        return replace(insn, imm=_HELPERS[function].value), None
    if mode == "helper" and _NAME.fullmatch(function):
        raise reject(errors.ASM_OPERANDS, f"there is no helper `{function}`", operand.span,
                     help=did_you_mean(function, _HELPERS))  # fmt: skip
    return replace(insn, imm=_number(target, 32, "a function's number", pattern=True)), None


def _define(labels: dict[str, int], label: str, slot: int, span: Span) -> None:
    if label in labels:
        raise reject(errors.ASM_LABEL, f"label `{label}` is defined twice", span)
    labels[label] = slot


def _resolved(insn: Insn, jump: _Jump, labels: dict[str, int]) -> Insn:
    label = jump.label
    if label.text not in labels:
        raise reject(errors.ASM_LABEL, f"there is no label `{label.text}`", label.span,
                     help=did_you_mean(label.text, labels))  # fmt: skip
    distance = labels[label.text] - jump.slot - 1
    return _with_distance(insn, replace(label, text=str(distance)))


def _span(name: str, number: int, line: str, start: int, end: int) -> Span:
    return Span(name, number, start + 1, end + 1, line)
