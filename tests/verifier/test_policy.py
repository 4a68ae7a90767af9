"""Each item of a policy is enforced, and the refusal names it with what was asked and what is allowed."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from devbc.abi import Binding, parse_binding
from devbc.diagnostics import Code, Rejected
from devbc.isa.asm import assemble
from devbc.isa.insn import encode
from devbc.program.program import Function, Handler, Names, Program
from devbc.verifier import DEFAULT, Policy, errors, verify_program
from devbc.verifier.policy_file import parse_policy

HANDLED = "\nmov %r0, 1\nexit"

#: By item: a program, the least policy that takes it, one that does not, the code, and what the refusal says.
ITEMS: dict[str, tuple[str, Policy, Policy, Code, tuple[str, ...]]] = {
    "slots": (
        "mov %r2, 1" + HANDLED, Policy(slots=3), Policy(slots=2), errors.POLICY,
        ("has 3 instruction slots", "2 are allowed"),
    ),
    "instructions": (
        "mov %r2, 1" + HANDLED, Policy(instructions=3), Policy(instructions=2), errors.TOO_LONG,
        ("may take 3 instructions", "2 are allowed"),
    ),
    "steps": (
        "mov %r2, 1" + HANDLED, Policy(steps=3), Policy(steps=2), errors.TOO_COMPLEX,
        ("gave up after 2 ",),
    ),
    "stack_bytes": (
        "stdw [%r10-16], 1" + HANDLED, Policy(stack_bytes=16), Policy(stack_bytes=8), errors.OUT_OF_BOUNDS,
        ("outside the stack",),
    ),
    "call_depth": (
        "call local f\nexit\nf:" + HANDLED, Policy(call_depth=2), Policy(call_depth=1), errors.CALL_DEPTH,
        ("nested more than 1 deep",),
    ),
    "scratch_bytes": (
        HANDLED, Policy(scratch_bytes=64), Policy(scratch_bytes=63), errors.POLICY,
        ("shared area has 64 bytes", "63 are allowed"),
    ),
    "rodata_bytes": (
        HANDLED, Policy(rodata_bytes=32), Policy(rodata_bytes=31), errors.POLICY,
        ("read-only data has 32 bytes", "31 are allowed"),
    ),
    "lines": (
        "stw [%r1+80], 4" + HANDLED, Policy(lines=3), Policy(lines=2), errors.POLICY,
        ("`raise`", "beyond the 2 that there are"),
    ),
    "signals": (
        "stw [%r1+88], 1" + HANDLED, Policy(signals=1), Policy(signals=0), errors.POLICY,
        ("`signal`", "beyond the 0 that there are"),
    ),
    "timers": (
        "stw [%r1+92], 2" + HANDLED, Policy(timers=2), Policy(timers=1), errors.POLICY,
        ("`arm`", "beyond the 1 that there are"),
    ),
    "helpers": (
        "call 5" + HANDLED, Policy(), Policy(helpers=frozenset()), errors.HELPER,
        ("`ktime_get_ns` is withheld by the policy",),
    ),
    "effects": (
        "stw [%r1+84], 1" + HANDLED, Policy(effects=frozenset({"lower"})),
        Policy(effects=frozenset({"raise"})), errors.POLICY, ("does not grant the effect `lower`",),
    ),
}  # fmt: skip


def program(text: str) -> Program:
    section = "pio/write@0x0:4"
    binding = parse_binding(section)
    assert isinstance(binding, Binding)
    handler = Handler(section, binding, encode(assemble(text)), (Function("entry", 0),))
    return Program("", (handler,), bytes(64), bytes(32), Names(), ())


def test_every_item_is_here() -> None:
    assert set(ITEMS) == {field.name for field in fields(Policy)}


@pytest.mark.parametrize("item", ITEMS)
def test_an_item_is_enforced(item: str) -> None:
    text, enough, too_little, code, says = ITEMS[item]
    verify_program(program(text), policy=enough)
    with pytest.raises(Rejected) as caught:
        verify_program(program(text), policy=too_little)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code is code
    words = " ".join((diagnostic.message, diagnostic.label, *diagnostic.notes))
    assert all(each in words for each in says), words


@pytest.mark.parametrize("item", ITEMS)
def test_an_item_only_lowers(item: str) -> None:
    most = getattr(DEFAULT, item)
    beyond: Any = {item: most + 1 if isinstance(most, int) else most | {"more"}}
    with pytest.raises(ValueError, match=f"may lower `{item}`"):
        Policy(**beyond)


def test_a_deadline_beyond_the_timers() -> None:
    text = "stdw [%r1+112], 9" + HANDLED
    verify_program(program(text), policy=Policy(timers=2))
    with pytest.raises(Rejected, match="`deadline` has 1 element"):
        verify_program(program(text), policy=Policy(timers=1))


def test_a_policy_file() -> None:
    text = b'instructions = 2_000\nhelpers = []\neffects = ["raise", "lower"]\n'
    assert parse_policy(text, file="p.toml") == Policy(
        instructions=2000, helpers=frozenset(), effects=frozenset({"raise", "lower"})
    )
    assert parse_policy(b"", file="p.toml") == DEFAULT


@pytest.mark.parametrize(
    ("text", "message", "help"),
    [
        (b"\xff", "it is not UTF-8 text", ""),
        (b"instructions = ", "it is not TOML: invalid value", ""),
        (b"instruction = 3", "a policy has no item `instruction`", "did you mean `instructions`?"),
        (b"x = 3", "a policy has no item `x`", "there are `slots`, `instructions`"),
        (b'slots = "3"', "`slots` is not a number from 0 up", ""),
        (b"slots = true", "`slots` is not a number from 0 up", ""),
        (b"slots = -1", "`slots` is not a number from 0 up", ""),
        (b"call_depth = 9", "`call_depth` is 9, and the machine has at most 8", ""),
        (b'helpers = "ktime_get_ns"', "`helpers` is not a list of names", ""),
        (b'helpers = ["ktime"]', "`helpers` names `ktime`, which does not exist", ""),
        (b'effects = ["rise"]', "`effects` names `rise`, which does not exist", "did you mean `raise`?"),
        (b'effects = ["value"]', "`effects` names `value`, which does not exist", "there are `arm`"),
    ],
)
def test_a_policy_file_that_is_refused(text: bytes, message: str, help: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_policy(text, file="p.toml")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code is errors.BAD_POLICY
    assert diagnostic.message.startswith(message)
    assert " ".join(diagnostic.help).startswith(help)
    assert diagnostic.span is not None
    assert Path(diagnostic.span.file).name == "p.toml"
