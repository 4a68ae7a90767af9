"""What the optimiser leaves of a handler: accesses of shared memory as written, everything else dissolved."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from devbc.abi import EXIT_FIELDS, EXIT_SIZE
from devbc.engines.jit import JitEngine, JitProgram, compile_program
from devbc.engines.lift import Unit, lift
from devbc.isa.insn import decode
from devbc.program.verified import AccessFact, Region
from tests.handlers import (
    Input,
    code,
    interpret,
    observed_program,
    run_native,
    verified_handler,
    verified_program,
)

VALUE = EXIT_FIELDS["value"].offset
EMPTY = Input(bytes(EXIT_SIZE), bytes(64), bytes(range(64)))


def compiled(text: str, given: Input = EMPTY) -> JitProgram:
    return compile_program(observed_program(text, given))


def body(text: str, given: Input = EMPTY) -> str:
    """The optimised IR of the handler."""
    program = compiled(text, given)
    (handler,) = program.programs[0].handlers
    _, found, rest = program.ir.partition(f'@"{program.symbol(handler)}"')
    assert found
    return rest.partition("\n}\n")[0]


def count(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text))


def test_loads_of_one_field_are_not_merged() -> None:
    ir = body("""
        lddw %r1, map_value_by_idx 0
        ldxw %r2, [%r1+8]
        ldxw %r3, [%r1+8]
        mov %r0, %r2
        xor %r0, %r3
        ldxw %r4, [%r1+8]      # nobody uses it
        exit""")
    assert count(r"load atomic volatile i32", ir) == 3
    assert count(r"\bload\b", ir) == 3


def test_neighbouring_loads_are_not_joined_nor_wide_ones_split() -> None:
    ir = body("""
        lddw %r1, map_value_by_idx 0
        ldxb %r2, [%r1+0]
        ldxb %r3, [%r1+1]
        lsh %r3, 8
        or %r2, %r3
        ldxdw %r0, [%r1+8]
        and %r0, 255
        add %r0, %r2
        exit""")
    assert [each[1] for each in re.findall(r"(load atomic volatile) (i\d+)", ir)] == ["i8", "i8", "i64"]


def test_stores_are_neither_dropped_nor_joined() -> None:
    ir = body("""
        lddw %r1, map_value_by_idx 0
        stb [%r1+0], 1
        stb [%r1+0], 2
        stb [%r1+1], 3
        mov %r0, 1
        exit""")
    assert count(r"store atomic volatile i8", ir) == 3
    assert count(r"\bstore\b", ir) == 3


def test_a_store_is_not_forwarded_to_a_load() -> None:
    ir = body("lddw %r1, map_value_by_idx 0\nstdw [%r1+0], 1\nldxdw %r0, [%r1+0]\nexit")
    assert "ret i64 1" not in ir
    assert count("load atomic volatile i64", ir) == 1


def test_a_load_is_not_moved_out_of_a_loop() -> None:
    """A program that waits, within its bound, for another vCPU must see what that writes."""
    ir = body("""
        mov %r2, 100
        lddw %r1, map_value_by_idx 0
    again:
        ldxdw %r0, [%r1+0]
        jne %r0, 0, out
        add %r2, -1
        jne %r2, 0, again
    out:
        exit""")
    load = ir.index("load atomic volatile")
    label, branch = ir.rindex("\nL", 0, load), ir.index("br ", load)
    assert ir[label + 1 : ir.index(":", label)] in ir[branch:], "the loop's block holds the load"


def test_an_access_that_may_be_to_scratch_is_treated_as_one() -> None:
    program = observed_program("lddw %r1, map_value_by_idx 0\nldxdw %r0, [%r1+0]\nexit", EMPTY)
    handler = verified_handler(program.handlers[0].insns, {2: AccessFact(None, None)})
    assert "load atomic volatile i64" in compile_program(verified_program(handler)).ir


@pytest.mark.parametrize(
    ("operation", "instruction"),
    [
        ("add", "atomicrmw add"),
        ("fetch add", "atomicrmw add"),
        ("or", "atomicrmw or"),
        ("and", "atomicrmw and"),
        ("xor", "atomicrmw xor"),
        ("xchg", "atomicrmw xchg"),
        ("cmpxchg", "cmpxchg"),
    ],
)
@pytest.mark.parametrize("bits", [32, 64])
def test_atomics_are_one_instruction(operation: str, instruction: str, bits: int) -> None:
    suffix = "32" if bits == 32 else ""
    text = f"""
        lddw %r1, map_value_by_idx 0
        ldxdw %r2, [%r1+8]
        mov %r0, 5
        lock {operation}{suffix} [%r1+0], %r2
        mov %r0, 1
        exit"""
    ir = body(text)
    assert count(rf"{instruction} ptr %scratch, i{bits} .*seq_cst", ir) == 1
    assert count(r"\bstore\b", ir) == 0


def test_spills_vanish() -> None:
    ir = body(f"""
        ldxdw %r2, [%r1+{EXIT_FIELDS["offset"].offset}]
        stxdw [%r10-8], %r2
        stxdw [%r10-16], %r1
        mov %r2, 7
        ldxdw %r3, [%r10-8]
        ldxdw %r1, [%r10-16]
        add %r3, %r2
        stxdw [%r1+{VALUE}], %r3
        mov %r0, 1
        exit""")
    assert "alloca" not in ir
    assert count(r"\bload\b", ir) == 1
    assert count(r"\bstore\b", ir) == 1


def test_a_table_in_read_only_data_is_folded() -> None:
    ir = body("lddw %r1, map_value_by_idx 1, 16\nldxb %r0, [%r1+5]\nexit")
    assert "ret i64 21" in ir


def test_a_computed_index_into_read_only_data_is_a_plain_load() -> None:
    text = f"""
        ldxdw %r2, [%r1+{VALUE}]
        and %r2, 63
        lddw %r3, map_value_by_idx 1
        add %r3, %r2
        ldxb %r0, [%r3+0]
        exit"""
    program = observed_program(text, EMPTY, Input(b"\7" * EXIT_SIZE, bytes(64), EMPTY.rodata))
    (handler,) = program.handlers
    compiled = compile_program(program)
    assert "inttoptr" not in compiled.ir
    for value in (0, 9, 63):
        exit_ = bytearray(EXIT_SIZE)
        exit_[VALUE] = value
        given = Input(bytes(exit_), bytes(64), EMPTY.rodata)
        assert run_native(compiled.function(handler), given).r0 == value


def test_a_branch_that_is_proven_dead_is_gone() -> None:
    insns = decode(code("ldxdw %r2, [%r1+0]\nmov %r0, 1\njlt %r2, 4, +1\nmov %r0, 0\nexit"))
    live = {slot: insn for slot, insn in insns.items() if slot != 3}
    handler = verified_handler(live, {0: AccessFact(Region.EXIT, 0)})
    program = compile_program(verified_program(handler))
    assert "ret i64 1" in program.ir
    assert "ret i64 0" not in program.ir


def test_the_virtual_clock_costs_a_load_a_test_and_a_load() -> None:
    ir = body("call ktime_get_ns\nexit")
    assert count("load i64", ir) == 2  # kind, now_ns
    assert count(r"\bcall\b", ir) == count(r"call preserve_mostcc", ir) == 1, (
        "the host's clocks are elsewhere"
    )


def test_the_virtual_clock_stands_still() -> None:
    given = Input(bytes(EXIT_SIZE), bytes(64), now=1234)
    program = observed_program(
        "call ktime_get_ns\nmov %r6, %r0\ncall ktime_get_ns\nsub %r0, %r6\nexit", given
    )
    assert run_native(compile_program(program).function(program.handlers[0]), given).r0 == 0


def test_local_calls_keep_their_callers_registers_and_frames_apart() -> None:
    text = """
        mov %r6, 6
        stdw [%r10-8], 1
        mov %r1, %r10
        add %r1, -16
        call local f
        ldxdw %r2, [%r10-8]
        add %r0, %r2
        add %r0, %r6
        ldxdw %r2, [%r10-16]
        add %r0, %r2
        exit
    f:
        mov %r6, 1000
        stdw [%r10-8], 2000
        stdw [%r1+0], 30
        mov %r0, 100
        exit"""
    program = observed_program(text, EMPTY)
    (handler,) = program.handlers
    outcome = run_native(compile_program(program).function(handler), EMPTY)
    assert outcome == interpret(handler.insns, EMPTY)
    assert outcome.r0 == 137


def test_programs_share_a_module_and_keep_their_own_data() -> None:
    text = "lddw %r1, map_value_by_idx 1\nldxb %r0, [%r1+0]\nexit"
    programs = [observed_program(text, Input(bytes(EXIT_SIZE), bytes(64), bytes([n]))) for n in (3, 4)]
    loaded = JitEngine().load(programs)
    results = [run_native(loaded.function(program.handlers[0]), EMPTY).r0 for program in programs]
    assert results == [3, 4]
    assert loaded.address(programs[0].handlers[0]) != loaded.address(programs[1].handlers[0])


ANSWERS = """
    mov %r0, 1
    ldxdw %r2, [%r1+{}]
    stxdw [%r1+{}], %r2
    exit""".format(EXIT_FIELDS["offset"].offset, VALUE)


def test_equal_handlers_are_compiled_once() -> None:
    """Whosever they are; but not one that knows less of its accesses, nor one that reads other data."""
    known = observed_program(ANSWERS, EMPTY).handlers[0]
    facts = {slot: AccessFact(fact.region, None) for slot, fact in known.accesses.items()}
    unknown = verified_handler(known.insns, facts)
    reader = observed_program("lddw %r1, map_value_by_idx 1\nldxb %r0, [%r1+0]\nexit", EMPTY).handlers[0]
    programs = [verified_program(known, reader, known, unknown, rodata=bytes([each])) for each in (3, 4)]
    loaded = JitEngine().load(programs)
    addresses = [[loaded.address(each) for each in program.handlers] for program in programs]
    assert addresses[0][0] == addresses[0][2] == addresses[1][0] == addresses[1][2]
    assert len({*addresses[0], *addresses[1]}) == 4
    assert addresses[0][1] != addresses[1][1]
    assert [run_native(loaded.function(each.handlers[1]), EMPTY).r0 for each in programs] == [3, 4]
    exit_ = bytearray(EXIT_SIZE)
    exit_[EXIT_FIELDS["offset"].offset] = 9
    for handler in programs[1].handlers[2:]:
        assert run_native(loaded.function(handler), Input(bytes(exit_), bytes(64))).exit[VALUE] == 9


def test_handlers_begin_a_cache_line() -> None:
    handlers = [observed_program(text, EMPTY).handlers[0] for text in ("mov %r0, 0\nexit", ANSWERS)]
    program = verified_program(*handlers)
    loaded = compile_program(program)
    assert [loaded.address(each) % 64 for each in program.handlers] == [0, 0]


GOES_ON = "stxdw [%r1+{0}], %r2\n" * 4


@pytest.mark.parametrize(
    ("text", "likely"),
    [
        ("mov %r0, 0\njeq %r2, 5, out\nmov %r0, 1\nout:\nexit", "second"),
        ("mov %r0, 1\njeq %r2, 5, out\nmov %r0, 0\nout:\nexit", "first"),
        ("mov %r0, 2\njeq %r2, 5, out\nmov %r0, 1\nout:\nexit", ""),
        ("mov %r0, 0\njeq %r2, 5, out\nmov %r0, 0\nout:\nexit", ""),
        (f"mov %r0, 1\njeq %r2, 5, out\n{GOES_ON}out:\nexit", "first"),
        (f"mov %r0, 0\njeq %r2, 5, out\n{GOES_ON}out:\nexit", "second"),
        ("again:\nadd %r2, -1\njeq %r2, 5, out\nja again\nout:\nmov %r0, 1\nexit", ""),
        ("again:\nadd %r2, -1\njeq %r2, 5, out\nja again\nout:\nmov %r0, 0\nexit", "second"),
        (f"jeq %r2, 5, out\ncall ktime_get_ns\nmov %r0, 1\nexit\nout:\n{GOES_ON}mov %r0, 1\nexit", "second"),
        (f"jeq %r2, 5, out\n{GOES_ON}mov %r0, 1\nexit\nout:\ncall ktime_get_ns\nmov %r0, 1\nexit", "first"),
    ],
)
def test_answering_at_once_is_likely_and_declining_is_not(text: str, likely: str) -> None:
    """Known from what the ways do, not from which of them is the jump; a loop's end is no answer at once.

    A way that takes the time is likelier than one that does not.
    """
    text = f"ldxdw %r2, [%r1+{VALUE}]\n{text.format(VALUE)}"
    insns = decode(code(text))
    facts = {slot: AccessFact(Region.EXIT, VALUE) for slot in insns}
    function, _ = lift(Unit(insns, facts, "@rodata"), "handler")
    (branch,) = re.findall(r"br i1 .*", function)
    weights = [int(each) for each in re.findall(r"i32 (\d+)", branch)]
    assert {"": [], "first": sorted(weights, reverse=True), "second": sorted(weights)}[likely] == weights
    assert len({*weights}) == (2 if likely else 0)


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "%s @x \\22", "Gerät", "\t"])
def test_a_device_may_have_any_name(name: str) -> None:
    program = observed_program("call local f\nexit\nf:\nmov %r0, 1\nexit", EMPTY)
    renamed = replace(program, program=replace(program.program, device=name))
    assert run_native(compile_program(renamed).function(renamed.handlers[0]), EMPTY).r0 == 1


def test_code_lives_as_long_as_a_function_of_it() -> None:
    program = observed_program("mov %r0, 1\nexit", EMPTY)
    function = compile_program(program).function(program.handlers[0])
    for _ in range(3):
        compile_program(observed_program("mov %r0, 2\nexit", EMPTY))
    assert run_native(function, EMPTY).r0 == 1


def test_assembly_names_the_handlers() -> None:
    program = compiled("mov %r0, 1\nexit")
    assert "0.test.pio/read@0x0:1" in program.assembly


def test_each_way_returns_by_itself() -> None:
    """The value is its own register's, also where several ways come to one return."""
    text = f"""
        ldxdw %r2, [%r1+{VALUE}]
        mov %r0, 0
        jeq %r2, 5, out
        mov %r0, 1
        jeq %r2, 6, out
        stxdw [%r1+{VALUE}], %r2
    out:
        exit"""
    insns = decode(code(text))
    function, _ = lift(
        Unit(insns, {slot: AccessFact(Region.EXIT, VALUE) for slot in insns}, "@rodata"), "handler"
    )
    assert re.findall(r"ret i64 (\S+)", function) == ["0", "1", "1"]
    assert "phi" not in function
