"""Diagnoses: counterexamples really go wrong, slices name what made the values, and both are always the same.

The oracle of a counterexample is a run of the reference interpreter that knows nothing of the search: it gets
the inputs that the diagnosis states, and must do what the diagnosis says.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from devbc.abi import EXIT_FIELDS, EXIT_SIZE, Verdict
from devbc.diagnostics import Code, Diagnostic, Rejected, Span, render
from devbc.engines import interpreter
from devbc.engines.interpreter import BASES, FaultKind, run_handler
from devbc.isa.insn import decode
from devbc.isa.opcodes import Kind
from devbc.program.elf import load_object
from devbc.program.program import Handler
from devbc.program.verified import Region
from devbc.verifier import DEFAULT, errors, verify_handler
from devbc.verifier.diagnosis import diagnosed
from devbc.verifier.fields import scratch_names
from devbc.verifier.trail import Setting
from tests.verifier import programs
from tests.verifier.oracle import handler
from tests.verifier.test_contract import REJECTED, asm

CLANG = Path(__file__).parents[1] / "data" / "clang" / "interval_timer.o"
RODATA = bytes(range(0, 128, 2))

#: How the run may end. The interpreter asks for more than one thing at an access, and names the first.
FAULTS: dict[Code, set[FaultKind]] = {
    errors.UNINITIALISED: {FaultKind.UNINITIALISED},
    errors.OUT_OF_BOUNDS: {FaultKind.MEMORY},
    errors.MISALIGNED: {FaultKind.MISALIGNED, FaultKind.UNINITIALISED, FaultKind.READ_ONLY},
    errors.NOT_AN_ADDRESS: {FaultKind.MEMORY},
    errors.FIELD_RIGHTS: {FaultKind.READ_ONLY},
    errors.BAD_VERDICT: {FaultKind.VERDICT, FaultKind.UNINITIALISED},
    errors.ENDLESS: {FaultKind.STEP_LIMIT},
}


def diagnose(program: Handler) -> Diagnostic | None:
    """The full diagnosis of a handler; None if it is accepted."""
    setting = Setting.of(program, scratch_size=64, rodata=RODATA, policy=DEFAULT)
    try:
        verify_handler(program, scratch_size=64, rodata=RODATA)
    except Rejected as rejected:
        return diagnosed(rejected.diagnostics, setting)[0]
    return None


def replay(program: Handler, inputs: list[dict[str, Any]]) -> tuple[FaultKind | Verdict, int, bool]:
    """What a run with these inputs ends with, at which slot, and whether it wrote scratch."""
    exit_, scratch = bytearray(EXIT_SIZE), bytearray(64)
    size = EXIT_FIELDS["size"]
    exit_[size.offset : size.end] = (4).to_bytes(size.size, "little")
    by_slot = {each["slot"]: each for each in inputs if each["from"] != "exit"}
    for each in inputs:
        if each["from"] == "exit":
            exit_[each["offset"] : each["offset"] + each["size"]] = each["value"].to_bytes(
                each["size"], "little"
            )
    insns = decode(program.code)
    wrote, slot = False, 0

    def observer(state: interpreter.State) -> None:
        nonlocal wrote, slot
        slot, insn = state.slot, insns[state.slot]
        if insn.spec.kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC):
            base = state.registers[insn.src if insn.spec.kind is Kind.LOAD else insn.dst]
            offset = (base or 0) + insn.off - BASES[Region.SCRATCH]
            if 0 <= offset <= 64 - insn.spec.bytes:
                wrote |= insn.spec.kind is not Kind.LOAD
                value = by_slot[slot]["value"] if slot in by_slot else 0
                scratch[offset : offset + insn.spec.bytes] = value.to_bytes(insn.spec.bytes, "little")

    def clock() -> int:
        return int(by_slot[slot]["value"]) if slot in by_slot else 0

    try:
        verdict = run_handler(insns, exit_, scratch, RODATA, clock, observer=observer)
    except interpreter.Fault as fault:
        return fault.kind, slot, wrote
    return verdict, slot, wrote


def check(program: Handler, diagnosis: Diagnostic) -> bool:
    """Hold a diagnosis to its counterexample; False if it has none."""
    found = diagnosis.data.get("counterexample")
    if found is None:
        return False
    end, slot, wrote = replay(program, found["inputs"])
    if diagnosis.code is errors.UNCLEAN_DECLINE:
        assert end is Verdict.DECLINE
        assert wrote
    elif diagnosis.code is errors.POINTER_LEAK:
        # The run comes to the place; the interpreter has nothing against what it does there.
        assert slot >= 0
    else:
        assert end in FAULTS[diagnosis.code], (end, diagnosis.message)
        if end not in (FaultKind.VERDICT, FaultKind.STEP_LIMIT):
            assert slot == diagnosis.data["slot"]
    return True


#: Rejected programs of the corpus for which no run is found, with the reason.
NOT_FOUND = {
    # The reference interpreter takes the bytes of an address for bytes like others.
    "overwrites part of a pointer",
}


#: The path of a run that is too long is too long to be followed again.
FOLLOWED = [name for name, case in REJECTED.items() if case[1] is not errors.TOO_LONG]


@pytest.mark.parametrize("name", FOLLOWED)
def test_counterexamples_of_the_corpus(name: str) -> None:
    program = handler(asm(REJECTED[name][0]))
    diagnosis = diagnose(program)
    assert diagnosis is not None
    concrete = diagnosis.code in FAULTS or diagnosis.code in (errors.UNCLEAN_DECLINE, errors.POINTER_LEAK)
    assert check(program, diagnosis) == (concrete and name not in NOT_FOUND)
    if concrete and name in NOT_FOUND:
        assert "may be its own weakness" in diagnosis.notes[-1]


def test_counterexamples_of_random_programs() -> None:
    """A good part of what is refused is shown to go wrong, and each that is does."""
    rng, found, refused = random.Random(3), 0, 0
    while refused < 25:
        program = handler(programs.random_program(rng))
        diagnosis = diagnose(program)
        if diagnosis is not None and diagnosis.code in FAULTS:
            refused += 1
            found += check(program, diagnosis)
    assert found > 8


def test_a_weakness_is_called_so() -> None:
    """`x * x % 4` is never 2 or 3; the verifier does not know."""
    diagnosis = diagnose(
        handler(
            """
        ldxw %r0, [%r1+8]
        mul %r0, %r0
        and %r0, 3
        exit"""
        )
    )
    assert diagnosis is not None
    assert diagnosis.code is errors.BAD_VERDICT
    assert diagnosis.data["counterexample"] is None
    assert "no concrete run was found" in diagnosis.notes[-1]


def test_diagnoses_are_the_same_each_time() -> None:
    program = handler(asm(REJECTED["index loaded twice from scratch"][0]))
    assert diagnose(program) == diagnose(program)


def test_a_slice_follows_spills_calls_and_branches() -> None:
    text = """
        ldxdw %r2, [%r1+8]
        mov %r5, 77
        stxdw [%r10-8], %r2
        mov %r1, 3
        ldxdw %r1, [%r10-8]
        jgt %r1, 64, out
        call local twice
        lddw %r3, map_value_by_idx 0, 0
        add %r3, %r0
        ldxb %r4, [%r3+0]
    out:
        mov %r0, 1
        exit
    twice:
        mov %r0, %r1
        lsh %r0, 1
        exit"""
    diagnosis = diagnose(handler(text))
    assert diagnosis is not None
    steps = [each["slot"] for each in diagnosis.data["slice"]]
    assert steps == [0, 5, 14]  # the load, the check, the shift; neither r5 nor the copies
    assert diagnosis.data["counterexample"]["inputs"][0]["value"] == 32
    assert "byte 64 of scratch" in diagnosis.notes[-1]


def test_labels_are_few_and_one_a_line() -> None:
    """Twenty checks on one line, and ten lines of arithmetic."""
    lines = ["ldxw %r2, [%r1+8]"]
    lines += [f"jeq %r2, {2 * each}, out" for each in range(20)]
    lines += ["add %r2, 1"] * 10
    lines += ["lddw %r3, map_value_by_idx 0, 0", "add %r3, %r2", "ldxb %r4, [%r3+0]"]
    lines += ["out:", "mov %r0, 1", "exit"]
    plain = handler("\n".join(lines))
    places = {slot: Span("a.c", 1 if slot < 21 else slot, text="x") for slot in range(40)}
    program = Handler(plain.section, plain.binding, plain.code, plain.functions, places)
    diagnosis = diagnose(program)
    assert diagnosis is not None
    shown = [each.span.line for each in diagnosis.labels]
    assert shown == sorted(set(shown))
    assert len(shown) <= 6
    assert shown[0] == 1  # where the value comes from is never dropped


def test_a_run_that_is_too_long_is_shown_under_a_low_cap() -> None:
    text = "ldxw %r2, [%r1+8]\nmov %r3, 0\nnext:\nadd %r3, 1\njlt %r3, %r2, next\nmov %r0, 1\nexit"
    program, policy = handler(text), replace(DEFAULT, instructions=500)
    setting = Setting.of(program, scratch_size=0, rodata=b"", policy=policy)
    with pytest.raises(Rejected) as caught:
        verify_handler(program, scratch_size=0, policy=policy)
    (diagnosis,) = diagnosed(caught.value.diagnostics, setting)
    assert diagnosis.code is errors.TOO_LONG
    steps = [each["slot"] for each in diagnosis.data["slice"]]
    assert steps == [0, 1, 2, 3]  # what the number of rounds depends on, and the round that is one too many
    (given,) = diagnosis.data["counterexample"]["inputs"]
    # 2 instructions before the loop, 2 a round, 2 behind it: 500 are not enough from here on.
    assert given["value"] == (500 - 4) // 2 + 1


def too_long(text: str) -> Diagnostic:
    program = handler(text)
    setting = Setting.of(program, scratch_size=0, rodata=b"", policy=DEFAULT)
    with pytest.raises(Rejected) as caught:
        verify_handler(program, scratch_size=0)
    (diagnosis,) = diagnosed(caught.value.diagnostics, setting)
    assert diagnosis.code is errors.TOO_LONG
    return diagnosis


def test_a_run_that_is_far_too_long_is_shown_by_its_first_rounds() -> None:
    """And the run that is shown is one beyond the real cap."""
    diagnosis = too_long("ldxw %r2, [%r1+8]\nmov %r3, 0\nn:\nadd %r3, 1\njlt %r3, %r2, n\nmov %r0, 1\nexit")
    assert [each["slot"] for each in diagnosis.data["slice"]] == [0, 1, 2, 3]
    assert diagnosis.data["counterexample"]["steps"] > DEFAULT.instructions
    assert diagnosis.notes[-1].endswith("the handler is still running after 65,536 instructions")


def test_the_first_rounds_of_another_loop_are_not_shown() -> None:
    """4,000 rounds are allowed; those of the loop behind it are too many."""
    loop = "mov %r3, 0\n{0}:\nadd %r3, 1\njlt %r3, {1}, {0}\n"
    diagnosis = too_long(loop.format("a", 4000) + loop.format("b", 100_000) + "mov %r0, 1\nexit")
    assert "slice" not in diagnosis.data
    assert diagnosis.data["slot"] == 4


def test_diagnoses_of_mutated_programs() -> None:
    """Whatever a handler has become: its diagnosis can be made, shown, and written as JSON."""
    rng = random.Random(8)
    program = load_object(CLANG.read_bytes(), name=CLANG.name)
    made = 0
    while made < 40:
        original = rng.choice(program.handlers)
        code = bytearray(original.code)
        place = 8 * rng.randrange(len(code) // 8) + rng.choice((1, 2, 4))
        code[place] = rng.randrange(256)
        mutant = replace(original, code=bytes(code))
        try:
            verify_handler(mutant, scratch_size=len(program.scratch_image), rodata=program.rodata)
        except Rejected as rejected:
            if not rejected.diagnostics[0].code.id.startswith("V"):
                continue
            setting = Setting.of(
                mutant, scratch_size=len(program.scratch_image), rodata=program.rodata, policy=DEFAULT
            )
            for each in diagnosed(rejected.diagnostics, setting, partial(scratch_names, program)):
                assert each.message in render(each, color=True)
                assert json.loads(json.dumps(each.to_json()))["code"] == each.code.id
            made += 1
