"""`devbc.verify`: the public conformance suite through the verifier, and what raw programs may do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

import devbc
from devbc.engines.interpreter import BASES, Interpreter, Memory
from devbc.isa.asm import assemble
from devbc.isa.insn import encode
from devbc.program.verified import Region
from devbc.verifier import errors
from tests import conformance

#: Files that the verifier refuses, each for its reason. The suite asks nothing of alignment. The contract
#: does: only aligned accesses are single-copy atomic everywhere (`devbc explain V007`).
REFUSED: Final = {
    "ldxdw": "loads 8 bytes at offset 2",
    "ldxw": "loads 4 bytes at offset 2",
    "stdw": "stores 8 bytes at offset 2",
    "stw": "stores 4 bytes at offset 2",
    "stxdw": "stores 8 bytes at offset 2",
    "stxw": "stores 4 bytes at offset 2",
    "subnet": "loads the IPv4 destination at offset 30 of an Ethernet frame",
}

FILES = [path for path in conformance.files("tests") if path.stem not in conformance.EXCLUDED]


def code(text: str) -> bytes:
    return encode(assemble(text))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_suite(path: Path) -> None:
    """What is accepted gives the suite's result within the bound; what is refused is on the list."""
    case = conformance.parse(path.read_text())
    answer = devbc.verify(case.code(), ctx_size=len(case.mem))
    if path.stem in REFUSED:
        assert isinstance(answer, devbc.Refused)
        assert [each.code for each in answer.diagnostics] == [errors.MISALIGNED]
        return
    assert isinstance(answer, devbc.Accepted), answer
    program = answer.program
    memory = (Memory(Region.EXIT, bytearray(case.mem)),)
    machine = Interpreter(program.insns, memory, aligned=True, clock=lambda: 0, step_limit=program.worst_case)
    assert machine.run(BASES[Region.EXIT], len(case.mem)).r0 == case.result


def test_the_list_of_refused_files_is_current() -> None:
    conformance.require_suite()
    assert set(REFUSED) <= {path.stem for path in FILES}


def test_the_negative_set() -> None:
    """Its programs that assemble at all; none is accepted with an answer other than the file's."""
    conformance.require_suite()
    refused = 0
    for path in conformance.files("negative"):
        try:
            case = conformance.parse(path.read_text())
            program = case.code()
        except (conformance.MalformedCase, conformance.Rejected):
            continue
        answer = devbc.verify(program, ctx_size=len(case.mem))
        if path.stem != "incorrect_return_value_high_bits":
            assert isinstance(answer, devbc.Refused), path.stem
            refused += 1
    assert refused > 40


def test_the_arguments() -> None:
    """r1 leads to the context, r2 is its size: a loop over it needs no other bound."""
    text = """
        mov %r0, 0
        mov %r3, 0
    next:
        jge %r3, %r2, out
        mov %r4, %r1
        add %r4, %r3
        ldxb %r5, [%r4+0]
        add %r0, %r5
        add %r3, 1
        ja next
    out:
        exit"""
    answer = devbc.verify(code(text), ctx_size=10)
    assert isinstance(answer, devbc.Accepted)
    assert answer.program.worst_case == 2 + 10 * 7 + 2


def test_what_handlers_are_asked_is_not_asked_here() -> None:
    text = """
        lddw %r2, map_value_by_idx 0, 0
        stdw [%r2+0], 7
        ldxdw %r0, [%r1+0]
        exit"""
    assert isinstance(devbc.verify(code(text), ctx_size=8, scratch_size=8), devbc.Accepted)


@pytest.mark.parametrize(
    ("text", "sizes", "refusal"),
    [
        ("ldxdw %r0, [%r1+8]\nexit", (8, 0, 0), errors.OUT_OF_BOUNDS),
        ("ldxb %r0, [%r1+0]\nexit", (0, 0, 0), errors.OUT_OF_BOUNDS),
        ("lddw %r2, map_value_by_idx 0, 0\nldxw %r0, [%r2+0]\nexit", (0, 3, 0), errors.OUT_OF_BOUNDS),
        ("lddw %r2, map_value_by_idx 1, 0\nldxw %r0, [%r2+0]\nexit", (0, 0, 3), errors.OUT_OF_BOUNDS),
        ("lddw %r2, map_value_by_idx 1, 0\nstw [%r2+0], 1\nmov %r0, 0\nexit", (0, 0, 4), errors.READ_ONLY),
        ("stxdw [%r1+0], %r1\nmov %r0, 0\nexit", (8, 0, 0), errors.POINTER_LEAK),
        ("mov %r0, %r1\nexit", (8, 0, 0), errors.POINTER_LEAK),
        ("exit", (8, 0, 0), errors.BAD_VERDICT),
        ("mov %r0, %r3\nexit", (8, 0, 0), errors.UNINITIALISED),
        ("mov %r0, 0\nexit", (0, 1 << 30, 0), errors.POLICY),
    ],
)
def test_refused(text: str, sizes: tuple[int, int, int], refusal: object) -> None:
    ctx, scratch, rodata = sizes
    answer = devbc.verify(code(text), ctx_size=ctx, scratch_size=scratch, rodata=bytes(rodata))
    assert isinstance(answer, devbc.Refused)
    assert answer.diagnostics[0].code is refusal


def test_a_policy() -> None:
    text = code("call 5\nexit")
    assert isinstance(devbc.verify(text, ctx_size=0), devbc.Accepted)
    refused = devbc.verify(text, ctx_size=0, policy=devbc.Policy(helpers=frozenset()))
    assert isinstance(refused, devbc.Refused)
    assert refused.diagnostics[0].code is errors.HELPER


@given(st.binary(max_size=200), st.integers(0, 64), st.integers(0, 64), st.binary(max_size=64))
def test_no_bytes_make_it_raise(program: bytes, ctx: int, scratch: int, rodata: bytes) -> None:
    answer = devbc.verify(program, ctx_size=ctx, scratch_size=scratch, rodata=rodata)
    assert isinstance(answer, devbc.Accepted) or answer.diagnostics


def test_importing_devbc_is_light() -> None:
    heavy = "{'llvmlite', 'lark', 'elftools', 'rich', 'devbc.verifier'} & set(sys.modules)"
    script = f"import sys, devbc; assert not {heavy}, {heavy}; devbc.verify"
    subprocess.run([sys.executable, "-c", script], check=True)
