"""Mistakes about memory: pointers that moved, stack slots that went stale, addresses that leak.

What is kept on the stack is known only as long as nothing overwrote it, a pointer leads where it was moved
to, and no address may become visible to a guest or to userspace.
"""

from __future__ import annotations

from devbc.engines.interpreter import BASES, FaultKind
from devbc.program.verified import Region
from devbc.verifier import errors
from tests.verifier.known_mistakes.mistake import MUTATING, PURE, Harm, Legal, Mistake

#: A number that, added to the shared area's address, gives 0.
_TO_NULL = (1 << 64) - BASES[Region.SCRATCH]

POINTERS = (
    # CVE-2021-4204. A pointer into memory was handed to a function as if it still led to the memory's
    # start: its own offset was not counted. Here the function stores behind the end of scratch.
    Mistake(
        "CVE-2021-4204, a callee forgets the offset of a pointer",
        """
        lddw %r1, SCRATCH0
        add %r1, 56
        call local store
        mov %r0, 1
        exit
    store:
        stdw [%r1+8], 1
        mov %r0, 0
        exit""",
        errors.OUT_OF_BOUNDS, 6, FaultKind.MEMORY,
        Legal("""
        lddw %r1, SCRATCH0
        add %r1, 48
        call local store
        mov %r0, 1
        exit
    store:
        stdw [%r1+8], 1
        mov %r0, 0
        exit""", MUTATING, 8),
    ),
    # CVE-2022-23222. Arithmetic was allowed on pointers that may be null, so that `null + 1` passed the
    # check against null and the verifier took the register for something that it was not. No pointer is
    # null at first here; but one that was moved by any amount may be, and the branch for it is not dead.
    Mistake(
        "CVE-2022-23222, a moved pointer is taken for one that is not null",
        """
        ldxdw %r2, [VALUE]
        lddw %r3, SCRATCH0
        add %r3, %r2
        mov %r0, 0
        jne %r3, 0, out         # the mistake: always taken
        lddw %r3, SCRATCH0
        ldxb %r2, [%r3+64]
    out:
        exit""",
        errors.OUT_OF_BOUNDS, 8, FaultKind.MEMORY,
        # Inside of scratch, it is not null.
        Legal("""
        ldxdw %r2, [VALUE]
        and %r2, 63
        lddw %r3, SCRATCH0
        add %r3, %r2
        mov %r0, 0
        jne %r3, 0, out
        lddw %r3, SCRATCH0
        ldxb %r2, [%r3+64]
    out:
        exit""", PURE, 7),
        exit={"value": _TO_NULL},
    ),
    # The same null, used: on its branch the pointer is 0 and nothing may be read through it.
    Mistake(
        "CVE-2022-23222, a pointer that was found to be null is used",
        """
        ldxdw %r2, [VALUE]
        lddw %r3, SCRATCH0
        add %r3, %r2
        mov %r0, 0
        jne %r3, 0, out
        ldxb %r2, [%r3+0]
    out:
        exit""",
        errors.OUT_OF_BOUNDS, 6, FaultKind.MEMORY,
        Legal("""
        ldxdw %r2, [VALUE]
        and %r2, 63
        lddw %r3, SCRATCH0
        add %r3, %r2
        mov %r0, 0
        jeq %r3, 0, out
        ldxb %r2, [%r3+0]
    out:
        exit""", PURE, 8),
        exit={"value": _TO_NULL},
    ),
    # CVE-2017-17854. The sum of a pointer and huge numbers was computed without regard to overflow.
    Mistake(
        "CVE-2017-17854, pointer offsets that overflow",
        """
        lddw %r3, SCRATCH0
        lddw %r2, 0x7fffffffffffffff
        add %r3, %r2
        add %r3, %r2
        ldxb %r2, [%r3+66]      # 64, modulo 2**64: one byte behind the end
        mov %r0, 1
        exit""",
        errors.OUT_OF_BOUNDS, 6, FaultKind.MEMORY,
        Legal("""
        lddw %r3, SCRATCH0
        lddw %r2, 0x7fffffffffffffff
        add %r3, %r2
        add %r3, %r2
        ldxb %r2, [%r3+65]
        mov %r0, 1
        exit""", PURE, 7),
    ),
    # CVE-2024-26589. Pointers to one kind of object could be moved by a variable, and their accesses were
    # checked by the constant part of the offset alone. The exit is such an object here.
    Mistake(
        "CVE-2024-26589, a variable offset to a structure",
        """
        ldxdw %r2, [VALUE]
        and %r2, 255
        add %r1, %r2
        ldxb %r2, [%r1+8]
        mov %r0, 1
        exit""",
        errors.OUT_OF_BOUNDS, 3, FaultKind.MEMORY,
        Legal("""
        ldxdw %r2, [VALUE]
        and %r2, 127
        add %r1, %r2
        ldxb %r2, [%r1+8]
        mov %r0, 1
        exit""", PURE, 6),
        exit={"value": 255},
    ),
    # The bound of an index was checked on a copy, and then the index was changed.
    Mistake(
        "a bound that outlives a change of the register",
        """
        ldxdw %r2, [VALUE]
        mov %r4, %r2
        add %r2, 1
        mov %r0, 0
        jgt %r4, 63, out        # 0 to 63 is the copy
        lddw %r3, SCRATCH0
        add %r3, %r2            # 1 to 64
        ldxb %r2, [%r3+0]
    out:
        exit""",
        errors.OUT_OF_BOUNDS, 8, FaultKind.MEMORY,
        Legal("""
        ldxdw %r2, [VALUE]
        mov %r4, %r2
        add %r2, 1
        mov %r0, 0
        jgt %r4, 62, out
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
    out:
        exit""", PURE, 9),
        exit={"value": 63},
    ),
    # A store through a pointer that may lead to different places must be allowed at each of them.
    Mistake(
        "a store through a pointer of two regions",
        """
        ldxdw %r2, [VALUE]
        lddw %r3, SCRATCH0
        jeq %r2, 0, store
        lddw %r3, RODATA0
    store:
        stb [%r3+0], 1
        mov %r0, 1
        exit""",
        errors.READ_ONLY, 6, FaultKind.READ_ONLY,
        Legal("""
        ldxdw %r2, [VALUE]
        lddw %r3, SCRATCH0
        jeq %r2, 0, store
        lddw %r3, SCRATCH8
    store:
        stb [%r3+0], 1
        mov %r0, 1
        exit""", MUTATING, 7),
        exit={"value": 1},
    ),
)  # fmt: skip

STACK = (
    # A spilled number was remembered although some of its bytes had been overwritten.
    Mistake(
        "a stale stack slot after a partial overwrite",
        """
        ldxdw %r2, [VALUE]
        stdw [%r10-8], 0
        stxb [%r10-7], %r2
        ldxdw %r2, [%r10-8]     # the mistake: 0
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
        exit""",
        errors.OUT_OF_BOUNDS, 7, FaultKind.MEMORY,
        # The lowest byte may hold a small index.
        Legal("""
        ldxdw %r2, [VALUE]
        and %r2, 63
        stdw [%r10-8], 0
        stxb [%r10-8], %r2
        ldxdw %r2, [%r10-8]
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
        exit""", PURE, 10),
        exit={"value": 1},
    ),
    # The same through a pointer whose place is variable: any of the slots may have changed.
    Mistake(
        "a stale stack slot after a store at a variable place",
        """
        ldxdw %r2, [VALUE]
        stdw [%r10-8], 0
        stdw [%r10-16], 0
        mov %r4, %r2
        and %r4, 15
        mov %r3, %r10
        add %r3, %r4
        stxb [%r3-16], %r2
        ldxdw %r2, [%r10-8]     # the mistake: 0
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
        exit""",
        errors.OUT_OF_BOUNDS, 12, FaultKind.MEMORY,
        Legal("""
        ldxdw %r2, [VALUE]
        stdw [%r10-8], 0
        stdw [%r10-16], 0
        mov %r4, %r2
        and %r4, 7
        mov %r3, %r10
        add %r3, %r4
        stxb [%r3-16], %r2      # in the lower slot
        ldxdw %r2, [%r10-8]
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
        exit""", PURE, 14),
        exit={"value": 0x48},
    ),
    # CVE-2023-52462. Only one byte of a slot was looked at when it was decided whether a spilled pointer
    # was being overwritten: another byte could be, and the pointer was still trusted.
    Mistake(
        "CVE-2023-52462, a spilled pointer is partly overwritten",
        """
        lddw %r3, SCRATCH0
        stxdw [%r10-8], %r3
        stb [%r10-3], 9          # the mistake: it is still scratch + 0
        ldxdw %r3, [%r10-8]
        ldxb %r2, [%r3+0]
        mov %r0, 1
        exit""",
        errors.UNINITIALISED, 4, FaultKind.MEMORY,
        Legal("""
        lddw %r3, SCRATCH0
        stxdw [%r10-8], %r3
        stb [%r10-9], 1
        ldxdw %r3, [%r10-8]
        ldxb %r2, [%r3+0]
        mov %r0, 1
        exit""", PURE, 7),
        escapes=5,
    ),
    # Store immediates are sign-extended to 64 bits; a verifier that zero-extends them thinks that the upper
    # half of the slot is 0.
    Mistake(
        "sign extension of store immediates",
        """
        stdw [%r10-8], -1
        ldxdw %r2, [%r10-8]
        rsh %r2, 32             # 0xffffffff; the mistake: 0
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
        exit""",
        errors.OUT_OF_BOUNDS, 6, FaultKind.MEMORY,
        # With the sign extended, it is -1, and one more is 0.
        Legal("""
        stdw [%r10-8], -1
        ldxdw %r2, [%r10-8]
        add %r2, 1
        lddw %r3, SCRATCH0
        add %r3, %r2
        ldxb %r2, [%r3+0]
        mov %r0, 1
        exit""", PURE, 8),
    ),
    # A frame's contents end with it: the next callee at the same depth has a frame of its own, and what the
    # last one left in memory is not its to read.
    Mistake(
        "the frame of an earlier callee is read",
        """
        mov %r6, %r1
        call local set
        call local get
        stxdw [%r6+8], %r0
        mov %r0, 1
        exit
    set:
        stdw [%r10-8], 1
        mov %r0, 0
        exit
    get:
        ldxdw %r0, [%r10-8]
        exit""",
        errors.UNINITIALISED, 9, FaultKind.UNINITIALISED,
        Legal("""
        mov %r6, %r1
        call local set
        call local get
        stxdw [%r6+8], %r0
        mov %r0, 1
        exit
    set:
        stdw [%r10-8], 1
        mov %r0, 0
        exit
    get:
        stdw [%r10-8], 2
        ldxdw %r0, [%r10-8]
        exit""", PURE, 12),
    ),
    # A callee could hand out a pointer to its own frame, which the next call writes over.
    Mistake(
        "a pointer to a frame that is gone",
        """
        call local leave
        ldxdw %r2, [%r0+0]
        mov %r0, 1
        exit
    leave:
        stdw [%r10-8], 1
        mov %r0, %r10
        add %r0, -8
        exit""",
        errors.DANGLING, 7, FaultKind.MEMORY,
        Legal("""
        stdw [%r10-8], 0
        mov %r1, %r10
        add %r1, -8
        call local leave
        ldxdw %r2, [%r0+0]
        mov %r0, 1
        exit
    leave:
        stdw [%r1+0], 1
        mov %r0, %r1
        exit""", PURE, 10),
        escapes=1,
    ),
    # Of a stack slot only some bytes are set, and all are read.
    Mistake(
        "a slot is read of which only a part was written",
        """
        stw [%r10-8], 1
        ldxdw %r2, [%r10-8]
        stxdw [VALUE], %r2
        mov %r0, 1
        exit""",
        errors.UNINITIALISED, 1, FaultKind.UNINITIALISED,
        Legal("""
        stw [%r10-8], 1
        stw [%r10-4], 1
        ldxdw %r2, [%r10-8]
        stxdw [VALUE], %r2
        mov %r0, 1
        exit""", PURE, 6),
    ),
    # CVE-2017-17857. A read at a variable place of the stack may hit what was never written.
    Mistake(
        "CVE-2017-17857, a read at a variable place of the stack",
        """
        ldxdw %r2, [VALUE]
        and %r2, 8
        stdw [%r10-16], 0
        mov %r3, %r10
        add %r3, %r2
        ldxdw %r2, [%r3-16]
        mov %r0, 1
        exit""",
        errors.UNINITIALISED, 5, FaultKind.UNINITIALISED,
        Legal("""
        ldxdw %r2, [VALUE]
        and %r2, 8
        stdw [%r10-16], 0
        stdw [%r10-8], 0
        mov %r3, %r10
        add %r3, %r2
        ldxdw %r2, [%r3-16]
        mov %r0, 1
        exit""", PURE, 9),
        exit={"value": 8},
    ),
)  # fmt: skip

LEAKS = (
    # Addresses were stored where others read them. The shared area is mapped by userspace.
    Mistake(
        "a pointer is stored to shared memory",
        """
        lddw %r3, SCRATCH0
        stxdw [%r3+0], %r1
        mov %r0, 1
        exit""",
        errors.POINTER_LEAK, 2, Harm.LEAK,
        Legal("""
        lddw %r3, SCRATCH0
        stxdw [%r10-8], %r1
        mov %r0, 1
        exit""", PURE, 4),
    ),
    # Half of a spilled pointer, loaded as a number, is half an address.
    Mistake(
        "a spilled pointer is read in part",
        """
        stxdw [%r10-8], %r10
        ldxw %r2, [%r10-4]
        stxdw [VALUE], %r2
        mov %r0, 1
        exit""",
        errors.POINTER_ARITHMETIC, 1, Harm.LEAK,
        # The distance of two pointers into one region is a number like any other.
        Legal("""
        stxdw [%r10-8], %r10
        ldxdw %r2, [%r10-8]
        sub %r2, %r10
        stxdw [VALUE], %r2
        mov %r0, 1
        exit""", PURE, 6),
    ),
    # CVE-2021-47608. An atomic operation that fetches gave back what the stack held, and that was a
    # pointer.
    Mistake(
        "CVE-2021-47608, an atomic operation fetches a pointer",
        """
        stxdw [%r10-8], %r10
        mov %r2, 0
        lock fetch or [%r10-8], %r2
        stxdw [VALUE], %r2
        mov %r0, 1
        exit""",
        errors.POINTER_ARITHMETIC, 2, Harm.LEAK,
        Legal("""
        stdw [%r10-8], 5
        mov %r2, 0
        lock fetch or [%r10-8], %r2
        stxdw [VALUE], %r2
        mov %r0, 1
        exit""", PURE, 6),
    ),
    # CVE-2021-47607. Compare-and-exchange with a pointer in r0 tells whether memory holds that address; in
    # shared memory userspace can guess it, value by value.
    Mistake(
        "CVE-2021-47607, compare-and-exchange with a pointer",
        """
        lddw %r3, SCRATCH0
        mov %r0, %r3
        mov %r2, 1
        lock cmpxchg [%r3+0], %r2
        mov %r0, 1
        exit""",
        errors.POINTER_LEAK, 4, Harm.LEAK,
        Legal("""
        lddw %r3, SCRATCH0
        mov %r0, 0
        mov %r2, 1
        lock cmpxchg [%r3+0], %r2
        mov %r0, 1
        exit""", MUTATING, 6),
        # The address of scratch, as userspace has guessed it.
        scratch={index: BASES[Region.SCRATCH] >> 8 * index & 255 for index in range(8)},
    ),
    # A pointer is exchanged into shared memory.
    Mistake(
        "an atomic exchange stores a pointer",
        """
        lddw %r3, SCRATCH0
        lock xchg [%r3+0], %r1
        mov %r0, 1
        exit""",
        errors.POINTER_LEAK, 2, Harm.LEAK,
        Legal("""
        lddw %r3, SCRATCH0
        mov %r2, 7
        lock xchg [%r3+0], %r2
        mov %r0, 1
        exit""", MUTATING, 5),
    ),
    # An address that is compared with a number is learnt bit by bit.
    Mistake(
        "an address is compared with a number",
        """
        lddw %r2, 0x30000000000
        mov %r0, 1
        jgt %r1, %r2, out
        mov %r0, 0
    out:
        exit""",
        errors.POINTER_COMPARISON, 3, Harm.LEAK,
        Legal("""
        mov %r2, %r1
        add %r2, 8
        mov %r0, 1
        jgt %r2, %r1, out
        mov %r0, 0
    out:
        exit""", PURE, 5),
    ),
    # Bitwise arithmetic makes a number of a pointer, if it is allowed at all: `xor` with 0 is enough.
    Mistake(
        "bitwise arithmetic on a pointer",
        """
        mov %r2, %r1
        xor %r2, 0
        stxdw [VALUE], %r2
        mov %r0, 1
        exit""",
        errors.POINTER_ARITHMETIC, 1, Harm.LEAK,
        Legal("""
        mov %r2, %r1
        sub %r2, %r1
        stxdw [VALUE], %r2
        mov %r0, 1
        exit""", PURE, 5),
    ),
)  # fmt: skip
