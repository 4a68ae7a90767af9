"""Encoding and decoding are inverse, and decoding refuses whatever it does not understand."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devbc.diagnostics import Code, Rejected
from devbc.isa import errors
from devbc.isa.insn import Insn, decode, encode
from devbc.isa.opcodes import BY_OPCODE, SPECS, Spec
from tests.strategies import INSNS, insns_of

EXIT = Insn(SPECS["exit"])


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@settings(max_examples=20)
@given(data=st.data())
def test_decode_inverts_encode(spec: Spec, data: st.DataObject) -> None:
    insn = data.draw(insns_of(spec))
    code = encode([insn])
    assert len(code) == 8 * spec.slots
    assert decode(code) == {0: insn}


@given(st.lists(INSNS, min_size=1, max_size=20))
def test_slots_count_both_halves_of_lddw(insns: list[Insn]) -> None:
    decoded = decode(encode(insns))
    assert list(decoded.values()) == insns
    slot = 0
    for insn in insns:
        assert decoded[slot] == insn
        slot += insn.spec.slots


@given(st.one_of(st.binary(max_size=80), st.lists(st.binary(min_size=8, max_size=8)).map(b"".join)))
def test_random_bytes_decode_or_are_rejected(code: bytes) -> None:
    try:
        insns = decode(code)
    except Rejected:
        return
    # What is accepted is understood completely: encoding it gives every bit back.
    assert encode(insns.values()) == code


@given(opcode=st.sampled_from(sorted(BY_OPCODE)), rest=st.binary(min_size=15, max_size=15))
def test_known_opcodes_with_random_fields(opcode: int, rest: bytes) -> None:
    code = bytes([opcode]) + rest
    with contextlib.suppress(Rejected):
        assert encode(decode(code).values()) == code


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (b"", errors.TRUNCATED),
        (bytes(7), errors.TRUNCATED),
        (bytes.fromhex("1800000000000000"), errors.TRUNCATED),
        (bytes.fromhex("8d00000000000000"), errors.UNKNOWN_OPCODE),  # callx
        (bytes.fromhex("0d00000000000000"), errors.UNKNOWN_OPCODE),  # gotox
        (bytes.fromhex("2000000000000000"), errors.UNKNOWN_OPCODE),  # ld_abs
        (bytes.fromhex("b70b000000000000"), errors.BAD_REGISTER),
        (bytes.fromhex("b70a000000000000"), errors.BAD_REGISTER),
        (bytes.fromhex("b700010000000000"), errors.RESERVED_FIELD),
        (bytes.fromhex("18000000000000000100000000000000"), errors.BAD_LDDW),
    ],
)
def test_malformed_code(code: bytes, expected: Code) -> None:
    with pytest.raises(Rejected) as caught:
        decode(code)
    assert caught.value.diagnostics[0].code is expected


def test_every_fault_is_reported() -> None:
    bad = bytes.fromhex("ff00000000000000")
    with pytest.raises(Rejected) as caught:
        decode(bad + encode([EXIT]) + bad)
    assert [each.span.line for each in caught.value.diagnostics if each.span] == [0, 2]


def test_the_table_is_unambiguous() -> None:
    """No two rows accept the same instruction: some field that both of them fix differs."""
    for forms in BY_OPCODE.values():
        for index, one in enumerate(forms):
            for other in forms[index + 1 :]:
                pairs = [(getattr(one, name), getattr(other, name)) for name in ("dst", "src", "off", "imm")]
                assert any(a is not None and b is not None and a != b for a, b in pairs), (
                    one.name,
                    other.name,
                )
