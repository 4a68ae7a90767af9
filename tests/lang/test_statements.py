"""Statements: generated programs leave the state and the verdict that Python's run of them leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.lang.machine import Device
from tests.lang.trees import FIELDS, OPERATIONS, TYPES, field, inputs, integers, name_of, truths, wrap


class End(Enum):
    """How a statement ends other than by running on."""

    BREAK = "break"
    CONTINUE = "continue"
    RETURN = "return"
    DECLINE = "decline"


State = dict[str, int]


@dataclass(frozen=True)
class Step:
    """A statement as text, and as what it does to the state."""

    text: str
    run: Callable[[State], End | None]


def sequence(steps: list[Step]) -> Step:
    def run(state: State) -> End | None:
        for step in steps:
            end = step.run(state)
            if end is not None:
                return end
        return None

    return Step("{ " + " ".join(step.text for step in steps) + " }", run)


@st.composite
def assignments(draw: st.DrawFn) -> Step:
    """`=`, an operator, a slice, a bit."""
    bits, signed = type = draw(st.sampled_from(TYPES))
    target = f"a_{name_of(*type)}"
    kind = draw(st.sampled_from(["whole", "operator", "slice", "bit"]))
    if kind == "whole":
        value = draw(integers(bits, signed, 2))
        return _store(f"state.{target} = {value.text};", target, lambda s: value.value(s))
    if kind == "operator":
        op = draw(st.sampled_from(sorted(OPERATIONS)))
        operand = draw(field(type) if op in "/%" else integers(bits, signed, 1))
        return _store(
            f"state.{target} {op}= {operand.text};",
            target,
            lambda s: OPERATIONS[op](s[target], operand.value(s)),
        )
    if kind == "slice":
        high = draw(st.integers(0, bits - 1))
        low = draw(st.integers(0, high))
        width = high - low + 1
        part = next(each for each in (8, 16, 32, 64) if each >= width)
        value = draw(integers(part, False, 1))
        mask = (1 << width) - 1 << low
        return _store(
            f"state.{target}[{high}:{low}] = {value.text};",
            target,
            lambda s: s[target] & ~mask | value.value(s) << low & mask,
        )
    index, flag = draw(field((8, False))), draw(truths(1))

    def set_bit(s: State) -> int:
        bit = 1 << index.value(s) % bits
        return s[target] | bit if flag.value(s) else s[target] & ~bit

    return _store(f"state.{target}[{index.text}] = {flag.text};", target, set_bit)


def _store(text: str, target: str, value: Callable[[State], int]) -> Step:
    def run(state: State) -> None:
        state[target] = wrap(value(state), *FIELDS[target])

    return Step(text, run)


@st.composite
def conditionals(draw: st.DrawFn, depth: int, in_loop: bool) -> Step:
    condition = draw(truths(2))
    then, otherwise = draw(blocks(depth - 1, in_loop)), draw(st.none() | blocks(depth - 1, in_loop))

    def run(state: State) -> End | None:
        if condition.value(state):
            return then.run(state)
        return otherwise.run(state) if otherwise else None

    return Step(f"if {condition.text} {then.text}" + (f" else {otherwise.text}" if otherwise else ""), run)


@st.composite
def matches(draw: st.DrawFn, depth: int, in_loop: bool) -> Step:
    """Arms of single values and ranges, in any order, and `_`."""
    bits, signed = type = draw(st.sampled_from(TYPES))
    subject = draw(field(type))
    least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    numbers = st.integers(least, most) | st.integers(max(least, -4), 300 if bits > 8 else 100)
    edges = sorted(draw(st.sets(numbers, min_size=2, max_size=6)))
    ranges = list(zip(edges[::2], edges[1::2], strict=False))
    arms = [(low, high, draw(blocks(depth - 1, in_loop))) for low, high in draw(st.permutations(ranges))]
    rest = draw(blocks(depth - 1, in_loop))

    def run(state: State) -> End | None:
        value = subject.value(state)
        chosen = next((block for low, high, block in arms if low <= value < high), rest)
        return chosen.run(state)

    patterns = [f"{f'{low}..{high}' if high > low + 1 else low} => {block.text}" for low, high, block in arms]
    return Step(f"match {subject.text} {{ {' '.join(patterns)} _ => {rest.text} }}", run)


@st.composite
def loops(draw: st.DrawFn, depth: int) -> Step:
    start = draw(st.integers(0, 5))
    end = start + draw(st.integers(0, 4))
    body = draw(blocks(depth - 1, True))

    def run(state: State) -> End | None:
        for i in range(start, end):
            state["a_u32"] = wrap(state["a_u32"] * 3 + i, 32, False)
            ended = body.run(state)
            if ended is End.BREAK:
                break
            if ended in (End.RETURN, End.DECLINE):
                return ended
        return None

    count = "state.a_u32 = state.a_u32 * 3 + i;"
    return Step(f"for i in {start}..{end} {{ {count} {body.text} }}", run)


@st.composite
def calls(draw: st.DrawFn) -> Step:
    """A function with a result, an effect on the state, and a way out."""
    argument = draw(integers(8, False, 1))

    def run(state: State) -> End | None:
        given = argument.value(state)
        if given == 7:
            return End.DECLINE
        state["b_u16"] = wrap(state["b_u16"] + given, 16, False)
        state["a_u8"] = 1 if given > 100 else wrap(given + 1, 8, False)
        return None

    return Step(f"state.a_u8 = helper({argument.text});", run)


HELPER = """
fn helper(x: u8) -> u8 {
    if x == 7 { decline; }
    state.b_u16 += x;
    if x > 100 { return 1; }
    return x + 1;
}
"""


def ends(in_loop: bool) -> st.SearchStrategy[Step]:
    kinds = [End.RETURN, End.DECLINE] + [End.BREAK, End.CONTINUE] * in_loop
    return st.sampled_from(kinds).map(lambda end: Step(f"{end.value};", lambda _: end))


def blocks(depth: int, in_loop: bool) -> st.SearchStrategy[Step]:
    simple = assignments() | calls()
    if depth > 0:
        simple |= conditionals(depth, in_loop) | matches(depth, in_loop) | loops(depth)
    ending = st.lists(ends(in_loop), max_size=1)
    return st.tuples(st.lists(simple, max_size=3), ending).map(lambda parts: sequence(parts[0] + parts[1]))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(blocks(2, False), st.lists(inputs(), min_size=2, max_size=4))
def test_compiled_programs_do_what_python_does(program: Step, given_inputs: list[State]) -> None:
    fields = ", ".join(f"{name}: {name_of(*type)}" for name, type in FIELDS.items())
    machine = Device(
        f"""device test {{ state {{ {fields}, flag: bool }} {HELPER}
        bank pio[1] {{ register run at 0 : u8 {{ write(_v) {program.text} }} }} }}"""
    )
    for values in given_inputs:
        for name in FIELDS:
            setattr(machine.state, name, values[name])
        machine.scratch[type(machine.state).flag.offset] = values["flag"]
        expected = dict(values)
        ended = program.run(expected)
        outcome = machine.write(0, 1, 0)
        assert (outcome.value is None) == (ended is End.DECLINE), program.text
        if outcome.value is not None:
            assert {name: getattr(machine.state, name) for name in FIELDS} == {
                name: expected[name] for name in FIELDS
            }, program.text
