"""Mistakes about control flow: pruning, loops, calls, jumps, and what a verdict promises."""

from __future__ import annotations

from devbc.engines.interpreter import FaultKind
from devbc.verifier import errors
from tests.verifier.known_mistakes.mistake import MUTATING, PURE, Harm, Legal, Mistake

PATHS = (
    # CVE-2023-2163. Which registers matter for a later access was tracked incompletely, so that where two
    # paths met the second was pruned although an index differed: the one that was explored had 0, the other
    # 1024.
    Mistake(
        "CVE-2023-2163, pruning without precision",
        """
        ldxdw %r2, [VALUE]
        mov %r6, 1024
        mov %r7, 0
        jeq %r2, 0, meet
        mov %r6, 0
    meet:
        jgt %r6, %r7, +0        # looks at r6, and changes nothing
        rsh %r6, 4
        lddw %r3, SCRATCH0
        add %r3, %r6
        stb [%r3+0], 1
        mov %r0, 1
        exit""",
        errors.OUT_OF_BOUNDS, 10, FaultKind.MEMORY,
        Legal("""
        ldxdw %r2, [VALUE]
        mov %r6, 1023
        mov %r7, 0
        jeq %r2, 0, meet
        mov %r6, 0
    meet:
        jgt %r6, %r7, +0
        rsh %r6, 4
        lddw %r3, SCRATCH0
        add %r3, %r6
        stb [%r3+0], 1
        mov %r0, 1
        exit""", MUTATING, 12),
    ),
    # The same with the difference on the stack: the slot that is read behind the meeting point decides.
    Mistake(
        "pruning that forgets a spilled number",
        """
        ldxdw %r2, [VALUE]
        stdw [%r10-8], 64
        jeq %r2, 0, meet
        stdw [%r10-8], 0
    meet:
        mov %r2, 0
        ldxdw %r6, [%r10-8]
        lddw %r3, SCRATCH0
        add %r3, %r6
        stb [%r3+0], 1
        mov %r0, 1
        exit""",
        errors.OUT_OF_BOUNDS, 9, FaultKind.MEMORY,
        Legal("""
        ldxdw %r2, [VALUE]
        stdw [%r10-8], 63
        jeq %r2, 0, meet
        stdw [%r10-8], 0
    meet:
        mov %r2, 0
        ldxdw %r6, [%r10-8]
        lddw %r3, SCRATCH0
        add %r3, %r6
        stb [%r3+0], 1
        mov %r0, 1
        exit""", MUTATING, 11),
    ),
    # Two registers are equal on the path that was explored, and not on the one that is pruned against it: a
    # check of one says nothing about the other.
    Mistake(
        "pruning that forgets which registers are equal",
        """
        ldxdw %r2, [VALUE]
        ldxdw %r4, [%r1+16]
        jne %r2, 7, meet
        ldxdw %r2, [VALUE]
        mov %r4, %r2
    meet:
        mov %r0, 0
        jgt %r4, 63, out
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
    out:
        exit""",
        errors.OUT_OF_BOUNDS, 10, FaultKind.MEMORY,
        Legal("""
        ldxdw %r2, [VALUE]
        mov %r4, %r2
        jne %r2, 7, meet
        ldxdw %r2, [VALUE]
        mov %r4, %r2
    meet:
        mov %r0, 0
        jgt %r4, 63, out
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
    out:
        exit""", PURE, 11),
        exit={"value": 64},
    ),
    # A path that wrote scratch is pruned against one that did not, and declines behind the meeting point.
    Mistake(
        "pruning that forgets a write",
        """
        ldxdw %r2, [VALUE]
        lddw %r3, SCRATCH0
        jeq %r2, 0, write
    meet:
        mov %r0, 0
        exit
    write:
        stb [%r3+0], 1
        ja meet""",
        errors.UNCLEAN_DECLINE, 5, Harm.UNCLEAN,
        Legal("""
        ldxdw %r2, [VALUE]
        lddw %r3, SCRATCH0
        jeq %r2, 0, read
    meet:
        mov %r0, 0
        exit
    read:
        ldxb %r4, [%r3+0]
        ja meet""", PURE, 7),
    ),
    # Atomic operations are writes like any other.
    Mistake(
        "an atomic operation before a decline",
        """
        lddw %r3, SCRATCH0
        mov %r2, 1
        lock add [%r3+0], %r2
        mov %r0, 0
        exit""",
        errors.UNCLEAN_DECLINE, 5, Harm.UNCLEAN,
        Legal("""
        lddw %r3, SCRATCH0
        mov %r2, 1
        lock add [%r3+0], %r2
        mov %r0, 1
        exit""", MUTATING, 5),
    ),
)  # fmt: skip

LOOPS = (
    # A loop wholly inside a callee was never compared with its own earlier rounds, as only the entry's
    # jumps were looked at.
    Mistake(
        "an endless loop wholly inside a callee",
        """
        call local wait
        mov %r0, 1
        exit
    wait:
        lddw %r3, SCRATCH0
    again:
        ldxb %r2, [%r3+0]
        jeq %r2, 0, again
        mov %r0, 0
        exit""",
        errors.ENDLESS, 5, FaultKind.STEP_LIMIT,
        # Rounds of a callee count for each call: 1 + 4 * 2 rounds + 2, and then 1 + 7 * 2 + 2.
        Legal("""
        mov %r1, 4
        call local spin
        mov %r1, 7
        call local spin
        mov %r0, 1
        exit
    spin:
        mov %r0, 0
    again:
        add %r1, -1
        jne %r1, 0, again
        exit""", PURE, 6 + (1 + 4 * 2 + 1) + (1 + 7 * 2 + 1)),
    ),
    # The callee's rounds depend on its argument, and the caller bounds nothing.
    Mistake(
        "a loop inside a callee, as long as the guest likes",
        """
        ldxdw %r1, [VALUE]
        call local spin
        mov %r0, 1
        exit
    spin:
        mov %r0, 0
    again:
        add %r0, 1
        jlt %r0, %r1, again
        exit""",
        errors.TOO_LONG, 5, FaultKind.STEP_LIMIT,
        Legal("""
        ldxdw %r1, [VALUE]
        and %r1, 31
        call local spin
        mov %r0, 1
        exit
    spin:
        mov %r0, 0
    again:
        add %r0, 1
        jlt %r0, %r1, again
        exit""", PURE, 5 + 1 + 31 * 2 + 1),
        exit={"value": (1 << 64) - 1},
    ),
    # That a state was seen before closes a path only if that state's own paths have all ended: here it is
    # on this very path, and each round leaves as little known as the one before.
    Mistake(
        "a loop is closed because its state was seen before",
        """
        ldxdw %r2, [VALUE]
    again:
        add %r2, 2
        jne %r2, 1, again       # an even number never gets there
        mov %r0, 1
        exit""",
        errors.ENDLESS, 1, FaultKind.STEP_LIMIT,
        Legal("""
        ldxdw %r2, [VALUE]
        and %r2, 6
    again:
        add %r2, 2
        jlt %r2, 8, again
        mov %r0, 1
        exit""", PURE, 2 + 2 * 4 + 2),
    ),
    # An unsigned counter is never below 0: a loop down to it wraps, and does not end.
    Mistake(
        "a loop down past 0 that wraps",
        """
        mov %r2, 10
    again:
        sub %r2, 1
        jge %r2, 0, again
        mov %r0, 1
        exit""",
        errors.TOO_LONG, 1, FaultKind.STEP_LIMIT,
        Legal("""
        mov %r2, 10
    again:
        sub %r2, 1
        jsge %r2, 0, again
        mov %r0, 1
        exit""", PURE, 1 + 2 * 11 + 2),
    ),
    # A bound of 32 bits on a counter of 64: the lower half comes round again and again.
    Mistake(
        "a loop whose counter is compared in 32 bits and steps over its end",
        """
        mov %r2, 0
    again:
        add %r2, 3
        jne32 %r2, 0x80000000, again
        mov %r0, 1
        exit""",
        errors.TOO_LONG, 1, FaultKind.STEP_LIMIT,
        Legal("""
        mov %r2, 0
    again:
        add %r2, 3
        jne32 %r2, 30, again
        mov %r0, 1
        exit""", PURE, 1 + 2 * 10 + 2),
    ),
    # Recursion: each frame is another one, so no state repeats. The stack ends first.
    Mistake(
        "recursion without an end",
        """
        call local again
        mov %r0, 1
        exit
    again:
        call local again
        exit""",
        errors.CALL_DEPTH, 3, FaultKind.CALL_DEPTH,
        Legal("""
        call local once
        mov %r0, 1
        exit
    once:
        call local twice
        exit
    twice:
        mov %r0, 0
        exit""", PURE, 3 + 2 + 2),
    ),
)  # fmt: skip

CALLS = (
    # A helper leaves anything in r1 to r5; a verifier that lets them live reads the kernel's leftovers.
    Mistake(
        "registers that a helper clobbers",
        """
        mov %r2, 0
        call ktime_get_ns
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
        exit""",
        errors.UNINITIALISED, 4, FaultKind.UNINITIALISED,
        Legal("""
        mov %r6, 0
        call ktime_get_ns
        lddw %r3, SCRATCH0
        add %r3, %r6
        ldxb %r2, [%r3+0]
        mov %r0, 1
        exit""", PURE, 7),
    ),
    # What a helper returns is anything, whatever it returned last.
    Mistake(
        "a helper's result is taken for its last one",
        """
        mov %r6, 1
        call ktime_get_ns
        mov %r7, %r0
        call ktime_get_ns
        mov %r2, %r0
        mov %r0, 0
        jgt %r7, 63, out        # says nothing of the second time
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
    out:
        exit""",
        errors.OUT_OF_BOUNDS, 10, FaultKind.MEMORY,
        Legal("""
        mov %r6, 1
        call ktime_get_ns
        mov %r7, %r0
        call ktime_get_ns
        mov %r2, %r0
        mov %r0, 0
        jgt %r2, 63, out
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
    out:
        exit""", PURE, 11),
        clock=(0, 64),
    ),
    # A callee sees its arguments, and none of its caller's registers.
    Mistake(
        "a callee reads its caller's registers",
        """
        mov %r6, 1
        call local peek
        mov %r0, 1
        exit
    peek:
        mov %r0, %r6
        exit""",
        errors.UNINITIALISED, 4, FaultKind.UNINITIALISED,
        Legal("""
        mov %r6, 1
        mov %r1, %r6
        call local peek
        mov %r0, %r6            # kept for the caller
        exit
    peek:
        mov %r6, 2
        mov %r0, %r1
        exit""", PURE, 8),
    ),
    # A verdict is 64 bits: a check of the lower half lets any upper half through.
    Mistake(
        "a verdict that is checked in 32 bits",
        """
        ldxdw %r0, [VALUE]
        jlt32 %r0, 2, out
        mov %r0, 0
    out:
        exit""",
        errors.BAD_VERDICT, 3, FaultKind.VERDICT,
        Legal("""
        ldxdw %r0, [VALUE]
        jlt %r0, 2, out
        mov %r0, 0
    out:
        exit""", PURE, 4),
        exit={"value": 1 << 32},
    ),
)  # fmt: skip

SHAPE = (
    # The second half of `lddw` holds an immediate: bytes of the program's choice, run as an instruction
    # that nobody has checked.
    Mistake(
        "a jump into the middle of lddw",
        """
        mov %r0, 1
        ja +1
        lddw %r2, 0x9500000000
        exit""",
        errors.BAD_JUMP, 1, FaultKind.NO_INSTRUCTION,
        Legal("""
        mov %r0, 1
        ja +2
        lddw %r2, 0x9500000000
        exit""", PURE, 3),
    ),
    # Control that runs past a function's last instruction runs on in the next one, with registers of its
    # own.
    Mistake(
        "the tail of a function falls into the next",
        """
        mov %r1, 1
        call local next
        mov %r0, 1
    next:
        mov %r0, %r1            # the call cleared r1
        exit""",
        errors.FALLS_OFF, 2, FaultKind.UNINITIALISED,
        Legal("""
        mov %r1, 1
        call local next
        mov %r0, 1
        exit
    next:
        mov %r0, %r1
        exit""", PURE, 6),
        escapes=3,
    ),
    # Behind the code lies other code, or none.
    Mistake(
        "a jump out of the code",
        """
        ldxdw %r2, [VALUE]
        mov %r0, 1
        jeq %r2, 7, +1
        exit""",
        errors.BAD_JUMP, 2, FaultKind.NO_INSTRUCTION,
        Legal("""
        ldxdw %r2, [VALUE]
        mov %r0, 1
        jeq %r2, 7, +0
        exit""", PURE, 4),
        exit={"value": 7},
    ),
    # What the exit says may only be read: a handler that changes it changes what others see of the access.
    Mistake(
        "a field of the exit that may only be read",
        """
        stdw [%r1+0], 0
        mov %r0, 1
        exit""",
        errors.FIELD_RIGHTS, 0, FaultKind.READ_ONLY,
        Legal("""
        stdw [VALUE], 0
        mov %r0, 1
        exit""", PURE, 3),
    ),
)  # fmt: skip
