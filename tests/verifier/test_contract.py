"""A corpus of small handlers, each with the verdict, the class and the bound that it must get.

Rejected ones name the code and the slot that is to blame. The suite's assembly is used: `%r1` holds the exit
at entry; `SCRATCH` (64 bytes) and `RODATA` (64 bytes: 0, 2, 4, …) stand for the addresses of the regions.
"""

from __future__ import annotations

import pytest

from devbc.diagnostics import Code
from devbc.program.verified import AccessFact, ByteRange, HandlerClass, Region
from devbc.verifier import errors
from tests.verifier.oracle import rejected, verify

PURE, MUTATING = HandlerClass.PURE, HandlerClass.MUTATING


def asm(text: str) -> str:
    return text.replace("SCRATCH", "map_value_by_idx 0, ").replace("RODATA", "map_value_by_idx 1, ")


ACCEPTED = {
    "declines": ("mov %r0, 0\nexit", PURE, 2),
    "handles": ("mov %r0, 1\nexit", PURE, 2),
    "verdict of one bit": ("ldxdw %r0, [%r1+8]\nand %r0, 1\nexit", PURE, 3),
    "verdict of a comparison in 32 bits": (
        """
        ldxw %r0, [%r1+8]
        jlt32 %r0, 2, out
        mov %r0, 0
    out:
        exit""",
        PURE,
        4,
    ),
    "longest way counts": (
        """
        ldxw %r2, [%r1+8]
        jeq %r2, 0, out
        mov %r3, 1
        mov %r3, 2
        mov %r3, 3
    out:
        mov %r0, 1
        exit""",
        PURE,
        7,
    ),
    "loop up": ("mov %r2, 0\nl:\nadd %r2, 1\njlt %r2, 10, l\nmov %r0, 1\nexit", PURE, 1 + 20 + 2),
    "loop down": ("mov %r2, 10\nl:\nadd %r2, -1\njne %r2, 0, l\nmov %r0, 1\nexit", PURE, 1 + 20 + 2),
    "loop down, signed, 32 bits": (
        "mov32 %r2, 9\nl:\nadd32 %r2, -1\njsge32 %r2, 0, l\nmov %r0, 1\nexit", PURE, 1 + 20 + 2,
    ),
    "loop to a bounded number": (
        """
        ldxdw %r3, [%r1+8]
        and %r3, 7
        mov %r2, 0
    l:
        jge %r2, %r3, out
        add %r2, 1
        ja l
    out:
        mov %r0, 1
        exit""",
        PURE,
        3 + 7 * 3 + 1 + 2,
    ),
    "masked index": (
        """
        ldxdw %r2, [%r1+8]
        and %r2, 15
        lsh %r2, 2
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxw %r0, [%r3+0]
        stxdw [%r1+8], %r0
        mov %r0, 1
        exit""",
        PURE,
        9,
    ),
    "index compared in 32 bits, used in 64": (
        """
        ldxdw %r2, [%r1+8]
        mov %r0, 0
        jgt32 %r2, 63, out
        lddw %r3, SCRATCH0
        add %r3, %r2
        stb [%r3+0], 1
        mov %r0, 1
    out:
        exit""",
        MUTATING,
        8,
    ),
    "a copy is compared, the original used": (
        """
        ldxdw %r2, [%r1+16]
        mov %r4, %r2
        add %r4, -10
        mov %r0, 0
        jgt %r4, 5, out
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
    out:
        exit""",
        PURE,
        10,
    ),
    "an extended copy is compared": (
        """
        lddw %r3, SCRATCH0
        ldxw %r2, [%r3+0]
        mov %r4, %r2
        lsh %r4, 32
        rsh %r4, 32
        mov %r0, 0
        jgt %r4, 7, out
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
    out:
        exit""",
        PURE,
        11,
    ),
    "a spilled bound": (
        """
        ldxdw %r2, [%r1+16]
        stxdw [%r10-8], %r2
        mov %r0, 0
        jgt %r2, 7, out
        ldxdw %r4, [%r10-8]
        lddw %r3, SCRATCH0
        add %r3, %r4
        ldxb %r2, [%r3+0]
        mov %r0, 1
    out:
        exit""",
        PURE,
        10,
    ),
    "a bit is tested, the rest follows": (
        """
        ldxdw %r2, [%r1+16]
        and %r2, 0x4f
        mov %r4, %r2
        and %r4, 0x40
        mov %r0, 0
        jne %r4, 0, out
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
    out:
        exit""",
        PURE,
        11,
    ),
    "correlated branches": (
        """
        ldxdw %r2, [%r1+8]
        lddw %r3, SCRATCH0
        jgt %r2, 7, one
        stb [%r3+0], 1
    one:
        mov %r0, 0
        jgt %r2, 7, two
        mov %r0, 1
    two:
        exit""",
        MUTATING,
        8,
    ),
    "a table of bounds in read-only data": (
        """
        ldxdw %r2, [%r1+8]
        and %r2, 31
        lddw %r3, RODATA0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
        exit""",
        PURE,
        10,
    ),
    "a callee with its own frame": (
        """
        mov %r6, %r1
        mov %r1, %r10
        add %r1, -8
        stdw [%r10-8], 3
        call local twice
        stxdw [%r6+8], %r0
        mov %r0, 1
        exit
    twice:
        ldxdw %r0, [%r1+0]
        stxdw [%r10-8], %r0
        ldxdw %r1, [%r10-8]
        add %r0, %r1
        exit""",
        PURE,
        5 + 5 + 3,
    ),
    "part of a stack slot is overwritten": (
        "stdw [%r10-8], 0\nstb [%r10-7], 1\nldxdw %r0, [%r10-8]\nrsh %r0, 8\nexit", PURE, 5,
    ),
    "effects": ("stw [%r1+80], 1\nstw [%r1+92], 1\nstdw [%r1+104], 500\nmov %r0, 1\nexit", PURE, 5),
    "effects and then decline": ("stw [%r1+80], 1\nmov %r0, 0\nexit", PURE, 3),
    "an atomic operation": (
        "mov %r0, 1\nlddw %r2, SCRATCH8\nlock fetch add [%r2+0], %r0\nmov %r0, 1\nexit", MUTATING, 5,
    ),
    "division by what may be 0": (
        "ldxdw %r2, [%r1+8]\nmov %r0, 1\ndiv %r0, %r2\nexit", PURE, 4,
    ),
    "dead code": ("mov %r0, 1\nexit\nldxdw %r0, [%r9+0]\nexit", PURE, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    text, handler_class, worst_case = ACCEPTED[name]
    verified = verify(asm(text))
    assert verified.handler_class is handler_class
    assert verified.worst_case == worst_case


REJECTED = {
    "writes scratch, then declines": (
        "lddw %r2, SCRATCH0\nstb [%r2+0], 1\nmov %r0, 0\nexit", errors.UNCLEAN_DECLINE, 4),
    "may decline after a write, by value": (
        "lddw %r2, SCRATCH0\nstb [%r2+0], 1\nldxw %r0, [%r1+8]\nand %r0, 1\nexit", errors.UNCLEAN_DECLINE, 5),
    "declines after a write in one branch only": (
        """
        ldxdw %r3, [%r1+8]
        lddw %r2, SCRATCH0
        jeq %r3, 0, skip
        stb [%r2+0], 1
    skip:
        mov %r0, 1
        jne %r3, 5, out
        mov %r0, 0
    out:
        exit""", errors.UNCLEAN_DECLINE, 8),
    "declines after an atomic operation": (
        "lddw %r2, SCRATCH0\nmov %r3, 1\nlock add [%r2+0], %r3\nmov %r0, 0\nexit", errors.UNCLEAN_DECLINE, 5),
    "declines after a callee's write": (
        "call local f\nmov %r0, 0\nexit\nf:\nlddw %r2, SCRATCH0\n"
        "stb [%r2+0], 1\nexit", errors.UNCLEAN_DECLINE, 2),
    "reads past scratch": ("lddw %r2, SCRATCH0\nldxdw %r0, [%r2+64]\nexit", errors.OUT_OF_BOUNDS, 2),
    "reads across the end of scratch": (
        "lddw %r2, SCRATCH56\nldxw %r0, [%r2+6]\nexit", errors.OUT_OF_BOUNDS, 2),
    "reads before scratch": ("lddw %r2, SCRATCH0\nldxb %r0, [%r2-1]\nexit", errors.OUT_OF_BOUNDS, 2),
    "index may be one too large": (
        "ldxdw %r2, [%r1+8]\nmov %r0, 0\njgt %r2, 64, out\n"
        "lddw %r3, SCRATCH0\nadd %r3, %r2\nldxb %r3, [%r3+0]\n"
        "out:\nexit", errors.OUT_OF_BOUNDS, 6),
    "index compared in 32 bits, from a value of 64": (
        "ldxdw %r2, [%r1+16]\nmov %r0, 0\njgt32 %r2, 7, out\n"
        "lddw %r3, SCRATCH0\nadd %r3, %r2\nldxb %r3, [%r3+0]\n"
        "out:\nexit", errors.OUT_OF_BOUNDS, 6),
    "index compared as signed only": (
        "ldxdw %r2, [%r1+16]\nmov %r0, 0\njsgt %r2, 7, out\n"
        "lddw %r3, SCRATCH0\nadd %r3, %r2\nldxb %r3, [%r3+0]\n"
        "out:\nexit", errors.OUT_OF_BOUNDS, 6),
    "index loaded twice from scratch": (
        """
        lddw %r3, SCRATCH0
        ldxb %r2, [%r3+8]
        mov %r0, 0
        jgt %r2, 7, out
        ldxb %r2, [%r3+8]
        add %r3, %r2
        ldxb %r2, [%r3+0]
    out:
        exit""", errors.OUT_OF_BOUNDS, 7),
    "index stored to scratch and loaded again": (
        "lddw %r3, SCRATCH0\nstdw [%r3+0], 5\nldxdw %r2, [%r3+0]\n"
        "add %r3, %r2\nldxb %r2, [%r3+0]\nmov %r0, 1\nexit",
        errors.OUT_OF_BOUNDS, 5),
    "misaligned": ("lddw %r2, SCRATCH0\nldxdw %r0, [%r2+4]\nexit", errors.MISALIGNED, 2),
    "perhaps misaligned": (
        "ldxdw %r2, [%r1+8]\nand %r2, 6\nlddw %r3, SCRATCH0\nadd %r3, %r2\nldxw %r0, [%r3+0]\nexit",
        errors.MISALIGNED, 5),
    "endless": ("l:\nja l", errors.ENDLESS, 0),
    "waits for scratch": ("lddw %r2, SCRATCH0\nl:\nldxw %r0, [%r2+0]\njne %r0, 0, l\nmov %r0, 1\nexit",
                          errors.ENDLESS, 2),
    "endless inside a callee": ("call local f\nmov %r0, 1\nexit\nf:\nmov %r2, 1\nl:\njeq %r2, 1, l\nexit",
                                errors.ENDLESS, 4),
    "endless, with a growing counter": ("mov %r0, 0\nl:\nadd %r0, 1\nja l", errors.TOO_LONG, 1),
    "misses its end": ("mov %r2, 1\nl:\nadd %r2, 2\njne %r2, 10, l\nmov %r0, 1\nexit", errors.TOO_LONG, 1),
    "as many rounds as the guest likes": (
        "ldxdw %r2, [%r1+8]\nmov %r3, 0\nl:\nadd %r3, 1\n"
        "jlt %r3, %r2, l\nmov %r0, 1\nexit", errors.TOO_LONG, 2),
    "stores a pointer to scratch": (
        "lddw %r2, SCRATCH0\nstxdw [%r2+0], %r1\nmov %r0, 1\nexit", errors.POINTER_LEAK, 2),
    "stores a pointer to the exit": ("stxdw [%r1+8], %r10\nmov %r0, 1\nexit", errors.POINTER_LEAK, 0),
    "returns a pointer": ("mov %r0, %r10\nexit", errors.POINTER_LEAK, 1),
    "adds a pointer atomically": (
        "lddw %r2, SCRATCH0\nlock add [%r2+0], %r10\nmov %r0, 1\nexit", errors.POINTER_LEAK, 2),
    "truncates a pointer": ("mov32 %r0, %r1\nexit", errors.POINTER_ARITHMETIC, 0),
    "multiplies a pointer": ("mov %r0, 3\nmul %r0, %r1\nexit", errors.POINTER_ARITHMETIC, 1),
    "subtracts pointers of two regions": ("mov %r0, %r1\nsub %r0, %r10\nexit", errors.POINTER_ARITHMETIC, 1),
    "stores half a pointer": ("stxw [%r10-8], %r1\nmov %r0, 1\nexit", errors.POINTER_ARITHMETIC, 0),
    "reads half a pointer": ("stxdw [%r10-8], %r1\nldxw %r0, [%r10-8]\nexit", errors.POINTER_ARITHMETIC, 1),
    "overwrites part of a pointer": (
        "stxdw [%r10-8], %r1\nstb [%r10-8], 0\nldxdw %r2, [%r10-8]\n"
        "mov %r0, 1\nexit", errors.UNINITIALISED, 2),
    "compares a pointer with a number": ("jgt %r1, 4096, +0\nmov %r0, 1\nexit", errors.POINTER_COMPARISON, 0),
    "compares pointers of two regions": ("jeq %r1, %r10, +0\nmov %r0, 1\nexit", errors.POINTER_COMPARISON, 0),
    "a number as an address": ("ldxdw %r2, [%r1+8]\nldxb %r0, [%r2+0]\nexit", errors.NOT_AN_ADDRESS, 1),
    "reads a register that is not set": ("mov %r0, %r5\nexit", errors.UNINITIALISED, 0),
    "reads a register that a call clears": (
        "mov %r2, 1\ncall 5\nmov %r0, %r2\nexit", errors.UNINITIALISED, 2),
    "reads the caller's register": (
        "mov %r6, 1\ncall local f\nexit\nf:\nmov %r0, %r6\nexit", errors.UNINITIALISED, 3),
    "reads the stack before it is set": ("ldxdw %r0, [%r10-8]\nexit", errors.UNINITIALISED, 0),
    "reads past what was set": ("stw [%r10-8], 1\nldxdw %r0, [%r10-8]\nexit", errors.UNINITIALISED, 1),
    "reads a callee's dead frame": (
        "call local f\nmov %r0, 1\nexit\nf:\nmov %r0, %r10\nadd %r0, -8\nexit", errors.DANGLING, 5),
    "no verdict": ("exit", errors.BAD_VERDICT, 0),
    "a verdict of 2": ("mov %r0, 2\nexit", errors.BAD_VERDICT, 1),
    "a verdict whose upper half is not 0": (
        "ldxdw %r0, [%r1+16]\nmov %r2, 1\njgt32 %r0, 1, fix\nexit\n"
        "fix:\nmov %r0, 0\nexit", errors.BAD_VERDICT, 3),
    "writes the exit's offset": ("stdw [%r1+0], 1\nmov %r0, 1\nexit", errors.FIELD_RIGHTS, 0),
    "reads past the exit": ("ldxdw %r0, [%r1+168]\nexit", errors.OUT_OF_BOUNDS, 0),
    "writes read-only data": ("lddw %r2, RODATA0\nstb [%r2+0], 1\nmov %r0, 1\nexit", errors.READ_ONLY, 2),
    "atomic on the exit": ("mov %r2, 1\nlock add [%r1+8], %r2\nmov %r0, 1\nexit", errors.ATOMIC_TARGET, 1),
    "unknown helper": ("call 6\nmov %r0, 1\nexit", errors.HELPER, 0),
    "address past scratch": ("lddw %r2, SCRATCH65\nmov %r0, 1\nexit", errors.BAD_ADDRESS, 0),
    "address of an unknown map": ("lddw %r2, map_value_by_idx 2, 0\nmov %r0, 1\nexit", errors.BAD_ADDRESS, 0),
    "map by file descriptor": ("lddw %r2, map_by_fd 3\nmov %r0, 1\nexit", errors.BAD_ADDRESS, 0),
    "recursion": ("f:\ncall local f\nmov %r0, 1\nexit", errors.CALL_DEPTH, 0),
    "stack of a chain of calls": (
        "stdw [%r10-304], 0\ncall local f\nmov %r0, 1\nexit\nf:\nstdw [%r10-304], 0\nexit", errors.STACK, 1),
    "stack of one frame": ("stdw [%r10-520], 0\nmov %r0, 1\nexit", errors.OUT_OF_BOUNDS, 0),
    "arms a timer that does not exist": ("stw [%r1+92], 256\nmov %r0, 1\nexit", errors.POLICY, 0),
    "falls off the end": ("mov %r0, 1", errors.FALLS_OFF, 0),
    "jumps out": ("ja +5\nexit", errors.BAD_JUMP, 0),
    "jumps back out": ("mov %r0, 1\njeq %r0, 1, -3\nexit", errors.BAD_JUMP, 1),
    "jumps into an lddw": ("ja +1\nlddw %r0, 1\nexit", errors.BAD_JUMP, 0),
    "jumps into another function": (
        "call local f\nja +1\nf:\nmov %r0, 1\nmov %r0, 0\nexit", errors.BAD_JUMP, 1),
    "calls into nothing": ("call local +9\nexit", errors.BAD_JUMP, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", REJECTED)
def test_rejected(name: str) -> None:
    text, code, slot = REJECTED[name]
    diagnostic = rejected(asm(text)).diagnostics[0]
    assert (diagnostic.code.id, diagnostic.code.title) == (code.id, code.title)
    assert diagnostic.span is not None
    assert diagnostic.span.line == slot


def test_every_code_of_the_verifier_is_reached() -> None:
    reached = {code for _, code, _ in REJECTED.values()}
    codes = {value for value in vars(errors).values() if type(value) is Code}
    # A lowered budget, and a file: test_policy.py.
    assert codes - reached == {errors.TOO_COMPLEX, errors.BAD_POLICY}


def test_facts_of_accesses() -> None:
    verified = verify(
        asm(
            """
        ldxdw %r2, [%r1+8]
        and %r2, 7
        lddw %r3, SCRATCH16
        stxdw [%r10-8], %r2
        mov %r4, %r3
        jeq %r2, 0, join
        mov %r4, %r10
        add %r4, -8
    join:
        ldxb %r5, [%r4+0]
        add %r3, %r2
        stxb [%r3+0], %r5
        mov %r0, 1
        exit"""
        )
    )
    assert verified.accesses == {
        0: AccessFact(Region.EXIT, 8),
        4: AccessFact(Region.STACK, -8),
        9: AccessFact(None, None),
        11: AccessFact(Region.SCRATCH, None),
    }
    assert verified.scratch_read == (ByteRange(16, 17),)
    assert verified.scratch_written == (ByteRange(16, 24),)
    assert verified.stack_bytes == 8


def test_effects_and_helpers() -> None:
    verified = verify("mov %r6, %r1\ncall 5\nstxdw [%r6+104], %r0\nstw [%r6+92], 1\nmov %r0, 1\nexit")
    assert verified.effects == {"arm", "deadline"}
    assert [helper.name for helper in verified.helpers] == ["KTIME_GET_NS"]
    assert not verified.may_decline
    assert verified.may_handle


def test_stores_that_cover_several_fields() -> None:
    """LLVM merges `raise = 1; lower = 2` into one store of 8 bytes."""
    assert verify("lddw %r2, 0x200000001\nstxdw [%r1+80], %r2\nmov %r0, 1\nexit").effects == {
        "raise",
        "lower",
    }


def test_what_the_binding_says_of_the_exit() -> None:
    text = asm(
        """
        ldxdw %r2, [%r1+0]
        add %r2, -0x100
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxw %r0, [%r3+0]
        mov %r0, 1
        exit"""
    )
    assert verify(text, section="mmio/read@0x100-0x13f:4").scratch_read == (ByteRange(0, 64),)
    assert rejected(text, section="mmio/read@0x100-0x140:4").diagnostics[0].code is errors.OUT_OF_BOUNDS
    assert rejected(text, section="mmio/read@0x100-0x13c:2,4").diagnostics[0].code is errors.MISALIGNED
