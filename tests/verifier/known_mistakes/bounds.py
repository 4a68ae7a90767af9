"""Mistakes about what is known of numbers: bounds carried between widths, signs, shifts, divisions.

In each, the mistaken verifier believes that an index is smaller than it can be, or that a branch is never
taken. What escapes is the access at the end, through `%r3`.
"""

from __future__ import annotations

from devbc.engines.interpreter import FaultKind
from devbc.verifier import errors
from tests.verifier.known_mistakes.mistake import MUTATING, PURE, Legal, Mistake

BOUNDS = (
    # CVE-2017-16995. `mov32` zeroes the upper half; the verifier let it sign-extend, so that -1 in 32 bits
    # and the immediate -1 in 64 were equal, the jump never taken, and what is behind it never looked at.
    Mistake(
        "CVE-2017-16995, sign of a 32-bit immediate",
        """
        mov32 %r2, -1
        jne %r2, -1, unseen
        mov %r0, 0
        exit
    unseen:
        lddw %r3, SCRATCH0
        add %r3, %r2
        stb [%r3+0], 1
        mov %r0, 1
        exit""",
        errors.OUT_OF_BOUNDS, 7, FaultKind.MEMORY,
        # Moved in 64 bits the two are equal, and what is behind the jump is dead.
        Legal("""
        mov %r2, -1
        jne %r2, -1, unseen
        mov %r0, 0
        exit
    unseen:
        lddw %r3, SCRATCH0
        add %r3, %r2
        stb [%r3+0], 1
        mov %r0, 1
        exit""", PURE, 4),
    ),
    # CVE-2020-8835. After a 32-bit jump, bounds of 64 bits (1 to 2**32 + 1) were cut to their lower halves
    # (1 to 1), and the lower half taken for 1. It may be anything.
    Mistake(
        "CVE-2020-8835, 64-bit bounds cut to 32 bits",
        """
        ldxdw %r2, [VALUE]
        mov %r0, 0
        lddw %r4, 0x100000001
        jgt %r2, %r4, out
        jlt %r2, 1, out
        jgt32 %r2, 5, out
        mov32 %r2, %r2
        sub %r2, 1              # the mistake: 0
        lsh %r2, 6
        lddw %r3, SCRATCH0
        add %r3, %r2
        stb [%r3+0], 1
        mov %r0, 1
    out:
        exit""",
        errors.OUT_OF_BOUNDS, 13, FaultKind.MEMORY,
        Legal("""
        ldxdw %r2, [VALUE]
        mov %r0, 0
        lddw %r4, 0x100000001
        jgt %r2, %r4, out
        jlt %r2, 1, out
        jgt32 %r2, 5, out
        mov32 %r2, %r2          # 0 to 5
        lsh %r2, 3
        lddw %r3, SCRATCH0
        add %r3, %r2
        stb [%r3+23], 1         # up to the last byte of scratch
        mov %r0, 1
    out:
        exit""", MUTATING, 13),
        exit={"value": 2},
    ),
    # CVE-2021-31440. A least value of 1 in 64 bits became a least value of 1 in 32 bits: but the lower half
    # of 0x1_0000_0000 is 0. With a 32-bit jump to `at most 1` the lower half was taken for exactly 1.
    Mistake(
        "CVE-2021-31440, a 64-bit least value taken for the lower half's",
        """
        ldxdw %r2, [VALUE]
        mov %r0, 0
        jlt %r2, 1, out
        jgt32 %r2, 1, out
        mov32 %r2, %r2
        sub %r2, 1              # the mistake: 0; it may be -1
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
    out:
        exit""",
        errors.OUT_OF_BOUNDS, 9, FaultKind.MEMORY,
        # Once the value fits the lower half, its least value does carry over.
        Legal("""
        ldxdw %r2, [VALUE]
        mov %r0, 0
        jlt %r2, 1, out
        jgt %r2, 1, out
        mov32 %r2, %r2
        sub %r2, 1
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
    out:
        exit""", PURE, 11),
        exit={"value": 1 << 32},
    ),
    # CVE-2020-27194. The 32-bit bounds of an `or` were assigned from the 64-bit ones: of 1 to 0x6_0000_0001
    # the lower halves of the ends are both 1, and so the lower half was taken for 1.
    Mistake(
        "CVE-2020-27194, 32-bit bounds of `or`",
        """
        ldxdw %r2, [VALUE]
        mov %r0, 0
        lddw %r4, 0x600000001
        jgt %r2, %r4, out
        jlt %r2, 1, out
        or %r2, 0
        mov32 %r2, %r2          # the mistake: 1
        rsh %r2, 1
        lsh %r2, 6
        lddw %r3, SCRATCH0
        add %r3, %r2
        stb [%r3+0], 1
        mov %r0, 1
    out:
        exit""",
        errors.OUT_OF_BOUNDS, 13, FaultKind.MEMORY,
        Legal("""
        ldxdw %r2, [VALUE]
        mov %r0, 0
        jgt %r2, 1, out
        jlt %r2, 1, out
        or %r2, 0
        mov32 %r2, %r2          # 1
        rsh %r2, 1
        lsh %r2, 6
        lddw %r3, SCRATCH0
        add %r3, %r2
        stb [%r3+0], 1
        mov %r0, 1
    out:
        exit""", MUTATING, 13),
        exit={"value": 2},
    ),
    # CVE-2021-3490. Where the lower halves of both operands were known, the 32-bit bounds were left to the
    # 64-bit code, which did not set them if an upper half was unknown: they stayed those of the
    # destination. Here the destination's lower half was 2, and the jump that compares with 2 was taken for
    # certain.
    *(
        Mistake(
            f"CVE-2021-3490, 32-bit bounds of `{operation}`",
            f"""
        ldxdw %r2, [VALUE]
        mov %r0, 0
        lddw %r4, 0xffffffff00000000
        and %r2, %r4
        or %r2, 1               # the lower half is 1, the upper half unknown
        lddw %r5, 0x100000002
        {operation} %r5, %r2    # the lower half is {result}; the mistake: still 2
        jeq32 %r5, 2, out
        lddw %r3, SCRATCH0
        stb [%r3+64], 1
        mov %r0, 1
    out:
        exit""",
            errors.OUT_OF_BOUNDS, 12, FaultKind.MEMORY,
            Legal(f"""
        ldxdw %r2, [VALUE]
        mov %r0, 0
        lddw %r4, 0xffffffff00000000
        and %r2, %r4
        or %r2, 1
        lddw %r5, 0x100000002
        {operation} %r5, %r2
        jeq32 %r5, {result}, out
        lddw %r3, SCRATCH0
        stb [%r3+64], 1
        mov %r0, 1
    out:
        exit""", PURE, 9),
        )
        for operation, result in (("and", 0), ("or", 3), ("xor", 3))
    ),
    # CVE-2018-18445. A 32-bit right shift was applied to the bounds of 64 bits: what the upper half holds
    # does not come down.
    Mistake(
        "CVE-2018-18445, a 32-bit shift of 64-bit bounds",
        """
        lddw %r2, 0x100000000
        ldxdw %r4, [VALUE]
        and %r4, 63
        or %r2, %r4             # 2**32 to 2**32 + 63
        rsh32 %r2, 1            # 0 to 31; the mistake: around 2**31
        mov %r0, 0
        jgt32 %r2, 31, out      # never taken; the mistake: always
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+64]
    out:
        exit""",
        errors.OUT_OF_BOUNDS, 11, FaultKind.MEMORY,
        Legal("""
        lddw %r2, 0x100000000
        ldxdw %r4, [VALUE]
        and %r4, 63
        or %r2, %r4
        rsh32 %r2, 1
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+32]      # 32 to 63
        mov %r0, 1
        exit""", PURE, 10),
    ),
    # CVE-2017-16996, CVE-2017-17852. Arithmetic of 32 bits did not cut the bounds to 32 bits: a sum that
    # wraps there was believed to be large, and a difference small.
    Mistake(
        "CVE-2017-17852, arithmetic of 32 bits that wraps",
        """
        ldxdw %r2, [VALUE]
        and %r2, 1
        add32 %r2, -1           # 0xffffffff or 0; the mistake: -1 or 0
        add %r2, 1              # 2**32 or 1; the mistake: 0 or 1
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
        exit""",
        errors.OUT_OF_BOUNDS, 7, FaultKind.MEMORY,
        Legal("""
        ldxdw %r2, [VALUE]
        and %r2, 1
        add %r2, -1
        add %r2, 1
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
        exit""", PURE, 9),
    ),
    # CVE-2017-17853. The signed bounds of a logical right shift were computed as if it kept the sign: but a
    # zero comes in from above, and no result is negative.
    Mistake(
        "CVE-2017-17853, signed bounds of a logical shift",
        """
        ldxdw %r2, [VALUE]
        mov %r0, 0
        jsge %r2, 0, out
        rsh %r2, 1              # 2**62 and more; the mistake: still negative
        jslt %r2, 0, out        # never taken; the mistake: always
        lddw %r3, SCRATCH0
        ldxb %r2, [%r3+64]
    out:
        exit""",
        errors.OUT_OF_BOUNDS, 7, FaultKind.MEMORY,
        Legal("""
        ldxdw %r2, [VALUE]
        mov %r0, 0
        jsge %r2, 0, out
        arsh %r2, 1
        jslt %r2, 0, out
        lddw %r3, SCRATCH0
        ldxb %r2, [%r3+64]
    out:
        exit""", PURE, 6),
        exit={"value": 1 << 63},
    ),
    # An arithmetic shift of unsigned bounds: 0xffff...ff >> 63 is -1, and not 1.
    Mistake(
        "an arithmetic shift of unsigned bounds",
        """
        ldxdw %r2, [VALUE]
        arsh %r2, 63            # 0 or -1; the mistake: 0 or 1
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
        exit""",
        errors.OUT_OF_BOUNDS, 5, FaultKind.MEMORY,
        Legal("""
        ldxdw %r2, [VALUE]
        rsh %r2, 63
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
        exit""", PURE, 7),
        exit={"value": 1 << 63},
    ),
    # A `movsx` of 32 bits zeroes the upper half, like all of 32 bits. Extended to 64 bits instead, -1 + 1
    # is 0.
    Mistake(
        "movsx that forgets to zero the upper half",
        """
        mov %r4, 255
        movsx832 %r2, %r4
        add %r2, 1              # 2**32; the mistake: 0
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
        exit""",
        errors.OUT_OF_BOUNDS, 6, FaultKind.MEMORY,
        Legal("""
        mov %r4, 255
        movsx864 %r2, %r4
        add %r2, 1
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
        exit""", PURE, 8),
    ),
    # The other way round: a byte that is extended as if it had no sign.
    Mistake(
        "movsx that forgets the sign",
        """
        ldxdw %r4, [VALUE]
        movsx864 %r2, %r4       # -128 to 127; the mistake: 0 to 255
        jsgt %r2, 63, bad
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
    bad:
        mov %r0, 1
        exit""",
        errors.OUT_OF_BOUNDS, 6, FaultKind.MEMORY,
        Legal("""
        ldxdw %r4, [VALUE]
        movsx864 %r2, %r4
        jgt %r2, 63, bad        # compared as unsigned, negative numbers are large
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
    bad:
        mov %r0, 1
        exit""", PURE, 8),
        exit={"value": 0x80},
    ),
    # A jump of 32 bits says nothing of the upper half.
    Mistake(
        "32-bit jump facts applied to a 64-bit value",
        """
        ldxdw %r2, [VALUE]
        mov %r0, 0
        jgt32 %r2, 63, out
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
    out:
        exit""",
        errors.OUT_OF_BOUNDS, 6, FaultKind.MEMORY,
        Legal("""
        ldxdw %r2, [VALUE]
        mov %r0, 0
        jgt32 %r2, 63, out
        mov32 %r2, %r2
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
    out:
        exit""", PURE, 9),
        exit={"value": 1 << 32},
    ),
    # Equality of lower halves is not equality.
    Mistake(
        "32-bit equality applied to a 64-bit value",
        """
        ldxdw %r2, [VALUE]
        mov %r0, 0
        jne32 %r2, 0, out
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
    out:
        exit""",
        errors.OUT_OF_BOUNDS, 6, FaultKind.MEMORY,
        Legal("""
        ldxdw %r2, [VALUE]
        mov %r0, 0
        jne %r2, 0, out
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
    out:
        exit""", PURE, 8),
        exit={"value": 1 << 32},
    ),
    # A signed check from above alone leaves the negative numbers in.
    Mistake(
        "a signed bound from above alone",
        """
        ldxdw %r2, [VALUE]
        mov %r0, 0
        jsgt %r2, 63, out
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
    out:
        exit""",
        errors.OUT_OF_BOUNDS, 6, FaultKind.MEMORY,
        Legal("""
        ldxdw %r2, [VALUE]
        mov %r0, 0
        jsgt %r2, 63, out
        jslt %r2, 0, out
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
    out:
        exit""", PURE, 9),
        exit={"value": (1 << 64) - 1},
    ),
    # CVE-2021-3444. x % 0 is x, but `mod32` still zeroes the upper half; a verifier that takes the
    # instruction for one that changes nothing keeps an upper half that is gone.
    Mistake(
        "CVE-2021-3444, a 32-bit remainder by 0 truncates",
        """
        lddw %r2, 0x100000000
        mov %r4, 0
        mod32 %r2, %r4          # 0; the mistake: still 2**32
        mov %r0, 0
        jne %r2, 0, out         # never taken; the mistake: always
        lddw %r3, SCRATCH0
        ldxb %r2, [%r3+64]
    out:
        exit""",
        errors.OUT_OF_BOUNDS, 8, FaultKind.MEMORY,
        Legal("""
        lddw %r2, 0x100000000
        mov %r4, 0
        mod32 %r2, %r4
        mov %r0, 0
        jeq %r2, 0, out
        lddw %r3, SCRATCH0
        ldxb %r2, [%r3+64]
    out:
        exit""", PURE, 6),
    ),
    # x / 0 is 0 in BPF: a quotient may be smaller than the least dividend over the greatest divisor.
    Mistake(
        "a quotient that forgets division by 0",
        """
        ldxdw %r4, [VALUE]
        and %r4, 1
        mov %r2, 100
        div %r2, %r4            # 100 or 0; the mistake: 100
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3-100]
        mov %r0, 1
        exit""",
        errors.OUT_OF_BOUNDS, 7, FaultKind.MEMORY,
        Legal("""
        ldxdw %r4, [VALUE]
        or %r4, 1
        and %r4, 1
        mov %r2, 100
        div %r2, %r4            # the divisor is 1
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3-100]
        mov %r0, 1
        exit""", PURE, 10),
    ),
    # The most negative number over -1 is itself: a quotient of two negative numbers need not be positive.
    Mistake(
        "the overflow of signed division",
        """
        ldxdw %r2, [VALUE]
        mov %r0, 0
        jsge %r2, 0, out
        sdiv %r2, -1            # positive, but for one
        jgt %r2, 63, high
        ja use
    high:
        jsge %r2, 0, out        # the mistake: always taken
    use:
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
    out:
        exit""",
        errors.OUT_OF_BOUNDS, 10, FaultKind.MEMORY,
        Legal("""
        ldxdw %r2, [VALUE]
        mov %r0, 0
        jsge %r2, 0, out
        sdiv %r2, -1
        jgt %r2, 63, out
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
    out:
        exit""", PURE, 10),
        exit={"value": 1 << 63},
    ),
    # A shift by a register takes the amount modulo the width: 32 in 32 bits shifts by nothing.
    Mistake(
        "a shift by the width or more",
        """
        ldxdw %r4, [VALUE]
        and %r4, 32             # 0 or 32
        mov %r2, 64
        rsh32 %r2, %r4          # 64 either way; the mistake: 64 or 0
        mov %r0, 0
        jeq %r4, 0, out
        lddw %r3, SCRATCH0
        add %r3, %r2            # the mistake: where the amount is 32, this adds 0
        ldxb %r2, [%r3+0]
        mov %r0, 1
    out:
        exit""",
        errors.OUT_OF_BOUNDS, 9, FaultKind.MEMORY,
        Legal("""
        ldxdw %r4, [VALUE]
        and %r4, 32
        mov %r2, 64
        rsh %r2, %r4            # in 64 bits, 32 is an amount like any other
        mov %r0, 0
        jeq %r4, 0, out
        and %r2, 63
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
    out:
        exit""", PURE, 12),
        exit={"value": 32},
    ),
)  # fmt: skip
