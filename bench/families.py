"""Programs of any size, in families: what the verifier's cost is measured on.

Each function of `FAMILIES` returns the assembly of a handler of about so many instructions, accepted by the
verifier. The families are shapes of control flow, not devices: a straight line, branches that meet again, the
same where each leaves a trace behind, loops that run, calls. `HOSTILE` holds programs that were made to
cost as much as possible for their size.

Not here: measuring (`verification.py`), and which of them must be cheap (`tests/verifier/test_cost.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

Family = Callable[[int], str]

_ENTRY: Final = "mov %r6, %r1\nldxdw %r3, [%r6+8]\nldxdw %r2, [%r6+16]"
_EXIT: Final = "mov %r0, 1\nexit"


def _program(body: list[str]) -> str:
    return "\n".join([_ENTRY, *body, _EXIT])


def straight_line(size: int) -> str:
    """Arithmetic, stack traffic, scratch traffic; not one branch."""
    lines = (
        "ldxw %r4, [%r6+8]", "and %r4, 15", "lsh %r4, 2", "stxdw [%r10-8], %r4", "add %r3, %r2",
        "xor %r2, 21", "rsh %r3, 3", "ldxdw %r5, [%r10-8]",
        "lddw %r7, map_value_by_idx 0, 0", "add %r7, %r5", "ldxw %r8, [%r7+0]", "stxw [%r7+0], %r3",
    )  # fmt: skip
    return _program([lines[number % len(lines)] for number in range(size - 5)])


def branches(size: int) -> str:
    """Tests of an unknown value whose two sides meet again and leave nothing different behind."""
    body: list[str] = []
    for number in range(size // 5):
        bit = number % 32
        body += [
            f"mov %r4, %r2\nrsh %r4, {bit}\nand %r4, 1\njeq %r4, 0, m{number}\nmov %r5, {number}\nm{number}:"
        ]
    return _program(body)


def traces(size: int) -> str:
    """Branches that each change an unknown number which is used at the end: no two paths are alike."""
    body: list[str] = []
    for number in range(size // 3):
        body += [
            f"jset %r2, {1 << number % 31}, m{number}\nadd %r3, %r2\nxor %r3, {number * 7 + 1}\nm{number}:"
        ]
    return _program([*body, "stxdw [%r6+8], %r3"])


def loops(size: int) -> str:
    """Loops of sixteen rounds, one behind the other; `size` counts the instructions that a run takes."""
    body: list[str] = []
    for number in range(max(1, size // (2 + 16 * 5))):
        body += [
            f"mov %r4, 0\nlddw %r7, map_value_by_idx 0, 0\nl{number}:\n"
            "ldxb %r5, [%r7+0]\nadd %r3, %r5\nadd %r7, 1\nadd %r4, 1\n"
            f"jlt %r4, 16, l{number}"
        ]
    return _program(body)


def calls(size: int) -> str:
    """Calls of a function with a branch in it, by different arguments; `size` counts a run's instructions."""
    body = ["mov %r7, %r2"]
    for number in range(size // 9):
        body += [f"mov %r1, %r7\nmov %r2, {number % 64}\ncall local f\nadd %r7, %r0"]
    callee = "f:\nand %r1, 255\njgt %r1, %r2, g\nmov %r0, %r1\nexit\ng:\nmov %r0, %r2\nexit"
    return _program(body) + "\n" + callee


FAMILIES: Final[Mapping[str, Family]] = {
    "straight line": straight_line,
    "branches": branches,
    "branches that leave a trace": traces,
    "loops": loops,
    "calls": calls,
}


def wide_stack(rounds: int) -> str:
    """Each round forks forty times with 512 bytes of the stack alive, each byte a cell of its own."""
    body = [*(f"stxb [%r10-{1 + byte}], %r2" for byte in range(512)), "mov %r4, 0", "l:"]
    for number in range(40):
        body += [f"jset %r3, {1 << number % 31}, m{number}\nstxb [%r10-{1 + number}], %r4\nm{number}:"]
    body += ["add %r4, 1", f"jlt %r4, {rounds}, l", *(f"ldxb %r5, [%r10-{1 + byte}]" for byte in range(512))]
    return _program(body)


def many_copies(rounds: int) -> str:
    """Each branch teaches something about a number that has 64 copies on the stack."""
    body = [*(f"stxdw [%r10-{8 + 8 * cell}], %r3" for cell in range(64)), "mov %r4, 0", "l:"]
    body += [f"jeq %r3, {7 * number + 3}, m{number}\nm{number}:" for number in range(64)]
    body += ["add %r4, 1", f"jlt %r4, {rounds}, l"]
    return _program([*body, *(f"ldxdw %r5, [%r10-{8 + 8 * cell}]" for cell in range(64))])


def doubling(rounds: int) -> str:
    """Each branch leaves two known numbers for each that came: nothing can be joined."""
    body = ["mov %r7, 0"]
    for number in range(rounds):
        body += [f"ldxdw %r3, [%r6+8]\njeq %r3, 0, m{number}\nmul %r7, 3\nadd %r7, {number + 1}\nm{number}:"]
    return _program([*body, "stxdw [%r6+8], %r7"])


HOSTILE: Final[Mapping[str, str]] = {
    "a wide stack": wide_stack(60_000),
    "many copies": many_copies(60_000),
    "doubling": doubling(2_000),
}
