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
