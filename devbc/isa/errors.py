"""Diagnostic codes of the instruction set: decoding and assembling."""

from __future__ import annotations

from devbc.diagnostics import define

TRUNCATED = define(
    "I001",
    "the byte code ends inside an instruction",
    """
    BPF instructions are 8 bytes long, `lddw` 16. The byte code's length is not a multiple of 8, it is
    empty, or its last slot is the first half of an `lddw`.

    The object is damaged, or was cut off. Compile it again.
    """,
)
UNKNOWN_OPCODE = define(
    "I002",
    "unknown opcode",
    """
    The first byte of the instruction is not an opcode of RFC 9669 that this machine knows. Legacy packet
    access (`ld_abs`, `ld_ind`) and calls and jumps by register (`callx`, `gotox`) are not part of it.

    LLVM emits `gotox` for large switches at cpu v4: compile with `-fno-jump-tables`.
    """,
)
RESERVED_FIELD = define(
    "I003",
    "a reserved field is not zero",
    """
    RFC 9669 says of each instruction which of its fields are used; the others must be zero, so that later
    versions may give them a meaning. A field here has a value that no version of the instruction has.
    """,
)
BAD_REGISTER = define(
    "I004",
    "no such register",
    """
    Registers are r0 to r10. The instruction names another, or writes r10, the read-only frame pointer.
    """,
)
BAD_LDDW = define(
    "I005",
    "malformed `lddw`",
    """
    The second slot of a `lddw` carries the upper half of its immediate; opcode, registers and offset of
    that slot must be zero (RFC 9669 section 5.4).
    """,
)
ASM_SYNTAX = define(
    "I006",
    "malformed line of assembly",
    """
    Assembly is read a line at a time: a label (`name:`), or a mnemonic with its operands set off by commas,
    each with an optional comment after `#`. The line is neither, or the text holds no instruction at all.

    ```
    again:
    add %r0, 1      # operands are separated by commas
    jlt %r0, 10, again
    exit
    ```
    """,
)
ASM_MNEMONIC = define(
    "I007",
    "unknown mnemonic",
    """
    The first word of the line names no instruction. Mnemonics are those of the public conformance suite:
    `add` computes on 64 bits and `add32` on 32; loads are `ldxb`, `ldxh`, `ldxw`, `ldxdw` (`ldxsb` and so on
    to extend the sign); atomics begin with `lock`, or `lock fetch`.

    Calls by register (`callx`) are not in RFC 9669, and not in this machine.
    """,
)
ASM_OPERANDS = define(
    "I008",
    "wrong operands",
    """
    The instruction takes another number of operands, or operands of another kind. A register is written
    `%r1`, memory `[%r1+8]`, a number in decimal or hexadecimal, a jump's target as a label or `+3`.

    ```
    ldxw %r0, [%r1+8]     # not: ldxw %r0, %r1
    ```
    """,
)
ASM_RANGE = define(
    "I009",
    "a number does not fit its field",
    """
    Immediates have 32 bits: a decimal number is signed (-2147483648 to 2147483647), a hexadecimal one gives
    the bits (to 0xffffffff) and is sign-extended when a 64-bit instruction uses it. Offsets of memory
    accesses and jumps are signed and have 16 bits; `lddw` takes 64 bits.

    Load larger constants with `lddw`, reach further with `ja32`.
    """,
)
ASM_LABEL = define(
    "I010",
    "undefined or repeated label",
    """
    A jump or a local call names a label that no line defines, or two lines define the same label. The label
    `exit` may be left undefined: it then stands for the first `exit` instruction.
    """,
)
ASM_LOCK = define(
    "I011",
    "malformed atomic instruction",
    """
    `lock` is followed by an operation, with `fetch` before it where the old value is wanted, then memory and
    a register. `xchg` and `cmpxchg` always fetch, and are written without the word.

    ```
    lock add [%r10-8], %r1
    lock fetch or32 [%r10-8], %r1
    lock cmpxchg [%r10-8], %r1     # compares with r0
    ```
    """,
)
