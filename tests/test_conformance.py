"""Every engine passes the public conformance suite; the negative set is refused, each file for its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from devbc.diagnostics import Code, Rejected
from devbc.engines.interpreter import Fault, FaultKind
from devbc.isa import errors
from tests import conformance
from tests.conformance import ENGINES, EXCLUDED, Engine, Failed, MalformedCase

FILES = conformance.files("tests")
NEGATIVE = conformance.files("negative")

#: What refuses each file of the negative set: a diagnostic of the assembler or decoder, the comparison of
#: the result, or the file's own malformation.
REFUSED_BY: dict[str, Code | FaultKind | type[Exception]] = {
    "empty": MalformedCase,
    "empty_instructions": MalformedCase,
    "invalid_unknown_directive": MalformedCase,
    "incorrect_return_value_high_bits": Failed,
    "error": FaultKind.UNINITIALISED,  # `or %r0, %r10` reads r0, which nothing has written
    "invalid_imm32_dec_range": errors.ASM_RANGE,
    "invalid_imm32_hex_range": errors.ASM_RANGE,
    "invalid_offset_range": errors.ASM_RANGE,
    "invalid_label": errors.ASM_LABEL,
    "invalid_lock": errors.ASM_LOCK,
    "invalid_lock2": errors.ASM_LOCK,
    "invalid_mnemonic": errors.ASM_MNEMONIC,
    "invalid_offset": errors.ASM_OPERANDS,
    "invalid_operand_count": errors.ASM_OPERANDS,
    "invalid_register": errors.BAD_REGISTER,
}


def test_the_suite_is_whole() -> None:
    conformance.require_suite()
    assert len(FILES) == 313
    assert len(NEGATIVE) == 60
    assert set(EXCLUDED) <= {path.stem for path in FILES}
    assert set(REFUSED_BY) <= {path.stem for path in NEGATIVE}


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_suite(path: Path, engine: Engine) -> None:
    if reason := EXCLUDED.get(path.stem):
        pytest.skip(reason)
    conformance.check(conformance.parse(path.read_text()), engine)


def test_assembled_code_equals_raw() -> None:
    """Where a file gives both, its raw section is an oracle for assembler and encoder."""
    conformance.require_suite()
    cases = [conformance.parse(path.read_text()) for path in FILES]
    both = [case for case in cases if case.asm is not None and case.raw is not None]
    assert both
    for case in both:
        assert case.code() == case.raw


@pytest.mark.parametrize("path", NEGATIVE, ids=[path.stem for path in NEGATIVE])
def test_negative_set(path: Path) -> None:
    # What is not named above is one of the `unused-*` files, each with a reserved field set.
    expected = REFUSED_BY.get(path.stem, errors.RESERVED_FIELD)
    with pytest.raises((Rejected, Fault, Failed, MalformedCase)) as caught:
        conformance.check(conformance.parse(path.read_text()), conformance.run_interpreter)
    match caught.value:
        case Rejected(diagnostics=diagnostics):
            assert [each.code for each in diagnostics][:1] == [expected]
        case Fault(kind=kind):
            assert kind is expected
        case other:
            assert type(other) is expected


@pytest.mark.parametrize("name", EXCLUDED)
def test_excluded_files_are_refused(name: str) -> None:
    conformance.require_suite()
    (path,) = [path for path in FILES if path.stem == name]
    with pytest.raises(Rejected) as caught:
        conformance.parse(path.read_text()).code()
    assert "no call by register" in str(caught.value)
