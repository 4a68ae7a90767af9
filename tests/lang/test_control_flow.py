"""Statements: generated handlers do what their trees say: the values, the effects, and whether they decline.

Conditions come from a small pool, so that they are asked again where they are known already; effects are set,
cleared and set again on ways that meet.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from devbc.diagnostics import Rejected
from devbc_lang import compile_source
from tests.lang.machine import Device
from tests.lang.trees import wrap

HANDLERS = 6
DEPTH = 3
LINES, TIMERS = ("la", "lb"), ("ta", "tb")


class _Return(Exception):  # noqa: N818 - it is a way to go
    pass


class _Break(Exception):  # noqa: N818
    pass


class _Continue(Exception):  # noqa: N818
    pass


class _Decline(Exception):  # noqa: N818
    pass


@dataclass
class Run:
    """A run of a handler: its names, and the effects so far."""

    a: int
    x: int
    i: int = 0
    effects: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("raise", "lower", "signal", "arm", "cancel"), 0)
    )


Step = Callable[[Run], None]
Test = Callable[[Run], bool]


def _raises(error: type[Exception]) -> Step:
    def step(run: Run) -> None:
        raise error

    return step


def _in_order(steps: list[Step]) -> Step:
    def step(run: Run) -> None:
        for each in steps:
            each(run)

    return step


def _set(value: Callable[[Run], int]) -> Step:
    def step(run: Run) -> None:
        run.x = wrap(value(run), 32, False)

    return step


def _effect(word: str, bit: int) -> Step:
    """As the language reference has it: the last of several effects on a line or timer decides."""

    def step(run: Run) -> None:
        effects = run.effects
        if word in ("raise", "pulse"):
            effects["raise"] |= bit
        if word == "raise":
            effects["lower"] &= ~bit
        if word in ("lower", "pulse"):
            effects["lower"] |= bit
        if word in ("signal", "arm", "cancel"):
            effects[word] |= bit
        if word == "cancel":
            effects["arm"] &= ~bit

    return step


class Writer:
    """Writes a body of statements, and the function of a run that it is."""

    def __init__(self, random: Random, functions: list[tuple[str, Step]]) -> None:
        self.random = random
        self.functions = functions

    def body(self, depth: int, loop: bool) -> tuple[str, Step]:
        found = [self.statement(depth, loop) for _ in range(self.random.randint(1, 3))]
        if self.random.random() < 0.25:
            found.append(self.way_out(loop))
        return " ".join(text for text, _ in found), _in_order([step for _, step in found])

    def way_out(self, loop: bool) -> tuple[str, Step]:
        choices = [("return x;", _Return), ("decline;", _Decline)]
        if loop:
            choices += [("break;", _Break), ("continue;", _Continue)] * 2
        text, error = self.random.choice(choices)
        return text, _raises(error)

    def statement(self, depth: int, loop: bool) -> tuple[str, Step]:
        kinds = [self.assignment, self.effect]
        if self.functions:
            kinds.append(self.call)
        if depth and self.random.random() < 0.6:
            return self.random.choice((self.choice, self.choice, self.match, self.loop))(depth - 1, loop)
        return self.random.choice(kinds)(loop)

    def assignment(self, loop: bool) -> tuple[str, Step]:
        number = self.random.choice((0, 1, 3, 0xFF, 0x8000_0000, 0xFFFF_FFFF))
        options: list[tuple[str, Callable[[Run], int]]] = [
            (f"x = x + {number};", lambda run: run.x + number),
            (f"x &= a | {number};", lambda run: run.x & (run.a | number)),
            (f"x = (x ^ a) | {number};", lambda run: (run.x ^ run.a) | number),
            ("x = a;", lambda run: run.a),
            (f"x = x * {number} - a;", lambda run: run.x * number - run.a),
        ]
        if loop:
            options += [
                ("x += i;", lambda run: run.x + run.i),
                ("x = x * 3 + i;", lambda run: run.x * 3 + run.i),
            ]
        text, value = self.random.choice(options)
        return text, _set(value)

    def effect(self, loop: bool) -> tuple[str, Step]:
        word = self.random.choice(("raise", "lower", "pulse", "signal", "arm", "cancel"))
        number = self.random.randrange(2)
        if word == "signal":
            return f"signal s{number};", _effect(word, 1 << number)
        if word in ("arm", "cancel"):
            at = " at 7" if word == "arm" else ""
            return f"{word} {TIMERS[number]}{at};", _effect(word, 1 << number)
        return f"{word} {LINES[number]};", _effect(word, 1 << number)

    def call(self, loop: bool) -> tuple[str, Step]:
        name, function = self.random.choice(self.functions)

        def step(run: Run) -> None:
            inner = Run(run.x, run.a, effects=run.effects)
            function(inner)
            run.x = inner.x

        return f"x = {name}(x, a);", step

    def condition(self) -> tuple[str, Test]:
        bit = self.random.randrange(3)
        options: list[tuple[str, Test]] = [
            (f"a[{bit}]", lambda run: bool(run.a >> bit & 1)),
            (f"a & {1 << bit} != 0", lambda run: bool(run.a & 1 << bit)),
            (f"x[{bit}]", lambda run: bool(run.x >> bit & 1)),
            (f"a < {bit}", lambda run: run.a < bit),
            ("x == a", lambda run: run.x == run.a),
        ]
        text, test = self.random.choice(options)
        match self.random.randrange(6):
            case 0:
                return f"!({text})", lambda run: not test(run)
            case 1:
                other_text, other = self.condition()
                return f"{text} && ({other_text})", lambda run: test(run) and other(run)
            case 2:
                other_text, other = self.condition()
                return f"{text} || ({other_text})", lambda run: test(run) or other(run)
        return text, test

    def choice(self, depth: int, loop: bool) -> tuple[str, Step]:
        text, test = self.condition()
        then_text, then = self.body(depth, loop)
        other_text, other = self.body(depth, loop)
        if self.random.random() < 0.4:
            other_text, other = "", _in_order([])

        def step(run: Run) -> None:
            (then if test(run) else other)(run)

        return f"if {text} {{ {then_text} }}" + (f" else {{ {other_text} }}" if other_text else ""), step

    def match(self, depth: int, loop: bool) -> tuple[str, Step]:
        subject = self.random.choice("ax")
        arms = [self.body(depth, loop) for _ in range(3)]

        def step(run: Run) -> None:
            arms[(0, 1, 1, 2)[(run.a if subject == "a" else run.x) & 3]][1](run)

        listed = " ".join(
            f"{label} => {{ {text} }}" for label, (text, _) in zip(("0", "1..3", "_"), arms, strict=True)
        )
        return f"match {subject} & 3 {{ {listed} }}", step

    def loop(self, depth: int, loop: bool) -> tuple[str, Step]:
        rounds = self.random.choice((0, 1, 2, 3, 9))
        text, body = self.body(min(depth, 1), True)

        def step(run: Run) -> None:
            before = run.i
            for number in range(rounds):
                run.i = number
                try:
                    body(run)
                except _Continue:
                    continue
                except _Break:
                    break
            run.i = before

        return f"for i in 0..{rounds} {{ {text} }}", step


def _function(body: Step) -> Step:
    def step(run: Run) -> None:
        with suppress(_Return):
            body(run)

    return step


@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.integers(0, 2**64 - 1))
def test_handlers_do_what_their_statements_say(seed: int) -> None:
    random = Random(seed)
    functions: list[tuple[str, Step]] = []
    declared = []
    for number in range(2):
        text, step = Writer(random, functions[:number]).body(1, False)
        declared.append(f"fn f{number}(a: u32, b: u32) -> u32 {{ var x: u32 = b; {text} return x; }}")
        functions.append((f"f{number}", _function(step)))
    bodies = [Writer(random, functions).body(DEPTH, False) for _ in range(HANDLERS)]
    registers = " ".join(
        f"register r{i} at {4 * i} : u32 {{ read {{ let a = state.a; var x = state.x; {text} return x; }} }}"
        for i, (text, _) in enumerate(bodies)
    )
    ports = "line la; line lb; signal s0; signal s1; timer ta; timer tb;"
    bank = f"bank pio[256] {{ {registers} }}"
    device = Device(f"device test {{ {ports} state {{ a: u32, x: u32 }} {' '.join(declared)} {bank} }}")
    values = [(random.getrandbits(32), random.getrandbits(32)) for _ in range(4)]
    for a, x in [*values, *((a, x) for a in range(8) for x in (0, 2, 5, 0xFFFF_FFFF))]:
        device.state.a, device.state.x = a, x
        for i, (text, step) in enumerate(bodies):
            run, outcome = Run(a, x), device.read(4 * i, 4)
            try:
                _function(step)(run)
            except _Decline:
                assert outcome.value is None, text
            else:
                assert outcome.value == run.x, text
                assert outcome.effects == {word: bits for word, bits in run.effects.items() if bits}, text


@pytest.mark.parametrize("body", ["", "let y = v & 1;", "if v & 1 != 0 { }", "if false { }", "return;"])
def test_calls_that_come_to_nothing_are_counted(body: str) -> None:
    """Ten thousand million calls are refused, whatever is known of each."""
    names = "abcdefghijk"
    functions = [f"fn a(v: u8) {{ {body} }}"]
    functions += [f"fn {name}(v: u8) {{ {f'{before}(v); ' * 10} }}" for before, name in pairwise(names)]
    write = f"write(v) {{ let y = v & 1; if y != 0 {{ }} {names[-1]}(v); }}"
    with pytest.raises(Rejected, match=r"L030"):
        Device(f"device d {{ {' '.join(functions)} bank pio[1] {{ register x at 0 : u8 {{ {write} }} }} }}")


def test_time_for_long_bodies_is_in_proportion() -> None:
    """What is known is found as fast behind thousands of blocks."""

    def seconds(count: int) -> float:
        write = "write(v) { " + "if v[0] { state.x = 1; } " * count + "}"
        text = f"device d {{ state {{ x: u8 }} bank pio[1] {{ register x at 0 : u8 {{ {write} }} }} }}"
        compiled = compile_source(text, "long.dev")
        start = time.process_time()
        assert compiled.ir
        return time.process_time() - start

    assert min(seconds(4000) for _ in range(2)) < 20 * min(seconds(500) for _ in range(3))
