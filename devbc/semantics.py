"""What each instruction means, written once, over an algebra of values (RFC 9669 sections 4 and 5).

An algebra supplies bit-vector operations on values of some kind: Python integers for the reference
interpreter, tnums and ranges for the verifier, LLVM values for the JIT, SMT bit-vectors for the proofs. A
machine supplies registers and memory over the same values. Control flow is the engines' own: they ask
`condition` which way a jump goes, and `Insn.target` where.

Registers hold 64-bit values. Every operation is told the width in bits of its operands; shift amounts
arrive reduced, and divisors arrive such that no algebra needs to define division by zero or the overflow
of signed division: the RFC's rules for them are stated here.

`full` and `half` are the widths of a register and of its lower half. They are 64 and 32 for every engine;
the proofs also run this module at small widths, where it can be checked exhaustively.
"""

from __future__ import annotations

from typing import Final, Protocol, TypeVar

from devbc.isa.insn import Insn
from devbc.isa.opcodes import FRAME_POINTER, Kind, Operation, Source, Spec

V = TypeVar("V")
B = TypeVar("B")


class Algebra(Protocol[V, B]):
    """Bit-vector operations on values V and truth values B. Operands of one operation have the same width."""

    def const(self, value: int, bits: int) -> V: ...
    def add(self, a: V, b: V, bits: int) -> V: ...
    def sub(self, a: V, b: V, bits: int) -> V: ...
    def mul(self, a: V, b: V, bits: int) -> V: ...
    def udiv(self, a: V, b: V, bits: int) -> V: ...
    def urem(self, a: V, b: V, bits: int) -> V: ...
    def sdiv(self, a: V, b: V, bits: int) -> V: ...
    def srem(self, a: V, b: V, bits: int) -> V: ...
    def and_(self, a: V, b: V, bits: int) -> V: ...
    def or_(self, a: V, b: V, bits: int) -> V: ...
    def xor(self, a: V, b: V, bits: int) -> V: ...
    def shl(self, a: V, b: V, bits: int) -> V: ...
    def lshr(self, a: V, b: V, bits: int) -> V: ...
    def ashr(self, a: V, b: V, bits: int) -> V: ...
    def bswap(self, a: V, bits: int) -> V: ...
    def trunc(self, a: V, bits: int, to: int) -> V: ...
    def zext(self, a: V, bits: int, to: int) -> V: ...
    def sext(self, a: V, bits: int, to: int) -> V: ...
    def eq(self, a: V, b: V, bits: int) -> B: ...
    def ne(self, a: V, b: V, bits: int) -> B: ...
    def ult(self, a: V, b: V, bits: int) -> B: ...
    def ule(self, a: V, b: V, bits: int) -> B: ...
    def slt(self, a: V, b: V, bits: int) -> B: ...
    def sle(self, a: V, b: V, bits: int) -> B: ...
    def select(self, condition: B, a: V, b: V, bits: int) -> V: ...


class Machine(Protocol[V, B]):
    """Registers and memory of one running (or abstractly running) program."""

    @property
    def algebra(self) -> Algebra[V, B]: ...
    def get(self, register: int) -> V: ...
    def set(self, register: int, value: V) -> None: ...
    def load(self, address: V, bits: int) -> V: ...
    def store(self, address: V, value: V, bits: int) -> None: ...
    def atomic(self, insn: Insn, address: V, operand: V, expected: V | None) -> V:
        """Replace memory by `updated(...)` of its old value in one step; return the old value.

        `operand` and `expected` (cmpxchg: the lower bits of r0) have the width of the access.
        """
        ...

    def address(self, insn: Insn) -> V:
        """The value of a `lddw` that names an object: a map's value, a variable, code."""
        ...


FULL: Final = 64
HALF: Final = 32

# Bound to names of their own: an enum's attributes are slow to look up.
_ALU, _UNARY, _LOAD, _STORE, _ATOMIC, _LDDW, _REG, _LOAD_SX = (
    Kind.ALU, Kind.UNARY, Kind.LOAD, Kind.STORE, Kind.ATOMIC, Kind.LDDW, Source.REG, Operation.LOAD_SX,
)  # fmt: skip
_MOVES: Final = (Operation.MOV, Operation.MOVSX)


def step(machine: Machine[V, B], insn: Insn) -> None:
    """Execute one instruction that is neither jump, call nor exit."""
    algebra, spec = machine.algebra, insn.spec
    kind = spec.kind
    if kind is _LOAD:
        raw = machine.load(_address(machine, insn.src, insn.off), spec.width)
        extend = algebra.sext if spec.operation is _LOAD_SX else algebra.zext
        machine.set(insn.dst, extend(raw, spec.width, FULL) if spec.width < FULL else raw)
    elif kind is _STORE:
        value = _low(algebra, source(machine, insn), FULL, spec.width)
        machine.store(_address(machine, insn.dst, insn.off), value, spec.width)
    elif kind is _ALU:
        machine.set(insn.dst, alu(algebra, spec, machine.get(insn.dst), source(machine, insn))
                    if spec.operation not in _MOVES
                    else move(algebra, spec, source(machine, insn)))  # fmt: skip
    elif kind is _UNARY:
        machine.set(insn.dst, unary(algebra, spec, machine.get(insn.dst)))
    elif kind is _LDDW:
        literal = spec.operation is Operation.IMM64
        machine.set(insn.dst, algebra.const(insn.imm, FULL) if literal else machine.address(insn))
    elif kind is _ATOMIC:
        _atomic(machine, insn)
    else:
        raise ValueError(f"{spec.name} is control flow")


def source(machine: Machine[V, B], insn: Insn) -> V:
    """The second operand as a 64-bit value: a register, or imm sign-extended (section 4.1)."""
    if insn.spec.source is _REG:
        return machine.get(insn.src)
    return machine.algebra.const(insn.imm, FULL)


def move(algebra: Algebra[V, B], spec: Spec, src: V, *, full: int = FULL) -> V:
    """`mov` and `movsx`: the 64-bit result; a 32-bit move zeroes the upper half."""
    if spec.operation is Operation.MOVSX:
        narrow = algebra.trunc(src, full, spec.narrow)
        return _widen(algebra, algebra.sext(narrow, spec.narrow, spec.width), spec.width, full)
    return _widen(algebra, _low(algebra, src, full, spec.width), spec.width, full)


def alu(algebra: Algebra[V, B], spec: Spec, dst: V, src: V, *, full: int = FULL, width: int = 0) -> V:
    """`dst OP src` on registers: computed on `spec.width` bits, upper half zeroed (section 4.1)."""
    bits = width or spec.width
    a, b = _low(algebra, dst, full, bits), _low(algebra, src, full, bits)
    return _widen(algebra, binary(algebra, spec.operation, a, b, bits), bits, full)


def binary(algebra: Algebra[V, B], operation: Operation, a: V, b: V, bits: int) -> V:
    """The binary operations on values of `bits` bits (section 4.1 and table 3)."""
    match operation:
        case Operation.ADD:
            return algebra.add(a, b, bits)
        case Operation.SUB:
            return algebra.sub(a, b, bits)
        case Operation.MUL:
            return algebra.mul(a, b, bits)
        case Operation.DIV | Operation.MOD | Operation.SDIV | Operation.SMOD:
            return _divide(algebra, operation, a, b, bits)
        case Operation.OR:
            return algebra.or_(a, b, bits)
        case Operation.AND:
            return algebra.and_(a, b, bits)
        case Operation.XOR:
            return algebra.xor(a, b, bits)
    amount = algebra.and_(b, algebra.const(bits - 1, bits), bits)
    match operation:
        case Operation.LSH:
            return algebra.shl(a, amount, bits)
        case Operation.RSH:
            return algebra.lshr(a, amount, bits)
        case Operation.ARSH:
            return algebra.ashr(a, amount, bits)
    raise ValueError(f"{operation} is not a binary operation")


def _divide(algebra: Algebra[V, B], operation: Operation, a: V, b: V, bits: int) -> V:
    """x / 0 = 0 and x % 0 = x; the most negative number / -1 wraps to itself, its remainder is 0."""
    zero, one = algebra.const(0, bits), algebra.const(1, bits)
    by_zero = algebra.eq(b, zero, bits)
    divisor = algebra.select(by_zero, one, b, bits)
    match operation:
        case Operation.DIV:
            return algebra.select(by_zero, zero, algebra.udiv(a, divisor, bits), bits)
        case Operation.MOD:
            return algebra.select(by_zero, a, algebra.urem(a, divisor, bits), bits)
    minus_one = algebra.const(-1, bits)
    by_minus_one = algebra.eq(b, minus_one, bits)
    divisor = algebra.select(by_minus_one, one, divisor, bits)
    if operation is Operation.SDIV:
        negated = algebra.sub(zero, a, bits)
        quotient = algebra.select(by_minus_one, negated, algebra.sdiv(a, divisor, bits), bits)
        return algebra.select(by_zero, zero, quotient, bits)
    remainder = algebra.select(by_minus_one, zero, algebra.srem(a, divisor, bits), bits)
    return algebra.select(by_zero, a, remainder, bits)


def unary(algebra: Algebra[V, B], spec: Spec, dst: V, *, full: int = FULL, width: int = 0) -> V:
    """Negation, and byte order of a little-endian machine (section 4.2)."""
    bits = width or spec.width
    low = _low(algebra, dst, full, bits)
    match spec.operation:
        case Operation.NEG:
            low = algebra.sub(algebra.const(0, bits), low, bits)
        case Operation.TO_BE | Operation.BSWAP:
            low = algebra.bswap(low, bits)
        case Operation.TO_LE:
            pass
        case _:
            raise ValueError(f"{spec.operation} is not a unary operation")
    return _widen(algebra, low, bits, full)


def condition(algebra: Algebra[V, B], spec: Spec, dst: V, src: V, *, full: int = FULL, width: int = 0) -> B:
    """Whether a conditional jump is taken (section 4.3), comparing the lower `spec.width` bits."""
    bits = width or spec.width
    a, b = _low(algebra, dst, full, bits), _low(algebra, src, full, bits)
    match spec.operation:
        case Operation.JEQ:
            return algebra.eq(a, b, bits)
        case Operation.JNE:
            return algebra.ne(a, b, bits)
        case Operation.JSET:
            return algebra.ne(algebra.and_(a, b, bits), algebra.const(0, bits), bits)
        case Operation.JLT:
            return algebra.ult(a, b, bits)
        case Operation.JLE:
            return algebra.ule(a, b, bits)
        case Operation.JGT:
            return algebra.ult(b, a, bits)
        case Operation.JGE:
            return algebra.ule(b, a, bits)
        case Operation.JSLT:
            return algebra.slt(a, b, bits)
        case Operation.JSLE:
            return algebra.sle(a, b, bits)
        case Operation.JSGT:
            return algebra.slt(b, a, bits)
        case Operation.JSGE:
            return algebra.sle(b, a, bits)
    raise ValueError(f"{spec.operation} is not a condition")


def updated(algebra: Algebra[V, B], spec: Spec, old: V, operand: V, expected: V | None) -> V:
    """What an atomic instruction leaves in memory, given the old value (section 5.3)."""
    bits = spec.width
    match spec.operation:
        case Operation.FETCH_ADD:
            return algebra.add(old, operand, bits)
        case Operation.FETCH_OR:
            return algebra.or_(old, operand, bits)
        case Operation.FETCH_AND:
            return algebra.and_(old, operand, bits)
        case Operation.FETCH_XOR:
            return algebra.xor(old, operand, bits)
        case Operation.XCHG:
            return operand
        case Operation.CMPXCHG if expected is not None:
            return algebra.select(algebra.eq(old, expected, bits), operand, old, bits)
    raise ValueError(f"{spec.operation} is not an atomic operation")


def _atomic(machine: Machine[V, B], insn: Insn) -> None:
    algebra, spec = machine.algebra, insn.spec
    operand = _low(algebra, machine.get(insn.src), FULL, spec.width)
    compares = spec.operation is Operation.CMPXCHG
    expected = _low(algebra, machine.get(0), FULL, spec.width) if compares else None
    old = machine.atomic(insn, _address(machine, insn.dst, insn.off), operand, expected)
    if spec.fetch:
        machine.set(0 if compares else insn.src, _widen(algebra, old, spec.width, FULL))


def _address(machine: Machine[V, B], register: int, off: int) -> V:
    algebra = machine.algebra
    base = machine.get(register)
    return algebra.add(base, algebra.const(off, FULL), FULL) if off else base


def _low(algebra: Algebra[V, B], value: V, bits: int, to: int) -> V:
    return algebra.trunc(value, bits, to) if to < bits else value


def _widen(algebra: Algebra[V, B], value: V, bits: int, to: int) -> V:
    return algebra.zext(value, bits, to) if bits < to else value


__all__ = [
    "FRAME_POINTER", "FULL", "HALF", "Algebra", "Machine", "alu", "binary", "condition", "move", "source",
    "step", "unary", "updated",
]  # fmt: skip
