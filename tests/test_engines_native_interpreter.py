"""The native interpreter as an engine: stubs for verified handlers, regions, the clock, and dead slots."""

from __future__ import annotations

import ctypes
import gc

import pytest

from devbc.abi import EXIT_FIELDS, EXIT_SIZE, Verdict, parse_binding
from devbc.engines.clock import virtual_page
from devbc.engines.engine import Engine
from devbc.engines.jit import PROTOTYPE
from devbc.engines.native_interpreter import DECODED, InterpreterEngine, decoded
from devbc.isa.asm import assemble
from devbc.isa.insn import Insn, decode, encode
from devbc.program.program import Function, Handler, Names, Program
from devbc.program.verified import HandlerClass, VerifiedHandler, VerifiedProgram

VALUE, OFFSET = EXIT_FIELDS["value"].offset, EXIT_FIELDS["offset"].offset

ANSWER = f"""
    mov %r6, %r1
    call ktime_get_ns
    lddw %r1, map_value_by_idx 0, 8
    stxdw [%r1+0], %r0
    lddw %r2, map_value_by_idx 1, 4
    ldxw %r2, [%r2+0]
    ldxdw %r3, [%r6+{OFFSET}]
    add %r2, %r3
    stxdw [%r6+{VALUE}], %r2
    mov %r0, 1
    exit
"""


def verified(text: str, section: str = "pio/read@0x0:1", live: set[int] | None = None) -> VerifiedHandler:
    """A handler as the verifier might hand it over; what it says beside the code is not read by engines."""
    binding = parse_binding(section)
    assert not isinstance(binding, str)
    code = encode(assemble(text))
    insns = {slot: insn for slot, insn in decode(code).items() if live is None or slot in live}
    handler = Handler(section, binding, code, (Function("f", 0),))
    return VerifiedHandler(
        handler, insns, {}, len(insns), 0, HandlerClass.MUTATING, True, True, (), (), frozenset(), frozenset()
    )


def program(*handlers: VerifiedHandler) -> VerifiedProgram:
    unverified = Program("t", tuple(each.handler for each in handlers), bytes(16), b"", Names(), ())
    return VerifiedProgram(unverified, handlers)


def test_each_handler_runs_its_own_code_on_the_regions_it_is_given() -> None:
    engine: Engine = InterpreterEngine()
    answer, decline = verified(ANSWER), verified("mov %r0, 0\nexit", "pio/write@0x0:1")
    loaded = engine.load([program(answer), program(decline)])
    gc.collect()
    exit, scratch = (ctypes.c_uint8 * EXIT_SIZE)(), (ctypes.c_uint64 * 2)()
    rodata, clock = (ctypes.c_uint32 * 2)(0, 40), virtual_page(1234)
    exit[OFFSET] = 2
    arguments = [ctypes.addressof(each) for each in (exit, scratch, rodata, clock)]
    assert PROTOTYPE(loaded.address(answer))(*arguments) == Verdict.HANDLED
    assert PROTOTYPE(loaded.address(decline))(*arguments) == Verdict.DECLINE
    assert list(scratch) == [0, 1234]
    assert int.from_bytes(bytes(exit)[VALUE : VALUE + 8], "little") == 42
    with pytest.raises(KeyError):
        loaded.address(verified("exit"))


def test_jumps_to_dead_slots_lead_to_the_trap() -> None:
    """The verifier has shown that they are never taken; if it is wrong, the process must not go on."""
    handler = verified("jeq %r1, 0, +2\nmov %r0, 0\nexit\nmov %r0, 1\nexit", live={0, 1, 2})
    records = decoded(handler.insns)
    assert records[0].distance == 3 * DECODED.size
    assert records[3].form not in {records[index].form for index in range(3)}


def test_lddw_is_one_record() -> None:
    insns = decode(encode(assemble("ja +2\nlddw %r0, 5\nexit")))
    records = decoded(insns)
    assert records[0].distance == 2 * DECODED.size
    assert records[1].imm == 5


def test_immediates_are_sign_extended() -> None:
    (record, _) = decoded({0: Insn(assemble("mov %r0, -2")[0].spec, imm=-2)})
    assert record.imm == (1 << 64) - 2
