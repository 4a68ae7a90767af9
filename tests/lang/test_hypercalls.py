"""Hypercalls: arguments, results, registers by call; the same body behind every transport."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devbc.program.elf import load_object
from devbc.verifier import verify_program
from devbc_lang import compile_source
from tests.lang.machine import Device
from tests.lang.trees import FIELDS, TYPES, Tree, inputs, name_of, trees, wrap

U64 = (1 << 64) - 1
TYPE_NAMES = [name_of(*type) for type in TYPES]

#: For each type a call that returns its argument, and one that stores it; six arguments at once.
ECHO = Device(
    "device d { state { "
    + ", ".join(f"x_{name}: {name}" for name in (*TYPE_NAMES, "bool"))
    + " } "
    + " ".join(
        f"hypercall {number} echo_{name}(v: {name}) -> {name} {{ return v; }} "
        f"hypercall {number + 16} store_{name}(v: {name}) {{ state.x_{name} = v; }}"
        for number, name in enumerate((*TYPE_NAMES, "bool"))
    )
    + """
    hypercall 40 sum(a: u8, b: i16, c: u32, d: u64, e: bool, f: i64) -> i64 {
        return i64(a) + i64(b) * 3 + i64(c) * 5 + i64(d) * 7 + i64(e) * 11 + f * 13;
    }
    hypercall 41 unused(_a: u8) { }
    hypercall 42 nothing() -> u32 { return 7; }
    }"""
)
#: Where types end: powers of two, and what they are as signed numbers; give or take one.
POWERS = [sign << bits for bits in (0, 7, 8, 15, 16, 31, 32, 63) for sign in (1, -1)]
EDGES = [wrap(power + by, 64, False) for power in POWERS for by in (-1, 0, 1)]
REGISTERS = st.sampled_from(EDGES) | st.integers(0, U64)


def as_type(register: int, name: str) -> int | None:
    """The number that a 64-bit register holds, if the type has it: by Python, not by bits."""
    if name == "bool":
        return register if register < 2 else None
    bits = int(name[1:])
    value = wrap(register, 64, name[0] == "i")
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if name[0] == "i" else (0, (1 << bits) - 1)
    return value if low <= value <= high else None


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([*enumerate(TYPE_NAMES), (len(TYPE_NAMES), "bool")]), REGISTERS)
def test_an_argument_is_a_number_of_its_type_or_the_call_declines(of: tuple[int, str], register: int) -> None:
    number, name = of
    wanted = as_type(register, name)
    before = bytes(ECHO.scratch)
    echoed, stored = ECHO.call(number, register), ECHO.call(number + 16, register)
    if wanted is None:
        assert (echoed.value, stored.value) == (None, None)
        assert bytes(ECHO.scratch) == before
    else:
        assert (echoed.value, stored.value) == (register, 0)
        assert getattr(ECHO.state, f"x_{name}") == wanted


@settings(max_examples=100, deadline=None)
@given(st.lists(REGISTERS, min_size=6, max_size=6))
def test_six_arguments(registers: list[int]) -> None:
    names = ("u8", "i16", "u32", "u64", "bool", "i64")
    values = [as_type(register, name) for register, name in zip(registers, names, strict=True)]
    wanted = None
    if None not in values:
        wanted = sum(v * f for v, f in zip(values, (1, 3, 5, 7, 11, 13), strict=True) if v is not None) & U64
    assert ECHO.call(40, *registers).value == wanted


FIELD = re.compile(r"state\.(\w+)")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(st.lists(trees(), min_size=2, max_size=6), st.lists(inputs(), min_size=2, max_size=5))
def test_calls_compute_what_python_computes(results: list[Tree], given_inputs: list[dict[str, int]]) -> None:
    """Expressions of arguments, of every type; results extend to 64 bits as their type does."""
    taken = {tree.text: sorted(set(FIELD.findall(tree.text))) for tree in results}
    fitting = [tree for tree in results if len(taken[tree.text]) <= 6]
    calls = []
    for number, tree in enumerate(fitting):
        parameters = ", ".join(f"{name}: {_type(name)}" for name in taken[tree.text])
        result = name_of(tree.bits, tree.signed) if tree.bits else "bool"
        body = FIELD.sub(r"\1", tree.text)
        calls.append(f"hypercall {number} f{number}({parameters}) -> {result} {{ return {body}; }}")
    machine = Device(f"device d {{ {' '.join(calls)} hypercall 99 last() {{ }} }}")
    for values in given_inputs:
        for number, tree in enumerate(fitting):
            arguments = [wrap(values[name], 64, False) for name in taken[tree.text]]
            no_bool = "flag" in taken[tree.text] and values["flag"] > 1
            wanted = None if no_bool else wrap(tree.value(values), 64, False)
            assert machine.call(number, *arguments).value == wanted, tree.text


def _type(field: str) -> str:
    return "bool" if field == "flag" else name_of(*FIELDS[field])


def test_an_argument_that_is_not_used_is_one() -> None:
    assert ECHO.call(41, 255).value == 0
    assert ECHO.call(41, 256).value is None
    assert ECHO.call(42, U64).value == 7  # more than it takes is not looked at


BLOCK = """device d {
    state { x: u32, far: [u16; 3], near: [u32; 4], seen: u64, size: u32, status: u8 = 0x81 }
    line irq;
    signal kick;
    bank pio[0x40], mmio[0x80] {
        register x at 0 : u32 access 1, 2, 4 call read 0, write 1 {
            read { state.seen = access.offset; state.size = access.size; return state.x; }
            write(v, mask) {
                if v == 13 { decline; }
                state.x = state.x & ~mask | v & mask;
                raise irq;
            }
        }
        register far[3] at 0x10 stride 8 : u16 call read 2, write 3 {
            read(i) { state.seen = access.offset; return state.far[i]; }
            write(i, v) { state.far[i] = v; signal kick; }
        }
        register near[4] at 0x30 : u32 call write 5, read 4 in state.near;
        register id at 4 : u16 call read 6, write 7 = 0x8086 { write ignore; }
        register status at 8 : u8 call read 8, write 9 in state.status { bits 6:0 w1c; bits 7 rc; }
        register count[2] at 0xc : u8 call read 10, write 11 {
            read { state.size = access.size; return 9; }
            write { lower irq; }
        }
    }
}"""
BLOCKS = (Device(BLOCK), Device(BLOCK))
VALUES = st.one_of(st.integers(0, 20), st.integers(0, (1 << 33) - 1), st.just(1 << 63))
#: A register's call: its read's and write's number, its offset, size, elements and the bytes between them.
CALLED = [(0, 1, 0, 4, 0, 0), (2, 3, 0x10, 2, 3, 8), (4, 5, 0x30, 4, 4, 4), (6, 7, 4, 2, 0, 0)]
CALLED += [(8, 9, 8, 1, 0, 0), (10, 11, 0xC, 1, 2, 1)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(CALLED), st.booleans(), st.integers(0, 5), VALUES, st.sampled_from("pm")),
        max_size=12,
    )
)
def test_a_call_of_a_register_is_an_access_to_all_of_it(
    steps: list[tuple[tuple[int, ...], bool, int, int, str]],
) -> None:
    """Two devices, one reached by bank, one by call: they answer alike and have one state."""
    by_access, by_call = BLOCKS
    for device in BLOCKS:
        device.scratch[:] = device.program.scratch_image
    for (read, write, offset, size, count, stride), is_read, index, value, space in steps:
        bank = "pio" if space == "p" else "mmio"
        elements = [index] if count else []
        number, arguments = (read, elements) if is_read else (write, [*elements, value])
        called = by_call.call(number, *arguments)
        if (count and index >= count) or (not is_read and value >> 8 * size):
            assert called.value is None, "an argument that the register does not have"
            continue
        place = offset + stride * (index if count else 0)
        if is_read:
            accessed = by_access.read(place, size, bank)
            assert called.value == accessed.value
        else:
            accessed = by_access.write(place, size, value, bank)
            assert (called.value is None) == (accessed.value is None)
            assert called.value in (None, 0), "a write has no result"
        assert called.effects == accessed.effects
        assert by_call.scratch == by_access.scratch


@pytest.mark.parametrize("text", [BLOCK], ids=["block"])
def test_it_verifies(text: str) -> None:
    program = verify_program(load_object(compile_source(text, "d.dev").object, name="d.o"))
    calls = [each for each in program.handlers if each.handler.section.startswith("hypercall/")]
    assert len(calls) == 12
    assert program.program.names.calls[0] == "x.read"
    assert program.program.names.calls[11] == "count.write"


def test_a_call_declines_before_anything_is_done() -> None:
    device = Device(
        """device d { state { n: u32 } line irq;
        fn set(v: u32) { state.n = v; raise irq; }
        hypercall 0x10 set(v: u32) { if v == 0 { decline; } set(v); }
        hypercall 3 whole() -> u64 { return u64(access.size) + access.offset + u64(access.vcpu); } }"""
    )
    assert device.call(0x10, 0).value is None
    assert device.call(0x10, 1 << 32).value is None
    assert device.state.n == 0
    assert device.call(0x10, 5).effects == {"raise": 1}
    assert device.state.n == 5
    assert device.call(3).value == 3  # no bytes; its own number
    assert device.program.names.calls == {0x10: "set", 3: "whole"}


def test_words_of_calls_are_names_elsewhere() -> None:
    device = Device(
        """device d { state { call: u8 = 3, hypercall: u8 = 4 }
        fn call(hypercall: u8) -> u8 { let call = hypercall; return call + state.call; }
        bank pio[1] { register call at 0 : u8 call read 1 { read { return call(state.hypercall); } } }
        hypercall 0 call(call: u8) -> u8 { return call; } }"""
    )
    assert device.read(0, 1).value == device.call(1).value == 7
    assert device.call(0, 8).value == 8
