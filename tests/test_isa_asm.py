"""The assembler: inverse of its printer for every form, and a diagnosis for everything else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devbc.diagnostics import Code, Rejected, render
from devbc.isa import errors
from devbc.isa.asm import FORMS, assemble, to_asm
from devbc.isa.insn import Insn
from devbc.isa.opcodes import SPECS, Spec
from tests.strategies import INSNS, insns_of


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@settings(max_examples=20)
@given(data=st.data())
def test_assemble_inverts_to_asm(spec: Spec, data: st.DataObject) -> None:
    insn = data.draw(insns_of(spec))
    assert assemble(to_asm(insn)) == [insn]


@given(st.lists(INSNS, min_size=1, max_size=12))
def test_whole_programs(insns: list[Insn]) -> None:
    assert assemble("\n".join(map(to_asm, insns))) == insns


TOKENS = st.sampled_from(
    [*FORMS, "lock", "fetch", "%r0", "%r10", "%r11", "%r", "[%r1+8]", "[%r1", "0x", "1", "-1", "+3", ",", ":",
     "x:", "x", "9" * 5000, "0x" + "f" * 5000, "%r" + "1" * 5000, "local", "map_by_idx", "#", "\n", "\t"]
)  # fmt: skip


@given(st.one_of(st.text(), st.lists(TOKENS).map(" ".join)))
def test_any_text_assembles_or_is_rejected(text: str) -> None:
    try:
        assert assemble(text)
    except Rejected as rejected:
        for each in rejected.diagnostics:
            render(each)


def test_labels_and_the_exit_label() -> None:
    insns = assemble("again:\nlddw %r0, 1\njeq %r0, 1, exit\nja again\nexit\nexit")
    assert [each.off for each in insns] == [0, 1, -4, 0, 0]


def test_labels_reach_ja32_and_local_calls_by_imm() -> None:
    insns = assemble("ja32 end\ncall local end\nend:\nexit")
    assert [each.imm for each in insns] == [1, 0, 0]


def test_hexadecimal_immediates_are_bit_patterns() -> None:
    assert assemble("mov %r0, 0xffffffff")[0].imm == -1
    assert assemble("lddw %r0, -1")[0].imm == (1 << 64) - 1


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("", errors.ASM_SYNTAX, "there are no instructions"),
        ("add %r0,", errors.ASM_SYNTAX, "missing"),
        ("mvo %r0, 1", errors.ASM_MNEMONIC, "did you mean `mov`?"),
        ("add %r0", errors.ASM_OPERANDS, "takes 2 operands, and has 1"),
        ("exit 1", errors.ASM_OPERANDS, "takes no operands"),
        ("add r0, 1", errors.ASM_OPERANDS, "registers are written `%r0`"),
        ("movsx832 %r0, 1", errors.ASM_OPERANDS, "takes a register"),
        ("ldxb %r0, %r1", errors.ASM_OPERANDS, "memory is written"),
        ("call %r2", errors.ASM_OPERANDS, "no call by register"),
        ("call ktime_get_n", errors.ASM_OPERANDS, "did you mean `ktime_get_ns`?"),
        ("lddw %r0, map_by_index 1", errors.ASM_OPERANDS, "did you mean `map_by_idx`?"),
        ("mov %r11, 1", errors.BAD_REGISTER, "no register r11"),
        ("mov %r10, 1", errors.BAD_REGISTER, "frame pointer"),
        ("lock cmpxchg [%r10-8], %r10\nlock xchg [%r1+0], %r10", errors.BAD_REGISTER, "frame pointer"),
        ("mov %r0, 2147483648", errors.ASM_RANGE, "-2147483648 to 2147483647"),
        ("mov %r0, 0x100000000", errors.ASM_RANGE, "0 to 0xffffffff"),
        ("ldxb %r0, [%r1+0x8000]", errors.ASM_RANGE, "-32768 to 32767"),
        ("lddw %r0, 0x10000000000000000", errors.ASM_RANGE, "64 bits"),
        ("ja far\n" + "mov %r0, 0\n" * 40_000 + "far:\nexit", errors.ASM_RANGE, "the distance"),
        ("a:\na:\nexit", errors.ASM_LABEL, "defined twice"),
        ("ja lopo\nloop:\nexit", errors.ASM_LABEL, "did you mean `loop`?"),
        ("ja exit", errors.ASM_LABEL, "no label `exit`"),
        ("lock [%r10-8], %r1", errors.ASM_LOCK, "lacks its operation"),
        ("lock sub [%r10-8], %r1", errors.ASM_LOCK, "`sub` is not an operation of `lock`"),
        ("lock fetch xchg [%r10-8], %r1", errors.ASM_LOCK, "`xchg` is not an operation of `lock fetch`"),
        ("lock or [%r10-8]", errors.ASM_LOCK, "takes 2 operands, and has 1"),
    ],
)
def test_faults(text: str, code: Code, says: str) -> None:
    with pytest.raises(Rejected) as caught:
        assemble(text)
    diagnostic = caught.value.diagnostics[0]
    assert diagnostic.code is code
    assert says in render(diagnostic)


def test_a_fault_points_at_its_operand() -> None:
    with pytest.raises(Rejected) as caught:
        assemble("exit\n  add %r0,  %x9 # why", name="t.asm")
    assert render(caught.value.diagnostics[0]) == (
        "error[I008]: `%x9` is not a register\n"
        " --> t.asm:2:13\n"
        "  |\n"
        "2 |   add %r0,  %x9 # why\n"
        "  |             ^^^"
    )
