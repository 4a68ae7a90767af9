"""The opcode table: every instruction form of RFC 9669 (cpu v4), one row each, and nothing about its meaning.

A row names the opcode byte and, for each of the fields dst, src, off and imm, whether it is an operand or
must hold one value (0 for reserved fields). Where one opcode byte serves several instructions (signed
division is division with off = 1; an atomic's imm says which), each is a row. Decoder, encoder, assembler,
disassembler, shape checks and test strategies read this table; `devbc.semantics` says what the rows mean.

Left out, as RFC 9669 section 5.5 allows: legacy packet access, and `callx` (call by register), which is not
in the RFC.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final


class Class(IntEnum):
    """Low three bits of the opcode (section 3.1)."""

    LD = 0
    LDX = 1
    ST = 2
    STX = 3
    ALU = 4
    JMP = 5
    JMP32 = 6
    ALU64 = 7


class Kind(StrEnum):
    """What an instruction does to the machine; decides the shape of its operands."""

    ALU = "alu"  # dst = dst OP src
    UNARY = "unary"  # dst = OP dst
    LOAD = "load"  # dst = *(src + off)
    STORE = "store"  # *(dst + off) = src or imm
    ATOMIC = "atomic"  # *(dst + off) OP= src, perhaps with the old value fetched
    LDDW = "lddw"  # dst = imm64, or an address
    JUMP = "jump"  # if dst OP src goto +off
    JA = "ja"  # goto +off or +imm
    CALL = "call"  # helper or local function
    EXIT = "exit"


class Operation(StrEnum):
    """What is computed, apart from widths and operand forms."""

    ADD = "add"
    SUB = "sub"
    MUL = "mul"
    DIV = "div"
    SDIV = "sdiv"
    MOD = "mod"
    SMOD = "smod"
    OR = "or"
    AND = "and"
    XOR = "xor"
    LSH = "lsh"
    RSH = "rsh"
    ARSH = "arsh"
    MOV = "mov"
    MOVSX = "movsx"
    NEG = "neg"
    TO_LE = "le"
    TO_BE = "be"
    BSWAP = "bswap"
    LOAD = "ldx"
    LOAD_SX = "ldxs"
    STORE = "st"
    FETCH_ADD = "fetch_add"
    FETCH_OR = "fetch_or"
    FETCH_AND = "fetch_and"
    FETCH_XOR = "fetch_xor"
    XCHG = "xchg"
    CMPXCHG = "cmpxchg"
    IMM64 = "imm64"
    MAP_BY_FD = "map_by_fd"
    MAP_VALUE_BY_FD = "map_value_by_fd"
    VAR_ADDR = "var_addr"
    CODE_ADDR = "code_addr"
    MAP_BY_IDX = "map_by_idx"
    MAP_VALUE_BY_IDX = "map_value_by_idx"
    JA = "ja"
    JEQ = "jeq"
    JNE = "jne"
    JGT = "jgt"
    JGE = "jge"
    JLT = "jlt"
    JLE = "jle"
    JSET = "jset"
    JSGT = "jsgt"
    JSGE = "jsge"
    JSLT = "jslt"
    JSLE = "jsle"
    CALL_HELPER = "call_helper"
    CALL_LOCAL = "call_local"
    CALL_BTF = "call_btf"
    EXIT = "exit"


class Source(StrEnum):
    """Where the second operand comes from."""

    IMM = "imm"
    REG = "reg"
    NONE = "none"


@dataclass(frozen=True, slots=True, eq=False)
class Spec:
    """One instruction form: a row of the table, equal to itself alone. A field is an operand (None) or must
    hold the value given.

    `width`: bits computed on (ALU, jumps: 64 or 32), bits of memory accessed (loads, stores, atomics),
    bits kept or swapped (byte order), 64 otherwise. `narrow`: bits that `movsx` extends from.
    `fetch`: an atomic that returns the old value in src (cmpxchg: in r0). `slots`: 64-bit slots that it takes
    in the byte code, two for `lddw`, otherwise one.
    """

    name: str
    opcode: int
    kind: Kind
    operation: Operation
    width: int
    source: Source
    dst: int | None
    src: int | None
    off: int | None
    imm: int | None
    narrow: int = 0
    fetch: bool = False
    slots: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "slots", 2 if self.kind is Kind.LDDW else 1)

    @property
    def bytes(self) -> int:
        """Bytes of memory it accesses (loads, stores, atomics)."""
        return self.width // 8


REGISTERS: Final = 11
FRAME_POINTER: Final = 10

_ALU_CODES = {
    0x00: Operation.ADD, 0x10: Operation.SUB, 0x20: Operation.MUL, 0x30: Operation.DIV,
    0x40: Operation.OR, 0x50: Operation.AND, 0x60: Operation.LSH, 0x70: Operation.RSH,
    0x90: Operation.MOD, 0xA0: Operation.XOR, 0xB0: Operation.MOV, 0xC0: Operation.ARSH,
}  # fmt: skip
_SIGNED = {Operation.DIV: Operation.SDIV, Operation.MOD: Operation.SMOD}
_JUMP_CODES = {
    0x10: Operation.JEQ, 0x20: Operation.JGT, 0x30: Operation.JGE, 0x40: Operation.JSET,
    0x50: Operation.JNE, 0x60: Operation.JSGT, 0x70: Operation.JSGE, 0xA0: Operation.JLT,
    0xB0: Operation.JLE, 0xC0: Operation.JSLT, 0xD0: Operation.JSLE,
}  # fmt: skip
_SIZES = {"b": (0x10, 8), "h": (0x08, 16), "w": (0x00, 32), "dw": (0x18, 64)}
_ATOMICS = {
    0x00: (Operation.FETCH_ADD, "add"), 0x40: (Operation.FETCH_OR, "or"),
    0x50: (Operation.FETCH_AND, "and"), 0xA0: (Operation.FETCH_XOR, "xor"),
}  # fmt: skip
_LDDW = [
    Operation.IMM64, Operation.MAP_BY_FD, Operation.MAP_VALUE_BY_FD, Operation.VAR_ADDR,
    Operation.CODE_ADDR, Operation.MAP_BY_IDX, Operation.MAP_VALUE_BY_IDX,
]  # fmt: skip


def _alu() -> Iterator[Spec]:
    for cls, width, suffix in ((Class.ALU64, 64, ""), (Class.ALU, 32, "32")):
        for code, operation in _ALU_CODES.items():
            for signed in (False, True) if operation in _SIGNED else (False,):
                op = _SIGNED[operation] if signed else operation
                off = 1 if signed else 0
                name = f"{op}{suffix}"
                yield Spec(f"{name}_imm", cls | code, Kind.ALU, op, width, Source.IMM, None, 0, off, None)
                yield Spec(f"{name}_reg", cls | code | 8, Kind.ALU, op, width, Source.REG, None, None, off, 0)
        for narrow in (8, 16, 32):
            if narrow < width:
                name = f"movsx{narrow}{width}"
                yield Spec(name, cls | 0xB8, Kind.ALU, Operation.MOVSX, width, Source.REG,
                           None, None, narrow, 0, narrow=narrow)  # fmt: skip
        yield Spec(f"neg{suffix}", cls | 0x80, Kind.UNARY, Operation.NEG, width, Source.NONE, None, 0, 0, 0)
    for width in (16, 32, 64):
        for opcode, op in ((0xD4, Operation.TO_LE), (0xDC, Operation.TO_BE), (0xD7, Operation.BSWAP)):
            yield Spec(f"{op}{width}", opcode, Kind.UNARY, op, width, Source.NONE, None, 0, 0, width)


def _memory() -> Iterator[Spec]:
    for letter, (code, width) in _SIZES.items():
        yield Spec(f"ldx{letter}", Class.LDX | 0x60 | code, Kind.LOAD, Operation.LOAD, width, Source.REG,
                   None, None, None, 0)  # fmt: skip
        if width < 64:
            yield Spec(f"ldxs{letter}", Class.LDX | 0x80 | code, Kind.LOAD, Operation.LOAD_SX, width,
                       Source.REG, None, None, None, 0)  # fmt: skip
        yield Spec(f"st{letter}", Class.ST | 0x60 | code, Kind.STORE, Operation.STORE, width, Source.IMM,
                   None, 0, None, None)  # fmt: skip
        yield Spec(f"stx{letter}", Class.STX | 0x60 | code, Kind.STORE, Operation.STORE, width, Source.REG,
                   None, None, None, 0)  # fmt: skip
    for suffix, code, width in (("", 0x18, 64), ("32", 0x00, 32)):
        opcode = Class.STX | 0xC0 | code

        def atomic(
            name: str, op: Operation, imm: int, fetch: bool, *, opcode: int = opcode, width: int = width
        ) -> Spec:
            return Spec(name, opcode, Kind.ATOMIC, op, width, Source.REG, None, None, None, imm, fetch=fetch)

        for imm, (op, name) in _ATOMICS.items():
            yield atomic(f"atomic_{name}{suffix}", op, imm, False)
            yield atomic(f"atomic_fetch_{name}{suffix}", op, imm | 1, True)
        yield atomic(f"atomic_xchg{suffix}", Operation.XCHG, 0xE1, True)
        yield atomic(f"atomic_cmpxchg{suffix}", Operation.CMPXCHG, 0xF1, True)
    for src, op in enumerate(_LDDW):
        yield Spec(f"lddw_{op}", 0x18, Kind.LDDW, op, 64, Source.IMM, None, src, 0, None)


def _control() -> Iterator[Spec]:
    for cls, width, suffix in ((Class.JMP, 64, ""), (Class.JMP32, 32, "32")):
        for code, op in _JUMP_CODES.items():
            name = f"{op}{suffix}"
            yield Spec(f"{name}_imm", cls | code, Kind.JUMP, op, width, Source.IMM, None, 0, None, None)
            yield Spec(f"{name}_reg", cls | code | 8, Kind.JUMP, op, width, Source.REG, None, None, None, 0)
    yield Spec("ja", 0x05, Kind.JA, Operation.JA, 64, Source.NONE, 0, 0, None, 0)
    yield Spec("ja32", 0x06, Kind.JA, Operation.JA, 32, Source.NONE, 0, 0, 0, None)
    yield Spec("call", 0x85, Kind.CALL, Operation.CALL_HELPER, 64, Source.IMM, 0, 0, 0, None)
    yield Spec("call_local", 0x85, Kind.CALL, Operation.CALL_LOCAL, 64, Source.IMM, 0, 1, 0, None)
    yield Spec("call_btf", 0x85, Kind.CALL, Operation.CALL_BTF, 64, Source.IMM, 0, 2, 0, None)
    yield Spec("exit", 0x95, Kind.EXIT, Operation.EXIT, 64, Source.NONE, 0, 0, 0, 0)


#: Every instruction form, by its unique name.
SPECS: Final[dict[str, Spec]] = {spec.name: spec for spec in (*_alu(), *_memory(), *_control())}


def _by_opcode() -> dict[int, tuple[Spec, ...]]:
    table: dict[int, list[Spec]] = {}
    for spec in SPECS.values():
        table.setdefault(spec.opcode, []).append(spec)
    return {opcode: tuple(specs) for opcode, specs in table.items()}


#: The forms that share an opcode byte.
BY_OPCODE: Final = _by_opcode()
