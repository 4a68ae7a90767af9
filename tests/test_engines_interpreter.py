"""The reference interpreter: what it refuses, what calls keep, and that hostile code only ever faults."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devbc.abi import EXIT_FIELDS, EXIT_SIZE, Verdict
from devbc.engines.integers import INTEGERS, signed
from devbc.engines.interpreter import BASES, Fault, FaultKind, Interpreter, Memory, State, run_handler
from devbc.isa.asm import assemble
from devbc.isa.insn import Insn, decode, encode
from devbc.limits import CALL_DEPTH
from devbc.program.verified import Region
from tests.strategies import INSNS

MEM = BASES[Region.EXIT]


def code(text: str) -> dict[int, Insn]:
    return decode(encode(assemble(text)))


def run(text: str, mem: bytes | bytearray = b"") -> int:
    memory = (Memory(Region.EXIT, mem),)
    return Interpreter(code(text), memory, clock=lambda: 77).run(MEM, len(mem)).r0


@pytest.mark.parametrize(
    ("text", "kind", "slot"),
    [
        ("exit", FaultKind.UNINITIALISED, 0),
        ("mov %r0, %r3\nexit", FaultKind.UNINITIALISED, 0),
        ("ldxdw %r0, [%r10-8]\nexit", FaultKind.UNINITIALISED, 0),
        ("stw [%r10-8], 1\nldxdw %r0, [%r10-8]\nexit", FaultKind.UNINITIALISED, 1),
        ("mov %r2, 1\nlock add [%r10-8], %r2\nexit", FaultKind.UNINITIALISED, 1),
        ("call ktime_get_ns\nmov %r0, %r1\nexit", FaultKind.UNINITIALISED, 1),
        ("ldxb %r0, [%r1+4]\nexit", FaultKind.MEMORY, 0),
        ("ldxw %r0, [%r1+1]\nexit", FaultKind.MEMORY, 0),
        ("ldxb %r0, [%r1-1]\nexit", FaultKind.MEMORY, 0),
        ("stb [%r10+0], 1\nexit", FaultKind.MEMORY, 0),
        ("stb [%r10-513], 1\nexit", FaultKind.MEMORY, 0),
        ("mov %r2, 0\nldxb %r0, [%r2+0]\nexit", FaultKind.MEMORY, 1),
        ("mov %r2, -1\nldxdw %r0, [%r2+0]\nexit", FaultKind.MEMORY, 1),
        ("stb [%r1+0], 1\nexit", FaultKind.READ_ONLY, 0),
        ("mov %r0, 0", FaultKind.NO_INSTRUCTION, 1),
        ("ja -2\nexit", FaultKind.NO_INSTRUCTION, -1),
        ("lddw %r0, 1\nja -2\nexit", FaultKind.NO_INSTRUCTION, 1),
        ("ja -1", FaultKind.STEP_LIMIT, 0),
        ("call local -1", FaultKind.CALL_DEPTH, 0),
        ("call 6\nexit", FaultKind.CALL, 0),
        ("call runtime 5\nexit", FaultKind.CALL, 0),
        ("lddw %r1, map_by_fd 1\nexit", FaultKind.ADDRESS, 0),
        ("lddw %r1, map_value_by_idx 7\nexit", FaultKind.ADDRESS, 0),
    ],
)
def test_faults(text: str, kind: FaultKind, slot: int) -> None:
    with pytest.raises(Fault) as caught:
        run(text, b"\1\2\3\4")
    assert (caught.value.kind, caught.value.slot) == (kind, slot)


def test_a_fault_tells_the_address() -> None:
    with pytest.raises(Fault, match="slot 1: an access to offset 5, beyond the 4 bytes of exit") as caught:
        run("add %r1, 2\nldxb %r0, [%r1+3]\nexit", bytes(4))
    assert caught.value.address == MEM + 5


def test_a_callers_stack_is_reached_by_pointer_and_a_dead_one_is_not() -> None:
    assert (
        run("""
        mov %r1, %r10
        add %r1, -8
        call local write
        ldxdw %r0, [%r10-8]
        exit
    write:
        stdw [%r1+0], 42
        exit""")
        == 42
    )
    with pytest.raises(Fault) as caught:
        run("""
            call local leak
            ldxdw %r0, [%r0+0]
            exit
        leak:
            stdw [%r10-8], 1
            mov %r0, %r10
            add %r0, -8
            exit""")
    assert caught.value.kind is FaultKind.MEMORY


def test_a_new_frame_is_uninitialised_even_where_an_old_one_was() -> None:
    with pytest.raises(Fault) as caught:
        run("call local a\ncall local b\nexit\na:\nstdw [%r10-8], 1\nexit\nb:\nldxdw %r0, [%r10-8]\nexit")
    assert (caught.value.kind, caught.value.slot) == (FaultKind.UNINITIALISED, 5)


def test_calls_keep_r6_to_r9_and_r10_and_lose_the_rest() -> None:
    seen: list[tuple[int | None, ...]] = []

    def observer(state: State) -> None:
        if state.slot == 5:
            seen.append(tuple(state.registers))

    text = """
        mov %r6, 6
        mov %r9, 9
        mov %r2, 2
        mov %r0, 0
        call local f
        exit
    f:
        mov %r6, 1
        mov %r0, %r2
        exit"""
    assert Interpreter(code(text), observer=observer).run(1).r0 == 2
    assert seen == [(2, None, None, None, None, None, 6, None, None, 9, BASES[Region.STACK] + 512)]


def test_depth_counts_frames() -> None:
    chain = "".join(f"call local f{n}\nexit\nf{n}:\n" for n in range(CALL_DEPTH - 1)) + "mov %r0, 3\nexit"
    assert run(chain) == 3
    with pytest.raises(Fault, match="a call of 9 frames"):
        run(f"call local f\nexit\nf:\n{chain}")


def test_clock_and_steps() -> None:
    text = "call ktime_get_ns\nexit"
    assert run(text) == 77
    assert Interpreter(code(text), step_limit=2).run().steps == 2
    with pytest.raises(Fault):
        Interpreter(code(text), step_limit=1).run()


def test_scratch_is_read_anew_at_every_load() -> None:
    """Userspace may write the area between any two instructions."""
    scratch = bytearray(8)

    def observer(state: State) -> None:
        scratch[0] += 1

    text = "lddw %r1, map_value_by_idx 0\nldxb %r0, [%r1+0]\nldxb %r2, [%r1+0]\nlsh %r2, 8\nor %r0, %r2\nexit"
    memory = (Memory(Region.SCRATCH, scratch),)
    assert Interpreter(code(text), memory, observer=observer).run().r0 == 2 | 3 << 8


def handler(text: str, *, exit: bytearray | None = None, scratch: bytearray | None = None) -> Verdict:
    exit = bytearray(EXIT_SIZE) if exit is None else exit
    return run_handler(code(text), exit, scratch or bytearray(16), b"\7" * 8, lambda: 1000)


def test_a_handler_answers() -> None:
    exit, scratch = bytearray(EXIT_SIZE), bytearray(16)
    clock_offset, value = EXIT_FIELDS["clock_offset"].offset, EXIT_FIELDS["value"].offset
    exit[clock_offset] = 5
    text = f"""
        mov %r6, %r1
        call ktime_get_ns
        ldxdw %r2, [%r6+{clock_offset}]
        add %r0, %r2
        stxdw [%r6+{value}], %r0
        lddw %r3, map_value_by_idx 0, 8
        stxw [%r3+4], %r0
        lddw %r3, map_value_by_idx 1, 0
        ldxb %r0, [%r3+7]
        rsh %r0, 2
        exit"""
    assert handler(text, exit=exit, scratch=scratch) is Verdict.HANDLED
    assert int.from_bytes(exit[value : value + 8], "little") == 1005
    assert int.from_bytes(scratch[12:16], "little") == 1005


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("mov %r0, 2\nexit", FaultKind.VERDICT),
        (f"stdw [%r1+{EXIT_FIELDS['offset'].offset}], 1\nexit", FaultKind.READ_ONLY),
        (f"stw [%r1+{EXIT_FIELDS['reserved'].offset}], 1\nexit", FaultKind.READ_ONLY),
        (f"ldxdw %r0, [%r1+{EXIT_SIZE}]\nexit", FaultKind.MEMORY),
        ("ldxw %r0, [%r1+2]\nexit", FaultKind.MISALIGNED),
        ("lddw %r1, map_value_by_idx 0, 16\nldxb %r0, [%r1+0]\nexit", FaultKind.MEMORY),
        ("lddw %r1, map_value_by_idx 1, 0\nstb [%r1+0], 1\nexit", FaultKind.READ_ONLY),
    ],
)
def test_a_handler_is_held_to_the_contract(text: str, kind: FaultKind) -> None:
    with pytest.raises(Fault) as caught:
        handler(text)
    assert caught.value.kind is kind


@given(st.lists(INSNS, min_size=1, max_size=16))
def test_hostile_code_faults_and_nothing_else(insns: list[Insn]) -> None:
    memory = (Memory(Region.EXIT, bytearray(64)), Memory(Region.SCRATCH, bytearray(64)))
    try:
        result = Interpreter(decode(encode(insns)), memory, clock=lambda: 0, step_limit=200).run(MEM, 64)
    except Fault as fault:
        str(fault)
    else:
        assert 0 <= result.r0 < 1 << 64


def test_signed_division_exhaustively_at_8_bits() -> None:
    """The defining properties, not the formula: a = q * b + r, |r| < |b|, r has the sign of a."""
    for a in range(256):
        for b in range(1, 256):
            q = signed(INTEGERS.sdiv(a, b, 8), 8)
            r = signed(INTEGERS.srem(a, b, 8), 8)
            if (a, b) == (0x80, 0xFF):
                continue  # overflows; `devbc.semantics` never asks
            assert q * signed(b, 8) + r == signed(a, 8)
            assert abs(r) < abs(signed(b, 8))
            assert r == 0 or (r < 0) == (signed(a, 8) < 0)


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 63))
def test_arithmetic_shift_is_division_that_rounds_down(a: int, by: int) -> None:
    assert signed(INTEGERS.ashr(a, by, 64), 64) == signed(a, 64) // (1 << by)
