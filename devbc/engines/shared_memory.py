"""Accesses to memory that others may write at any moment, as LLVM IR: each done once, whole, and as written.

The shared area is written by userspace and by other vCPUs while a handler runs. Three things must hold of
each access, or a program that was verified is not the one that runs:

- It is never repeated or invented, and never left out. A value that was checked and is then loaded anew is a
  double fetch (CVE-2016-6516 and its kin): the check holds for one value, the use has another. `volatile`
  says so: the number of volatile operations that a run executes is part of what it does (LLVM LangRef,
  "Volatile Memory Accesses").
- It is never torn. `atomic` at natural alignment, of 1, 2, 4 or 8 bytes, is one access of the machine on
  every host that is supported.
- A race has a defined result. A plain load that races with a store gives `undef`, which may differ at each
  use; an `atomic` one gives some value that was stored (LangRef, "Memory Model for Concurrent Operations").
  `volatile` alone leaves it to the target.

The order `monotonic` asks nothing of the order among different fields, as BPF's plain loads and stores do
not; it costs no fence on any host. Atomic instructions are sequentially consistent, which is what RFC 9669
programs get from Linux for those that fetch, and more than they ask for those that do not.

Linux's READ_ONCE and WRITE_ONCE give the same guarantees with `volatile`, by agreement with the compiler.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite.ir import instructions

from devbc.engines.llvm_algebra import Value, integer
from devbc.isa.opcodes import Operation

#: What LLVM calls the atomic operations that it has by name; `cmpxchg` is an instruction of its own.
_RMW: Final = {
    Operation.FETCH_ADD: "add",
    Operation.FETCH_OR: "or",
    Operation.FETCH_AND: "and",
    Operation.FETCH_XOR: "xor",
    Operation.XCHG: "xchg",
}

# As text: operands are names or numbers, pointers are aligned to what they point at.


def load(pointer: str, bits: int, order: str = "monotonic") -> str:
    return f"load atomic volatile i{bits}, ptr {pointer} {order}, align {bits // 8}"


def store(value: str | int, pointer: str, bits: int, order: str = "monotonic") -> str:
    return f"store atomic volatile i{bits} {value}, ptr {pointer} {order}, align {bits // 8}"


def update(operation: Operation, pointer: str, operand: str | int, bits: int) -> str:
    """Replace what a pointer holds in one step; gives the old value."""
    return f"atomicrmw {_RMW[operation]} ptr {pointer}, i{bits} {operand} seq_cst"


def exchange(pointer: str, expected: str | int, operand: str | int, bits: int) -> str:
    """The same if the old value is the expected one; gives a pair of it and whether it was."""
    return f"cmpxchg ptr {pointer}, i{bits} {expected}, i{bits} {operand} seq_cst seq_cst"


# At the position of a builder of llvmlite's, which has `load atomic` and `load`, but not the volatile kind.


def load_once(builder: Any, pointer: Value, bits: int, order: str = "monotonic") -> Value:
    """Load `bits` bits from a pointer that is aligned to them."""
    value = _VolatileLoad(builder.block, pointer, order, bits // 8, "", typ=integer(bits))
    builder._insert(value)
    return value


def store_once(builder: Any, value: Value, pointer: Value, bits: int, order: str = "monotonic") -> None:
    """Store a value of `bits` bits to a pointer that is aligned to them."""
    builder._insert(_VolatileStore(builder.block, value, pointer, order, bits // 8))


def atomic(
    builder: Any, operation: Operation, pointer: Value, operand: Value, expected: Value | None
) -> Value:
    """Replace what a pointer holds in one step; gives the old value. `expected` is cmpxchg's."""
    if expected is not None:
        pair = builder.cmpxchg(pointer, expected, operand, "seq_cst", "seq_cst")
        return builder.extract_value(pair, 0)
    return builder.atomic_rmw(_RMW[operation], pointer, operand, "seq_cst")


class _VolatileLoad(instructions.LoadAtomicInstr):  # type: ignore[misc]
    def descr(self, buf: list[str]) -> None:
        (pointer,) = self.operands
        buf.append(load(pointer.get_reference(), self.type.width, self.ordering) + "\n")


class _VolatileStore(instructions.StoreAtomicInstr):  # type: ignore[misc]
    def descr(self, buf: list[str]) -> None:
        value, pointer = self.operands
        text = store(value.get_reference(), pointer.get_reference(), value.type.width, self.ordering)
        buf.append(text + "\n")
