"""Hypothesis strategies for instructions, read off the opcode table.

They make what the encoding allows, not what makes sense: a register that was never set, a jump to nowhere.
"""

from __future__ import annotations

from hypothesis import strategies as st

from devbc.isa.insn import Insn, written_registers
from devbc.isa.opcodes import FRAME_POINTER, REGISTERS, SPECS, Kind, Spec

S16 = st.integers(-(1 << 15), (1 << 15) - 1)
S32 = st.integers(-(1 << 31), (1 << 31) - 1)
#: Values at which 64-bit arithmetic goes wrong, and any other.
U64 = st.one_of(
    st.sampled_from([value & (1 << 64) - 1 for bit in (0, 8, 16, 31, 32, 63) for value in (
        (1 << bit) - 1, 1 << bit, (1 << bit) + 1, -(1 << bit))]),
    st.integers(0, (1 << 64) - 1),
)  # fmt: skip


def _field(fixed: int | None, operand: st.SearchStrategy[int]) -> st.SearchStrategy[int]:
    return operand if fixed is None else st.just(fixed)


def insns_of(spec: Spec) -> st.SearchStrategy[Insn]:
    """Any instruction of one form that the decoder accepts."""
    register = st.integers(0, REGISTERS - 1)
    return st.builds(
        Insn,
        st.just(spec),
        dst=_field(spec.dst, register),
        src=_field(spec.src, register),
        off=_field(spec.off, S16),
        imm=_field(spec.imm, U64 if spec.kind is Kind.LDDW else S32),
    ).filter(lambda insn: FRAME_POINTER not in written_registers(spec, insn.dst, insn.src))


INSNS = st.sampled_from(list(SPECS.values())).flatmap(insns_of)
