"""The disassembler: text that LLVM's readers expect, and no two instructions that look the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devbc.diagnostics import Span
from devbc.isa.asm import assemble
from devbc.isa.disasm import disassemble, listing
from devbc.isa.insn import Insn, decode, encode
from devbc.isa.opcodes import SPECS
from tests.strategies import INSNS, insns_of

#: What llvm-objdump prints for these, except that it writes offsets in hexadecimal.
EXAMPLES = {
    "add %r1, %r2": "r1 += r2",
    "sdiv %r0, %r2": "r0 s/= r2",
    "smod32 %r0, 7": "w0 s%= 7",
    "arsh32 %r3, 4": "w3 s>>= 4",
    "mov32 %r1, -1": "w1 = -1",
    "movsx1632 %r1, %r2": "w1 = (s16)w2",
    "neg32 %r1": "w1 = -w1",
    "be16 %r1": "r1 = be16 r1",
    "bswap64 %r1": "r1 = bswap64 r1",
    "ldxb %r0, [%r1+8]": "r0 = *(u8 *)(r1 + 8)",
    "ldxsw %r0, [%r1-4]": "r0 = *(s32 *)(r1 - 4)",
    "stxdw [%r10-8], %r1": "*(u64 *)(r10 - 8) = r1",
    "sth [%r1+0], 3": "*(u16 *)(r1 + 0) = 3",
    "lock add32 [%r1+0], %r2": "lock *(u32 *)(r1 + 0) += w2",
    "lock fetch or [%r1+0], %r2": "r2 = atomic_fetch_or((u64 *)(r1 + 0), r2)",
    "lock xchg32 [%r1+0], %r2": "w2 = xchg32_32(r1 + 0, w2)",
    "lock cmpxchg [%r1+0], %r2": "r0 = cmpxchg_64(r1 + 0, r0, r2)",
    "lddw %r1, 0x1122334455667788": "r1 = 0x1122334455667788 ll",
    "lddw %r1, map_value_by_idx 0, 0x10": "r1 = scratch + 0x10 ll",
    "lddw %r1, map_value_by_idx 1, 0": "r1 = rodata + 0x0 ll",
    "jgt32 %r1, 7, +3": "if w1 > 7 goto +3",
    "jset %r1, %r2, -3": "if r1 & r2 goto -3",
    "ja +3": "goto +3",
    "ja32 +3": "gotol +3",
    "call 5": "call ktime_get_ns",
    "call 7": "call 7",
    "call local +2": "call +2",
    "exit": "exit",
}


@pytest.mark.parametrize(("text", "expected"), EXAMPLES.items())
def test_examples(text: str, expected: str) -> None:
    assert disassemble(assemble(text)[0]) == expected


@given(st.sampled_from(list(SPECS.values())).flatmap(lambda spec: st.tuples(insns_of(spec), insns_of(spec))))
def test_text_tells_operands_apart(pair: tuple[Insn, Insn]) -> None:
    one, other = pair
    assert (disassemble(one) == disassemble(other)) == (one == other)


def test_text_tells_forms_apart() -> None:
    assert len({disassemble(Insn(spec, 3, 2, -8, 7)) for spec in SPECS.values()}) == len(SPECS)


@given(st.lists(INSNS, min_size=1, max_size=10))
def test_listing_never_fails(insns: list[Insn]) -> None:
    assert listing(decode(encode(insns)))


def test_every_operation_has_text() -> None:
    for spec in SPECS.values():
        fields = {name: getattr(spec, name) or 0 for name in ("dst", "src", "off", "imm")}
        assert disassemble(Insn(spec, **fields))


def test_listing() -> None:
    insns = decode(
        encode(assemble("lddw %r0, 1\njeq %r0, 1, exit\ncall local f\nexit\nf:\nmov %r0, 0\nexit"))
    )
    line, next_line = Span("pit.dev", 12, 3, 9, "  return 1;"), Span("pit.dev", 13, 1, 2, "}")
    text = listing(insns, functions={0: "read", 5: "f"}, lines={0: line, 2: next_line, 3: next_line})
    assert text == (
        "read:\n"
        "; pit.dev:12: return 1;\n"
        "  0: r0 = 0x1 ll\n"
        "; pit.dev:13: }\n"
        "  2: if r0 == 1 goto L4\n"
        "  3: call f\n"
        "L4:\n"
        "  4: exit\n"
        "\n"
        "f:\n"
        "  5: r0 = 0\n"
        "  6: exit"
    )
