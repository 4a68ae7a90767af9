"""One instruction as a value, and its encoding in 64-bit slots (RFC 9669 section 3)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from devbc.diagnostics import Code, Diagnostic, Rejected, Span
from devbc.isa import errors
from devbc.isa.opcodes import BY_OPCODE, FRAME_POINTER, REGISTERS, Kind, Operation, Spec

_SLOT = struct.Struct("<BBhi")
#: The one opcode that takes two slots.
_LDDW: Final = 0x18
_WRITES_DST: Final = frozenset({Kind.ALU, Kind.UNARY, Kind.LOAD, Kind.LDDW})


@dataclass(frozen=True, slots=True)
class Insn:
    """An instruction: its form and its operands.

    `off` and `imm` are signed. `imm` has 32 bits, except for `lddw`: there it is the unsigned 64-bit
    constant, its lower half the first slot's imm and its upper half the second's.
    """

    spec: Spec
    dst: int = 0
    src: int = 0
    off: int = 0
    imm: int = 0

    @property
    def map_index(self) -> int:
        """The map that a `lddw` of a map's address names."""
        return self.imm & 0xFFFFFFFF

    @property
    def map_offset(self) -> int:
        """The byte offset that a `lddw` of a map value's address adds."""
        return self.imm >> 32

    def target(self, slot: int) -> int | None:
        """The slot that a jump or local call at `slot` goes to, or None for other instructions."""
        spec = self.spec
        if spec.kind is Kind.JUMP:
            return slot + 1 + self.off
        if spec.kind is Kind.JA:
            return slot + 1 + (self.off if spec.width == 64 else self.imm)
        return slot + 1 + self.imm if spec.operation is Operation.CALL_LOCAL else None


def encode(insns: Iterable[Insn]) -> bytes:
    """The byte code of the instructions, 8 bytes a slot."""
    out = bytearray()
    for insn in insns:
        spec = insn.spec
        registers = insn.src << 4 | insn.dst
        if spec.kind is Kind.LDDW:
            low, high = _signed32(insn.imm), _signed32(insn.imm >> 32)
            out += _SLOT.pack(spec.opcode, registers, insn.off, low) + _SLOT.pack(0, 0, 0, high)
        else:
            out += _SLOT.pack(spec.opcode, registers, insn.off, insn.imm)
    return bytes(out)


def decode(code: bytes, *, name: str = "code") -> dict[int, Insn]:
    """The instructions of `code` by slot; the second slot of a `lddw` has no entry.

    Raises Rejected with every malformed instruction, each at the span `name:slot`.
    """
    if not code or len(code) % 8:
        message = "there are no instructions" if not code else f"{len(code)} bytes are not whole instructions"
        raise Rejected(Diagnostic(errors.TRUNCATED, message, Span(name)))
    insns: dict[int, Insn] = {}
    faults: list[Diagnostic] = []
    slot, slots = 0, len(code) // 8
    while slot < slots:
        wide = 2 if code[8 * slot] == _LDDW else 1
        decoded = _decoded(code[8 * slot : 8 * (slot + wide)])
        if isinstance(decoded, Insn):
            insns[slot] = decoded
        else:
            fault, message = decoded
            span = Span(name, slot, text=code[8 * slot : 8 * slot + 8].hex(" "))
            faults.append(Diagnostic(fault, message, span))
        slot += wide
    if faults:
        raise Rejected(*faults)
    return insns


@lru_cache(maxsize=1 << 14)
def _decoded(raw: bytes) -> Insn | tuple[Code, str]:
    """Of one instruction's bytes. Programs repeat themselves, and several stages decode them."""
    opcode, registers, off, imm = _SLOT.unpack_from(raw)
    dst, src = registers & 15, registers >> 4
    forms = BY_OPCODE.get(opcode)
    if forms is None:
        return errors.UNKNOWN_OPCODE, f"there is no opcode {opcode:#04x}"
    fields = {"dst": dst, "src": src, "off": off, "imm": imm}
    spec = next((form for form in forms if not _mismatch(form, fields)), None)
    if spec is None:
        return errors.RESERVED_FIELD, _why_no_form(forms, fields)
    if bad := [reg for reg in (dst, src) if reg >= REGISTERS]:
        return errors.BAD_REGISTER, f"there is no register r{bad[0]}"
    if FRAME_POINTER in written_registers(spec, dst, src):
        return errors.BAD_REGISTER, "r10, the frame pointer, cannot be written"
    if spec.kind is not Kind.LDDW:
        return Insn(spec, dst, src, off, imm)
    if len(raw) < 16:
        return errors.TRUNCATED, "`lddw` lacks its second half"
    opcode2, registers2, off2, imm2 = _SLOT.unpack_from(raw, 8)
    if opcode2 or registers2 or off2:
        return errors.BAD_LDDW, "the second half of `lddw` holds more than an immediate"
    return Insn(spec, dst, src, off, (imm & 0xFFFFFFFF) | (imm2 & 0xFFFFFFFF) << 32)


def written_registers(spec: Spec, dst: int, src: int) -> tuple[int, ...]:
    """The registers that an instruction assigns (a call's clobbers of r1 to r5 not counted)."""
    if spec.kind in _WRITES_DST:
        return (dst,)
    match spec.kind:
        case Kind.ATOMIC if spec.fetch:
            return (0,) if spec.operation is Operation.CMPXCHG else (src,)
        case Kind.CALL:
            return (0,)
    return ()


def _mismatch(spec: Spec, fields: dict[str, int]) -> list[str]:
    fixed = {"dst": spec.dst, "src": spec.src, "off": spec.off, "imm": spec.imm}
    return [name for name, value in fixed.items() if value is not None and fields[name] != value]


def _why_no_form(forms: tuple[Spec, ...], fields: dict[str, int]) -> str:
    nearest = min(forms, key=lambda form: len(_mismatch(form, fields)))
    name = _mismatch(nearest, fields)[0]
    wants = sorted({getattr(form, name) for form in forms if getattr(form, name) is not None})
    values = " or ".join(str(value) for value in wants) if len(wants) < 8 else "a defined value"
    return f"field `{name}` of `{nearest.name}` is {fields[name]}, and must be {values}"


def _signed32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value
