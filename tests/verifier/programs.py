"""Random handlers, made so that a good part of them is accepted: what compilers make, put together blindly.

Registers r0 to r5 and r8 hold numbers, r6 the exit, r7 loop counters, r9 addresses. The statements are those
that a verifier must understand: masked and compared indices, copies, 32-bit moves, spills and fills,
partial stores, byte copies, table loads, loops up, down and with `!=`, with an inner loop whose counter is
on the stack, nested branches, local calls that are given pointers into the caller's stack and scratch,
atomics, the clock, effects, declines. Some are wrong on purpose (a bound one too large), so that acceptance
means something.
"""

from __future__ import annotations

import random

from devbc.abi import EXIT_FIELDS
from devbc.isa.asm import assemble
from devbc.isa.insn import Insn

NUMBERS = (0, 1, 2, 3, 4, 5, 8)
ALU = ("add", "sub", "mul", "div", "mod", "or", "and", "xor", "lsh", "rsh", "arsh", "sdiv", "smod", "mov")
JUMPS = ("jeq", "jne", "jgt", "jge", "jlt", "jle", "jset", "jsgt", "jsge", "jslt", "jsle")
SIZES = {"b": 1, "h": 2, "w": 4, "dw": 8}
SCRATCH, RODATA = 64, 64
#: What a callee does with r1 (a number), r2 (its caller's stack or scratch, 8 bytes) and r3 (a number).
CALLEES = (
    """
    mov %r6, %r1
    mov %r0, 5
    and %r1, 7
    jgt %r6, 9, skip
    ldxdw %r0, [%r2+0]
    stxdw [%r2+0], %r6
skip:
    exit""",
    """
    and %r3, 7
    add %r3, 1
    stdw [%r10-8], 0
    mov %r6, %r2
    mov %r0, 0
round:
    ldxb %r1, [%r6+0]
    ldxb %r4, [%r10-8]
    add %r0, %r1
    xor %r4, %r1
    stxb [%r10-8], %r4
    add %r6, 1
    add %r3, -1
    jne32 %r3, 0, round
    ldxdw %r1, [%r10-8]
    add %r0, %r1
    exit""",
    """
    stxdw [%r10-8], %r2
    stxw [%r10-16], %r1
    stw [%r10-12], 0
    mov %r1, %r10
    add %r1, -16
    call local inner
    ldxdw %r2, [%r10-8]
    ldxw %r1, [%r10-16]
    jgt %r1, 3, out
    add %r2, %r1
    ldxb %r0, [%r2+0]
out:
    exit
inner:
    ldxw %r0, [%r1+0]
    and %r0, 7
    stxw [%r1+0], %r0
    call ktime_get_ns
    exit""",
)


class Writer:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.lines: list[str] = []
        self.labels = 0
        self.wrote = False

    def label(self) -> str:
        self.labels += 1
        return f"l{self.labels}"

    def put(self, *lines: str) -> None:
        self.lines += lines

    def number(self) -> int:
        return self.rng.choice(NUMBERS)

    def constant(self) -> int:
        rng = self.rng
        return rng.choice(
            [rng.randrange(16), rng.randrange(-4, 300), rng.randrange(-(1 << 31), 1 << 31), 0, -1]
        )

    def operand(self) -> str:
        return str(self.constant()) if self.rng.random() < 0.6 else f"%r{self.number()}"

    def condition(self, target: str) -> str:
        suffix = self.rng.choice(["", "32"])
        return f"{self.rng.choice(JUMPS)}{suffix} %r{self.number()}, {self.operand()}, {target}"

    def block(self, depth: int, length: int) -> None:
        statements = [
            self.alu,
            self.alu,
            self.load,
            self.copy,
            self.spill,
            self.indexed,
            self.compared,
            self.linked,
        ]
        statements += [self.partial, self.extend, self.copied, self.effect, self.clock]
        if depth:
            statements += [self.branch, self.branch, self.loop, self.inner_loop]
        for _ in range(self.rng.randrange(1, length + 1)):
            self.rng.choice(statements)()

    def alu(self) -> None:
        suffix = self.rng.choice(["", "32"])
        self.put(f"{self.rng.choice(ALU)}{suffix} %r{self.number()}, {self.operand()}")

    def extend(self) -> None:
        a = self.number()
        line = self.rng.choice(
            ["neg %r{a}", "neg32 %r{a}", "be16 %r{a}", "be32 %r{a}", "le16 %r{a}", "bswap64 %r{a}",
             "movsx864 %r{a}, %r{b}", "movsx832 %r{a}, %r{b}", "movsx3264 %r{a}, %r{b}",
             "movsx1632 %r{a}, %r{b}"])  # fmt: skip
        self.put(line.format(a=a, b=self.number()))

    def load(self) -> None:
        name, offset = self.rng.choice(
            [
                ("dw", 0),
                ("dw", 8),
                ("w", 8),
                ("b", 8),
                ("h", 10),
                ("w", 24),
                ("dw", 16),
                ("sw", 8),
                ("sb", 8),
                ("sh", 12),
            ]
        )
        self.put(f"ldx{name} %r{self.number()}, [%r6+{offset}]")

    def effect(self) -> None:
        """Fill in the answer or an effect; masks within their ports, deadlines by index."""
        a, rng = self.number(), self.rng
        name = rng.choice(["value", "value", "raise", "lower", "signal", "arm", "cancel", "deadline"])
        field = EXIT_FIELDS[name]
        if name in ("arm", "cancel"):
            self.put(f"and %r{a}, {rng.choice([0xFF, 1, 0x80, 0x1FF])}")
        if name != "deadline":
            self.put(f"stx{'dw' if field.size == 8 else 'w'} [%r6+{field.offset}], %r{a}")
            return
        b = 5 if a != 5 else 8
        self.put(f"mov %r{b}, %r{a}", f"and %r{b}, {rng.choice([7, 7, 3, 15])}", f"lsh %r{b}, 3")
        self.put("mov %r9, %r6", f"add %r9, %r{b}", f"stxdw [%r9+{field.offset}], %r{a}")

    def clock(self) -> None:
        self.put("call ktime_get_ns", f"mov %r8, {self.constant()}")
        self.put(*(f"mov %r{each}, {self.constant()}" for each in range(1, 6)))
        self.put(self.rng.choice(["rsh %r0, 3", "mod %r0, 8", "mov %r1, %r0", "div %r0, 1000"]))

    def copied(self) -> None:
        """Copy the bytes of a spilled number one by one, and load them as one."""
        a, b = self.rng.sample(NUMBERS, 2)
        name, size = self.rng.choice([("h", 2), ("w", 4), ("dw", 8)])
        self.put(f"stxdw [%r10-32], %r{a}")
        for byte in range(size):
            self.put(f"ldxb %r{b}, [%r10-{32 - byte}]", f"stxb [%r10-{24 - byte}], %r{b}")
        self.put(f"ldx{self.rng.choice(['', 's']) if size < 8 else ''}{name} %r{b}, [%r10-24]")

    def copy(self) -> None:
        self.put(f"mov{self.rng.choice(['', '', '32'])} %r{self.number()}, %r{self.number()}")

    def spill(self) -> None:
        offset = -8 * self.rng.randrange(1, 4)
        name = self.rng.choice(["dw", "dw", "w"])
        self.put(f"stx{name} [%r10{offset}], %r{self.number()}")
        if self.rng.random() < 0.7:
            self.block(0, 2)
            self.put(f"ldx{name} %r{self.number()}, [%r10{offset}]")

    def partial(self) -> None:
        at = self.rng.randrange(8)
        self.put(f"stxdw [%r10-32], %r{self.number()}", f"stxb [%r10-{32 - at}], %r{self.number()}")
        name, size = self.rng.choice(list(SIZES.items()))
        self.put(f"ldx{name} %r{self.number()}, [%r10-{32 - at // size * size}]")

    def access(self, index: int) -> None:
        """Load or store at an index in r`index`, believed to be small."""
        rng = self.rng
        name, size = rng.choice(list(SIZES.items()))
        shift = size.bit_length() - 1 if rng.random() < 0.9 else 0
        kind = rng.randrange(5)
        if kind < 4:
            self.put(f"lddw %r9, map_value_by_idx {rng.choice([0, 1])}, 0" if kind < 3 else "mov %r9, %r10")
            if kind == 3:
                self.put(
                    *(f"stdw [%r10-{64 - 8 * each}], {self.constant()}" for each in range(8)), "add %r9, -64"
                )
        if kind == 4:
            self.put("lddw %r9, map_value_by_idx 0, 0")
        scaled = 8 if index != 8 else 5
        self.put(f"mov %r{scaled}, %r{index}", f"lsh %r{scaled}, {shift}", f"add %r9, %r{scaled}")
        if kind == 4 and size >= 4:
            suffix = "32" if size == 4 else ""
            op = rng.choice(["add", "fetch add", "xchg", "cmpxchg", "fetch or", "and"])
            self.put(f"lock {op}{suffix} [%r9+0], %r{self.number()}")
        elif (kind == 3 and rng.random() < 0.5) or (kind == 0 and rng.random() < 0.5):
            self.put(f"stx{name} [%r9+0], %r{self.number()}")
        else:
            self.put(f"ldx{name} %r{self.number()}, [%r9+0]")

    def indexed(self) -> None:
        a = self.number()
        self.put(f"and{self.rng.choice(['', '32'])} %r{a}, {self.rng.choice([1, 3, 7, 7, 15])}")
        self.access(a)

    def compared(self) -> None:
        a, out = self.number(), self.label()
        suffix = self.rng.choice(["", "", "32"])
        op, bound = self.rng.choice([("jgt", 7), ("jge", 8), ("jgt", 6), ("jsgt", 7), ("jgt", 8), ("jne", 3)])
        self.put(f"{op}{suffix} %r{a}, {bound}, {out}")
        self.access(a)
        self.put(f"{out}:")

    def linked(self) -> None:
        """Check a copy, use the original."""
        a, b = self.rng.sample(NUMBERS, 2)
        out, delta = self.label(), self.rng.choice([0, 0, 3, -2])
        move, compare = self.rng.choice([("mov", ""), ("mov32", "32"), ("mov", "32")])
        self.put(f"{move} %r{b}, %r{a}")
        if delta:
            self.put(f"add{self.rng.choice(['', compare])} %r{b}, {delta}")
        self.put(f"jgt{compare} %r{b}, {self.rng.choice([3, 7])}, {out}")
        if self.rng.random() < 0.5:
            self.put(f"mov32 %r{a}, %r{a}")
        self.access(a)
        self.put(f"{out}:")

    def branch(self) -> None:
        other, end = self.label(), self.label()
        self.put(self.condition(other))
        self.block(self.rng.randrange(2), 3)
        if self.rng.random() < 0.15:
            self.put(f"mov %r0, {self.rng.choice([0, 1])}", "exit")
        self.put(f"ja {end}", f"{other}:")
        self.block(0, 2)
        self.put(f"{end}:")

    def loop(self) -> None:
        if "mov %r7" in "".join(self.lines[-40:]):
            return
        head, bound = self.label(), self.rng.randrange(1, 6)
        start, step, test = self.rng.choice([
            (0, 1, f"jlt %r7, {bound}"), (bound, -1, "jne %r7, 0"), (0, 2, f"jne %r7, {2 * bound}"),
            (bound, -1, "jsgt32 %r7, 0"), (0, 3, f"jle %r7, {bound}"),
        ])  # fmt: skip
        self.put(f"mov %r7, {start}", f"{head}:")
        self.block(1, 3)
        self.put(f"add %r7, {step}", f"{test}, {head}")

    def inner_loop(self) -> None:
        """A loop that may stand inside another: its counter is spilled, as when registers run out."""
        head, rng = self.label(), self.rng
        place, bound = rng.choice([-72, -80]), rng.randrange(1, 4)
        a = self.number()
        start, step, test = rng.choice([(0, 1, f"jlt32 %r{a}, {bound}"), (bound, -1, f"jne %r{a}, 0")])
        self.put(f"stdw [%r10{place}], {start}", f"{head}:")
        self.block(0, 2)
        self.put(f"ldxdw %r{a}, [%r10{place}]", f"add %r{a}, {step}", f"stxdw [%r10{place}], %r{a}")
        self.put(f"{test}, {head}")

    def call(self) -> None:
        """Call `callee`, and write what the call has cleared."""
        self.put(f"mov %r1, %r{self.number()}")
        if self.rng.random() < 0.6:
            self.put("mov %r2, %r10", f"add %r2, {-8 * self.rng.randrange(1, 4)}")
        else:
            self.put(f"lddw %r2, map_value_by_idx 0, {8 * self.rng.randrange(8)}")
        self.put(f"mov %r3, {self.rng.randrange(16)}", "call local callee")
        self.put("mov %r5, %r0", "mov %r4, 1", "mov %r3, %r0", "mov %r2, 2", "mov %r1, 3")

    def program(self) -> str:
        rng = self.rng
        self.put("mov %r6, %r1")
        self.put(*(f"mov %r{each}, {rng.randrange(8)}" for each in NUMBERS))
        for offset in (8, 16, 24):
            self.put(f"stdw [%r10-{offset}], {rng.randrange(4)}")
        for _ in range(3):
            self.load()
        calls = rng.random() < 0.3
        self.block(2, 8)
        for _ in range(rng.randrange(1, 3) if calls else 0):
            self.call()
            self.block(1, 4)
        end = rng.choice(["mov %r0, 1", "mov %r0, 1", "mov %r0, 0", "and %r0, 1"])
        self.put(end, "exit")
        if calls:
            self.put("callee:", rng.choice(CALLEES))
        return "\n".join(self.lines)


def random_program(rng: random.Random) -> list[Insn]:
    return assemble(Writer(rng).program())
