"""What is reported as touched, byte for byte: against all that concrete runs touch, for every index."""

from __future__ import annotations

import random

import pytest

from devbc.abi import EXIT_FIELDS, EXIT_SIZE
from devbc.engines.interpreter import BASES, State, run_handler
from devbc.isa.opcodes import Kind
from devbc.program.verified import Region, VerifiedHandler
from tests.verifier.oracle import verify

SCRATCH = 512
VALUE = EXIT_FIELDS["value"]


def reported(verified: VerifiedHandler) -> set[int]:
    return {byte for each in verified.scratch_read for byte in range(each.start, each.end)}


def touched(verified: VerifiedHandler, value: int, fill: int = 0) -> set[int]:
    """The bytes of scratch, all of them `fill`, that one run loads."""
    found: set[int] = set()

    def observer(state: State) -> None:
        insn = verified.insns[state.slot]
        if insn.spec.kind is Kind.LOAD:
            offset = state.get(insn.src) + insn.off - BASES[Region.SCRATCH]
            if 0 <= offset < SCRATCH:
                found.update(range(offset, offset + insn.spec.bytes))

    exit_ = bytearray(EXIT_SIZE)
    exit_[VALUE.offset : VALUE.end] = value.to_bytes(8, "little")
    run_handler(verified, exit_, bytearray([fill] * SCRATCH), b"", lambda: 0, observer=observer)
    return found


def check_exact(text: str) -> None:
    """The report is what runs with every byte as the guest's value touch together."""
    verified = verify(text, section="mmio/write@0x0:1", scratch_size=SCRATCH)
    together: set[int] = set()
    for value in range(256):
        together |= touched(verified, value, 0) | touched(verified, value, 1)
    assert reported(verified) == together


EXACT = {
    "structures of 24 bytes": "and %r2, 7\nmul %r2, 24\nadd %r3, %r2\nldxw %r4, [%r3+8]\nldxb %r4, [%r3+21]",
    "multiplied in 32 bits": "and %r2, 7\nmul32 %r2, 24\nadd %r3, %r2\nldxw %r4, [%r3+8]",
    "the address is added to the index": "and %r2, 7\nmul %r2, 24\nadd %r2, %r3\nldxw %r4, [%r2+8]",
    "an index from 2 on": "and %r2, 3\nadd %r2, 2\nmul %r2, 24\nadd %r3, %r2\nldxw %r4, [%r3-40]",
    "the index is shifted, too": "and %r2, 7\nmul %r2, 3\nlsh %r2, 3\nadd %r3, %r2\nldxw %r4, [%r3+4]",
    "two fields by two ways": (
        "and %r2, 7\nmul %r2, 24\nadd %r3, %r2\nldxb %r4, [%r3+1]\njeq %r4, 0, +1\nldxb %r4, [%r3+5]"
    ),
    "compared, not masked": "jgt %r2, 4, +4\nmul %r2, 40\nadd %r3, %r2\nldxdw %r4, [%r3+16]\nja +0",
    "a power of two, without a product": "and %r2, 7\nlsh %r2, 5\nadd %r3, %r2\nldxw %r4, [%r3+8]",
    "kept over a call": "and %r2, 7\nmul %r2, 24\nadd %r3, %r2\nmov %r6, %r3\ncall 5\nldxw %r4, [%r6+8]",
    "with gaps in the index": "and %r2, 5\nmul %r2, 24\nadd %r3, %r2\nldxb %r4, [%r3+0]",
}


@pytest.mark.parametrize("name", EXACT)
def test_exact(name: str) -> None:
    start = "ldxdw %r2, [%r1+8]\nlddw %r3, map_value_by_idx 0, 0\n"
    check_exact(f"{start}{EXACT[name]}\nmov %r0, 1\nexit")


#: What the dataflow cannot follow, or must not: the report may be wider, and must hold.
WIDE = {
    "one of two strides": "jeq %r2, 3, +2\nmul %r2, 24\nja +1\nmul %r2, 40\nadd %r3, %r2\nldxb %r4, [%r3+0]",
    "one of two bases": "mul %r2, 24\njeq %r5, 3, +1\nadd %r3, 4\nadd %r3, %r2\nldxb %r4, [%r3+0]",
    "a sum of two indices": (
        "mov %r4, %r2\nmul %r4, 3\nmul %r2, 24\nadd %r3, %r2\nadd %r3, %r4\nldxb %r4, [%r3+0]"
    ),
    "multiplied twice over": "mul %r2, 3\nmul %r2, 5\nadd %r3, %r2\nldxb %r4, [%r3+0]",
    "multiplied in a loop": (
        "mov %r4, 2\nmul %r2, 3\nadd %r4, -1\njne %r4, 0, -3\nadd %r3, %r2\nldxb %r4, [%r3+0]"
    ),
    "moved along in a loop": (
        "mul %r2, 24\nadd %r3, %r2\nmov %r4, 3\nldxb %r5, [%r3+2]\nadd %r3, 7\nadd %r4, -1\njne %r4, 0, -4"
    ),
    "spilled": "mul %r2, 24\nstxdw [%r10-8], %r2\nldxdw %r2, [%r10-8]\nadd %r3, %r2\nldxb %r4, [%r3+0]",
    "overwritten by a product in 32 bits": (
        "lddw %r4, 0x100000000\nadd %r2, %r4\nmul32 %r2, 24\nadd %r3, %r2\nldxb %r4, [%r3+0]"
    ),
}


@pytest.mark.parametrize("name", WIDE)
def test_holds(name: str) -> None:
    start = "ldxdw %r2, [%r1+8]\nmov %r5, %r2\nand %r2, 7\nlddw %r3, map_value_by_idx 0, 0\n"
    text = f"{start}{WIDE[name]}\nmov %r0, 1\nexit"
    verified = verify(text, section="mmio/write@0x0:1", scratch_size=SCRATCH)
    for value in range(256):
        assert touched(verified, value) <= reported(verified)


@pytest.mark.parametrize("seed", range(60))
def test_random_address_arithmetic(seed: int) -> None:
    rng = random.Random(seed)
    lines = ["ldxdw %r2, [%r1+8]", "mov %r5, %r2", "and %r2, 7", "mov %r4, 1"]
    lines += ["lddw %r3, map_value_by_idx 0, 0"]
    for _ in range(rng.randrange(3, 12)):
        a, b = rng.choice([(2, 4), (4, 2), (2, 2), (4, 4)])
        lines.append(
            rng.choice(
                [
                    f"mul{rng.choice(['', '32'])} %r{a}, {rng.choice([3, 5, 24, 1])}",
                    f"add %r{a}, {rng.randrange(4)}",
                    f"sub %r{a}, {rng.randrange(2)}",
                    f"mov{rng.choice(['', '32'])} %r{a}, %r{b}",
                    f"add %r{a}, %r{b}",
                    f"lsh %r{a}, 1",
                    f"jeq %r5, {rng.randrange(8)}, +{rng.randrange(3)}",
                    f"and %r{a}, 31",
                ]
            )
        )
    lines += ["mov %r4, %r4"] * 3
    lines += [f"and %r{rng.choice([2, 4])}, 255", "jgt %r2, 400, +2", "add %r3, %r2", "ldxb %r4, [%r3+9]"]
    text = "\n".join([*lines, "mov %r0, 1", "exit"])
    verified = verify(text, section="mmio/write@0x0:1", scratch_size=SCRATCH)
    for value in range(256):
        assert touched(verified, value) <= reported(verified)
